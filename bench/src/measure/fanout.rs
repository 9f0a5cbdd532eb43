//! The way out: what it costs to deliver 100 workers to a watcher, at once and in the 50 ms class.

use super::{medians, of};
use crate::Pace;
use crate::drive::{Peer, Shape};
use crate::fleet::WORKERS;
use crate::table::Table;
use std::time::Duration;

const PEERS: [Peer; 5] = [Peer::SseEach, Peer::SseOnce, Peer::Plain, Peer::Nats, Peer::Ours];

pub async fn immediate(pace: Pace, table: &mut Table) {
    eprintln!("fan-out, immediate: CPU µs per delivery of 100 workers");
    let every = Some(Duration::from_millis(100));
    let shape = Shape { hives: 1, workers: WORKERS, every, watchers: 100, class: Duration::ZERO };
    let what = "fan-out at once, 100 watchers, a hive at 10 Hz, the document's fields";
    let targets = [Some(1.0 / 8.0), Some(1.0), Some(1.0 / 2.0), None];
    compare(pace, table, shape, what, targets).await;
}

pub async fn classes(pace: Pace, table: &mut Table) {
    eprintln!("fan-out, 50 ms class: CPU µs per delivery of 100 workers");
    let every = Some(Duration::from_secs(1));
    let class = Duration::from_millis(50);
    let shape = Shape { hives: 200, workers: WORKERS, every, watchers: 20, class };
    let what = "fan-out every 50 ms, 20 watchers, 200 hives at 1 Hz, the document's fields";
    let targets = [Some(1.0 / 20.0), Some(1.0 / 3.0), Some(1.0 / 7.0), Some(1.0 / 3.0)];
    compare(pace, table, shape, what, targets).await;
}

async fn compare(pace: Pace, table: &mut Table, shape: Shape, what: &str, targets: [Option<f64>; 4]) {
    let cost = |window: &super::Window| window.cpu_ns / (window.delivered / f64::from(WORKERS)) / 1_000.0;
    let found = medians(pace, &PEERS, shape, cost).await;
    let (ours, unit) = (of(&found, Peer::Ours), "µs CPU per delivery");
    table.ours(what, ours, unit, None, false);
    for (peer, target) in PEERS.into_iter().zip(targets) {
        if found.iter().any(|(found, _)| *found == peer) {
            table.peer(what, peer.name(), of(&found, peer), unit, ours, target);
        }
    }
}
