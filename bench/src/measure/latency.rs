//! From the hive's send to the watcher's receipt.

use super::{Runs, WARM_UP};
use crate::Pace;
use crate::drive::{Peer, Shape, start};
use crate::table::Table;
use std::sync::PoisonError;
use std::time::Duration;

const PEERS: [Peer; 4] = [Peer::SseEach, Peer::SseOnce, Peer::Plain, Peer::Ours];
/// With few hives. With many, a thread for each of them and one lock are no floor.
const WITH_FLOOR: [Peer; 5] = [Peer::SseEach, Peer::SseOnce, Peer::Plain, Peer::Bare, Peer::Ours];
/// The document's target, in milliseconds.
const DOCUMENT: f64 = 100.0;

pub async fn run(pace: Pace, table: &mut Table) {
    // A few hives need longer for as many samples: the last percent of 1,000 is ten of them.
    let few = (10, 20, Duration::from_secs(5), &WITH_FLOOR[..]);
    for (hives, watchers, window, peers) in [few, (1_000, 10, Duration::from_secs(2), &PEERS[..])] {
        eprintln!("latency: {hives} hives at 1 Hz");
        let every = Some(Duration::from_secs(1));
        let shape = Shape { hives, workers: 10, every, watchers, class: Duration::ZERO };
        let pace = Pace { window: pace.window.max(window), ..pace };
        let (p50, p99) = percentiles(pace, peers, shape).await;
        let what = format!("hive's send to watcher, {hives} hives × 10 workers at 1 Hz, {watchers} watchers, p99");
        let bound = if hives >= 1_000 { 50.0 } else { DOCUMENT };
        table.ours(&what, p99.median(Peer::Ours), "ms", Some(bound), bound >= DOCUMENT);
        table.ours(&what.replace("p99", "p50"), p50.median(Peer::Ours), "ms", None, false);
        for peer in peers.iter().filter(|peer| **peer != Peer::Ours && p99.has(**peer)) {
            let target = (*peer == Peer::SseEach).then_some(0.5);
            table.peer(&what, peer.name(), p99.median(*peer), "ms", p99.ours_to(*peer), target);
        }
    }
    let class = Duration::from_millis(50);
    let every = Some(Duration::from_secs(1));
    let shape = Shape { hives: 1_000, workers: 10, every, watchers: 10, class };
    let p99 = percentiles(pace, &[Peer::Ours], shape).await.1.median(Peer::Ours);
    table.ours("the same every 50 ms, 1,000 hives, p99", p99, "ms", Some(DOCUMENT), true);
}

/// The median and the last percent of each run, in milliseconds.
async fn percentiles(pace: Pace, peers: &[Peer], shape: Shape) -> (Runs, Runs) {
    let (mut all50, mut all99) = (Runs::none(peers), Runs::none(peers));
    for run in 0..pace.runs {
        for ((peer, p50), (_, p99)) in all50.0.iter_mut().zip(&mut all99.0) {
            let Some(server) = peer.start() else { continue };
            let running = start(*peer, &server.address, shape, true).await;
            tokio::time::sleep(WARM_UP).await;
            running.counts.start_timing();
            tokio::time::sleep(pace.window).await;
            let mut took = running.counts.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
            took.sort_unstable();
            let at =
                |part: f64| took.get((took.len() as f64 * part) as usize).map_or(f64::NAN, |us| *us as f64 / 1_000.0);
            eprintln!("  run {run} {}: p50 {:.2} ms, p99 {:.2} ms of {}", peer.name(), at(0.5), at(0.99), took.len());
            p50.push(at(0.5));
            p99.push(at(0.99));
        }
    }
    (all50, all99)
}
