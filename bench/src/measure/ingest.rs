//! The way in: what a batch of 100 workers costs the server, flat out and at a batch a second from each hive.

use super::{medians, of};
use crate::Pace;
use crate::drive::{Peer, Shape};
use crate::fleet::WORKERS;
use crate::table::Table;
use std::time::Duration;

const PEERS: [Peer; 4] = [Peer::SseEach, Peer::Plain, Peer::Ours, Peer::OursFull];

pub async fn flat_out(pace: Pace, table: &mut Table) {
    eprintln!("ingest, flat out: CPU ns per worker update");
    let shape = Shape { hives: 10, workers: WORKERS, every: None, watchers: 0, class: Duration::ZERO };
    let found = medians(pace, &PEERS, shape, |window| window.cpu_ns / (window.pushed * f64::from(WORKERS))).await;
    let (what, unit) = ("ingest flat out, batches of 100, the document's fields", "ns CPU per worker");
    let ours = of(&found, Peer::Ours);
    table.ours(what, ours, unit, None, false);
    table.peer(what, Peer::SseEach.name(), of(&found, Peer::SseEach), unit, ours, Some(1.0 / 15.0));
    table.peer(what, Peer::Plain.name(), of(&found, Peer::Plain), unit, ours, None);
    table.ours("ingest flat out, batches of 100, all fields of ours", of(&found, Peer::OursFull), unit, None, false);
}

pub async fn paced(pace: Pace, table: &mut Table) {
    eprintln!("ingest, a batch a second from each of 200 hives: CPU µs per batch of 100");
    let every = Some(Duration::from_secs(1));
    let shape = Shape { hives: 200, workers: WORKERS, every, watchers: 0, class: Duration::ZERO };
    let pace = Pace { window: pace.window.max(Duration::from_secs(2)), ..pace };
    let found = medians(pace, &PEERS, shape, |window| window.cpu_ns / window.pushed / 1_000.0).await;
    let (what, unit) = ("ingest at 1 Hz, 200 hives, batches of 100, the document's fields", "µs CPU per batch");
    let ours = of(&found, Peer::Ours);
    table.ours(what, ours, unit, None, false);
    table.peer(what, Peer::SseEach.name(), of(&found, Peer::SseEach), unit, ours, Some(1.0 / 4.0));
    table.peer(what, Peer::Plain.name(), of(&found, Peer::Plain), unit, ours, None);
    table.ours("ingest at 1 Hz, 200 hives, all fields of ours", of(&found, Peer::OursFull), unit, None, false);
}
