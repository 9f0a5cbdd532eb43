//! The way out: what it costs to deliver 100 workers to a watcher, at once and in the 50 ms class.

use super::{medians, of};
use crate::Pace;
use crate::drive::{Peer, Shape};
use crate::fleet::WORKERS;
use crate::table::Table;
use std::time::Duration;

/// Beside rbee, and the ratios that are wanted of each.
type Peers = [(Peer, Option<f64>)];

pub async fn immediate(pace: Pace, table: &mut Table) {
    eprintln!("fan-out, immediate: CPU µs per delivery of 100 workers");
    let every = Some(Duration::from_millis(100));
    let shape = Shape { hives: 1, workers: WORKERS, every, watchers: 100, class: Duration::ZERO };
    let what = "fan-out at once, 100 watchers, a hive at 10 Hz, the document's fields";
    let peers = [
        (Peer::SseEach, Some(1.0 / 8.0)),
        (Peer::SseOnce, Some(1.0)),
        (Peer::Plain, Some(1.0 / 2.0)),
        (Peer::Nats, None),
        (Peer::Bare, None),
    ];
    compare(pace, table, shape, what, &peers).await;
}

pub async fn classes(pace: Pace, table: &mut Table) {
    let (every, class) = (Some(Duration::from_secs(1)), Duration::from_millis(50));
    let peers = [
        (Peer::SseEach, Some(1.0 / 20.0)),
        (Peer::SseOnce, Some(1.0 / 3.0)),
        (Peer::Plain, Some(1.0 / 7.0)),
        (Peer::Nats, Some(1.0 / 3.0)),
    ];
    for watchers in [20, 100] {
        eprintln!("fan-out, 50 ms class, {watchers} watchers: CPU µs per delivery of 100 workers");
        let shape = Shape { hives: 200, workers: WORKERS, every, watchers, class };
        let what = format!("fan-out every 50 ms, {watchers} watchers, 200 hives at 1 Hz, the document's fields");
        compare(pace, table, shape, &what, &peers).await;
    }
}

async fn compare(pace: Pace, table: &mut Table, shape: Shape, what: &str, peers: &Peers) {
    let cost = |window: &super::Window| window.cpu_ns / (window.delivered / f64::from(WORKERS)) / 1_000.0;
    let measured: Vec<Peer> = peers.iter().map(|(peer, _)| *peer).chain([Peer::Ours]).collect();
    let found = medians(pace, &measured, shape, cost).await;
    let (ours, unit) = (of(&found, Peer::Ours), "µs CPU per delivery");
    table.ours(what, ours, unit, None, false);
    for (peer, target) in peers {
        if found.iter().any(|(found, _)| found == peer) {
            table.peer(what, peer.name(), of(&found, *peer), unit, ours, *target);
        }
    }
}
