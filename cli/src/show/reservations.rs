//! Reservations as rows, one for each thing that is held.

use super::table::{Cell, Column, Tint, layout};
use super::{units, workers};
use crate::args::{Global, Output};
use crate::terminal;
use std::time::SystemTime;

const COLUMNS: [Column; 10] = [
    Column::word("RESERVATION", 0),
    Column::text("HELD", 0),
    Column::number("VRAM", 0),
    Column::word("ENDS", 0),
    Column::text("ENDPOINT", 2),
    Column::text("HOLDER", 1),
    Column::text("KEY", 3),
    Column::text("LEFT", 4),
    Column::number("TOKEN", 4),
    Column::text("USED BY", 4),
];
/// So many of them without `-o wide`.
const NARROW: usize = 7;

/// The table.
pub fn table(global: &Global, reservations: &[proto::Reservation]) -> String {
    let wide = global.output == Output::Wide;
    let now = SystemTime::now();
    let rows: Vec<Vec<Cell>> = reservations.iter().flat_map(|reservation| rows(reservation, now)).collect();
    let width = if wide { None } else { terminal::width() };
    layout(if wide { &COLUMNS } else { &COLUMNS[..NARROW] }, &rows, width, terminal::colourful(global.color))
}

fn rows(reservation: &proto::Reservation, now: SystemTime) -> Vec<Vec<Cell>> {
    let row = |held: &proto::ReservedHold| {
        let hold = held.hold.clone().unwrap_or_default();
        vec![
            Cell::plain(&reservation.id),
            Cell::plain(format!("{}/{}{}", held.hive, hold.worker, hold.gpu_uuid)),
            Cell::known((hold.vram_bytes > 0).then(|| units::size(hold.vram_bytes))),
            ends(&hold, now),
            Cell::known(held.endpoint.as_ref().map(workers::endpoint)),
            Cell::known(Some(reservation.holder.clone())),
            Cell::known(Some(reservation.key.clone())),
            left(reservation, &hold),
            Cell::plain(hold.fencing_token.to_string()),
            Cell::known(Some(hold.used_by)),
        ]
    };
    reservation.holds.iter().map(row).collect()
}

/// How many of its holds there are still: one of which some have ended looks like a smaller one.
fn left(reservation: &proto::Reservation, hold: &proto::Hold) -> Cell {
    let (left, made) = (reservation.holds.len(), hold.reservation_size);
    let all = usize::try_from(made).is_ok_and(|made| left >= made);
    match made {
        0 => Cell::known(None),
        made if all => Cell::plain(format!("{left} of {made}")),
        made => Cell::tinted(format!("{left} of {made}"), Tint::Yellow),
    }
}

/// When it ends: by this machine's clock, which is only shown.
fn ends(hold: &proto::Hold, now: SystemTime) -> Cell {
    if !hold.used_by.is_empty() {
        return Cell::plain("with its worker");
    }
    let Some(end) = hold.expire_time.as_ref().and_then(common::from_timestamp) else { return Cell::known(None) };
    match end.duration_since(now) {
        Ok(left) => Cell::plain(format!("in {}", units::time(left))),
        Err(_) => Cell::tinted("now", Tint::Yellow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_thing_that_is_held_has_a_row() {
        let now = SystemTime::now();
        let worker = proto::Hold {
            worker: "llm/1".into(),
            expire_time: Some(common::timestamp(now + Duration::from_secs(75))),
            fencing_token: 7,
            reservation_size: 3,
            ..Default::default()
        };
        let vram = proto::Hold {
            gpu_uuid: "GPU-1".into(),
            vram_bytes: 8 << 30,
            used_by: "llm/9".into(),
            ..Default::default()
        };
        let part = |hold| proto::ReservedHold { hive: "box".into(), hold: Some(hold), endpoint: None };
        let holds = vec![part(worker), part(vram)];
        let reservation = proto::Reservation { id: "r1".into(), key: "k".into(), holds, ..Default::default() };
        let texts: Vec<Vec<String>> =
            rows(&reservation, now).into_iter().map(|row| row.into_iter().map(|cell| cell.text).collect()).collect();
        assert_eq!(texts[0], ["r1", "box/llm/1", "-", "in 1m15s", "-", "-", "k", "2 of 3", "7", "-"]);
        assert_eq!(texts[1], ["r1", "box/GPU-1", "8.0G", "with its worker", "-", "-", "k", "-", "0", "llm/9"]);
        assert_eq!(texts[0].len(), COLUMNS.len());
    }
}
