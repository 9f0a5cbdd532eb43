//! From the hive's send to the watcher's receipt.

use super::WARM_UP;
use crate::Pace;
use crate::drive::{Peer, Shape, start};
use crate::table::{Table, median};
use std::sync::PoisonError;
use std::time::Duration;

const PEERS: [Peer; 4] = [Peer::SseEach, Peer::SseOnce, Peer::Plain, Peer::Ours];
/// The document's target, in milliseconds.
const DOCUMENT: f64 = 100.0;

pub async fn run(pace: Pace, table: &mut Table) {
    for (hives, watchers, runs) in [(10, 20, pace.runs), (1_000, 10, pace.runs)] {
        eprintln!("latency: {hives} hives at 1 Hz");
        let every = Some(Duration::from_secs(1));
        let shape = Shape { hives, workers: 10, every, watchers, class: Duration::ZERO };
        let found =
            percentiles(Pace { runs, window: pace.window.max(Duration::from_secs(2)), ..pace }, &PEERS, shape).await;
        let what = format!("hive's send to watcher, {hives} hives × 10 workers at 1 Hz, {watchers} watchers, p99");
        let ours = found.iter().find(|(peer, ..)| *peer == Peer::Ours).map_or(f64::NAN, |found| found.2);
        let bound = if hives >= 1_000 { 50.0 } else { DOCUMENT };
        table.ours(&what, ours, "ms", Some(bound), bound >= DOCUMENT);
        for (peer, p50, p99) in found {
            if peer == Peer::Ours {
                table.ours(&what.replace("p99", "p50"), p50, "ms", None, false);
            } else {
                let target = (peer == Peer::SseEach).then_some(0.5);
                table.peer(&what, peer.name(), p99, "ms", ours, target);
            }
        }
    }
    let class = Duration::from_millis(50);
    let every = Some(Duration::from_secs(1));
    let shape = Shape { hives: 1_000, workers: 10, every, watchers: 10, class };
    let found = percentiles(pace, &[Peer::Ours], shape).await;
    let p99 = found.first().map_or(f64::NAN, |found| found.2);
    table.ours("the same every 50 ms, 1,000 hives, p99", p99, "ms", Some(DOCUMENT), true);
}

async fn percentiles(pace: Pace, peers: &[Peer], shape: Shape) -> Vec<(Peer, f64, f64)> {
    let mut found: Vec<(Peer, Vec<f64>, Vec<f64>)> = peers.iter().map(|peer| (*peer, vec![], vec![])).collect();
    for run in 0..pace.runs {
        for (peer, p50, p99) in &mut found {
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
    found.into_iter().map(|(peer, p50, p99)| (peer, median(p50), median(p99))).collect()
}
