//! The way in: what a batch of 100 workers costs the server, flat out and at a batch a second from each hive.

use super::Runs;
use crate::Pace;
use crate::drive::{Peer, Shape};
use crate::fleet::WORKERS;
use crate::table::Table;
use std::time::Duration;

const PEERS: [Peer; 4] = [Peer::SseEach, Peer::Plain, Peer::Ours, Peer::OursFull];

pub async fn flat_out(pace: Pace, table: &mut Table) {
    eprintln!("ingest, flat out: CPU ns per worker update");
    let shape = Shape { hives: 10, workers: WORKERS, every: None, watchers: 0, class: Duration::ZERO };
    let runs = Runs::of(pace, &PEERS, shape, |window| window.cpu_ns / (window.pushed * f64::from(WORKERS))).await;
    let (what, unit) = ("ingest flat out, batches of 100, the document's fields", "ns CPU per worker");
    table.ours(what, runs.median(Peer::Ours), unit, None, false);
    table.peer(
        what,
        Peer::SseEach.name(),
        runs.median(Peer::SseEach),
        unit,
        runs.ours_to(Peer::SseEach),
        Some(1.0 / 15.0),
    );
    table.peer(what, Peer::Plain.name(), runs.median(Peer::Plain), unit, runs.ours_to(Peer::Plain), None);
    table.ours("ingest flat out, batches of 100, all fields of ours", runs.median(Peer::OursFull), unit, None, false);
}

pub async fn paced(pace: Pace, table: &mut Table) {
    eprintln!("ingest, a batch a second from each of 200 hives: CPU µs per batch of 100");
    let every = Some(Duration::from_secs(1));
    let shape = Shape { hives: 200, workers: WORKERS, every, watchers: 0, class: Duration::ZERO };
    let pace = Pace { window: pace.window.max(Duration::from_secs(2)), ..pace };
    let runs = Runs::of(pace, &PEERS, shape, |window| window.cpu_ns / window.pushed / 1_000.0).await;
    let (what, unit) = ("ingest at 1 Hz, 200 hives, batches of 100, the document's fields", "µs CPU per batch");
    table.ours(what, runs.median(Peer::Ours), unit, None, false);
    table.peer(
        what,
        Peer::SseEach.name(),
        runs.median(Peer::SseEach),
        unit,
        runs.ours_to(Peer::SseEach),
        Some(1.0 / 4.0),
    );
    table.peer(what, Peer::Plain.name(), runs.median(Peer::Plain), unit, runs.ours_to(Peer::Plain), None);
    table.ours("ingest at 1 Hz, 200 hives, all fields of ours", runs.median(Peer::OursFull), unit, None, false);
}
