//! The four calls about reservations, from the wire and back; `reserve/` does the work.

use super::super::fleet::{PAGE_BYTES, page_size};
use super::super::{Shared, invalid};
use crate::fleet::is_reservation_id;
use crate::reserve::{Refused, Wish, parse_ttl};
use prost::Message;
use proto::{
    ListReservationsRequest, ListReservationsResponse, ReleaseRequest, ReleaseResponse, RenewRequest, RenewResponse,
    ReserveRequest, ReserveResponse,
};
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What whoever found nothing that fits is told to wait: records are a second old at most.
const RETRY: Duration = Duration::from_secs(1);

pub async fn reserve(shared: &Shared, request: ReserveRequest) -> Result<ReserveResponse, Status> {
    let answered = shared.reserving.reserve(Wish::parse(request)?).await?;
    Ok(ReserveResponse { reservation: Some(answered.reservation), existing: answered.existing })
}

pub async fn renew(shared: &Shared, request: RenewRequest) -> Result<RenewResponse, Status> {
    check_id(&request.id)?;
    let reservation = shared.reserving.renew(&request.id, parse_ttl(request.ttl.as_ref())?).await?;
    Ok(RenewResponse { reservation: Some(reservation) })
}

pub async fn release(shared: &Shared, request: ReleaseRequest) -> Result<ReleaseResponse, Status> {
    check_id(&request.id)?;
    Ok(shared.reserving.release(&request.id).await?)
}

pub fn list(shared: &Shared, request: ListReservationsRequest) -> Result<ListReservationsResponse, Status> {
    let size = page_size(request.page_size)?;
    if !request.page_token.is_empty() && !is_reservation_id(&request.page_token) {
        return Err(invalid::field("page_token", "is not the next_page_token of an answer"));
    }
    let mut reservations = shared.reserving.list(&request.page_token);
    let mut bytes = 0;
    let fits = reservations.iter().take_while(|reservation| {
        bytes += reservation.encoded_len();
        bytes <= PAGE_BYTES
    });
    let fits = fits.count().clamp(1, size);
    let more = reservations.len() > fits;
    reservations.truncate(fits);
    let next_page_token = reservations.last().filter(|_| more).map(|last| last.id.clone()).unwrap_or_default();
    let coverage = Some(shared.fleet.coverage(Instant::now()));
    Ok(ListReservationsResponse { reservations, next_page_token, coverage })
}

fn check_id(id: &str) -> Result<(), Status> {
    if is_reservation_id(id) { Ok(()) } else { Err(invalid::field("id", "is not the id of a reservation")) }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let sentence = refused.to_string();
        match refused {
            Refused::Invalid { field, reason } => invalid::field(&field, reason),
            Refused::NothingFits(_) | Refused::TooMuch(_) => invalid::exhausted(sentence, RETRY),
            Refused::Unknown(_) => Self::not_found(sentence),
            Refused::NotNow(_) => Self::failed_precondition(sentence),
            Refused::KeyUsed(_) => Self::already_exists(sentence),
            Refused::Unreachable(_) => {
                let details = ErrorDetails::with_retry_info(Some(RETRY));
                Self::with_error_details(Code::Unavailable, sentence, details)
            }
        }
    }
}
