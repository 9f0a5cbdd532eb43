//! `rbee reservations`: what is held, by whom, for how long.

use super::reserve;
use crate::args::Global;
use crate::failure::Failure;
use crate::{connect, terminal};

/// Reservations in one answer; the queen is asked again for the next.
const PAGE: i32 = 1_000;

/// Lists them.
pub async fn run(global: &Global) -> Result<(), Failure> {
    let mut client = connect::scheduler(global).await?;
    let mut whole = proto::ListReservationsResponse::default();
    loop {
        let page_token = std::mem::take(&mut whole.next_page_token);
        let request = proto::ListReservationsRequest { page_size: PAGE, page_token };
        let page = connect::answer(global.timeout, "list reservations", client.list_reservations(request)).await?;
        let last = page.next_page_token.is_empty() || page.reservations.is_empty();
        whole.reservations.extend(page.reservations);
        whole.coverage = page.coverage;
        if last {
            break;
        }
        whole.next_page_token = page.next_page_token;
    }
    reserve::print(global, "ListReservationsResponse", &whole, &whole.reservations)?;
    if whole.reservations.is_empty() && !global.quiet {
        terminal::say("nothing is held; `rbee reserve` holds a worker or GPU memory");
    }
    Ok(())
}
