//! From the hive's send to the watcher's receipt.

use super::{Runs, WARM_UP};
use crate::Pace;
use crate::drive::{Peer, Shape, start};
use crate::fleet::WORKERS;
use crate::table::Table;
use std::time::Duration;

const PEERS: [Peer; 4] = [Peer::SseEach, Peer::SseOnce, Peer::Plain, Peer::Ours];
/// With few hives. With many, a thread for each of them and one lock are no floor.
const WITH_FLOOR: [Peer; 5] = [Peer::SseEach, Peer::SseOnce, Peer::Plain, Peer::Bare, Peer::Ours];
/// The document's target, in milliseconds.
const DOCUMENT: f64 = 100.0;

/// One load, and who is measured under it.
struct Scene {
    shape: Shape,
    peers: &'static [Peer],
    /// At least this long, so that the last percent is not a single batch of a hive.
    window: Duration,
    /// The most that ours may take, in milliseconds.
    bound: f64,
}

impl Scene {
    /// At once, with so many hives, workers of each, and watchers.
    fn of(hives: u32, workers: u32, every: Duration, watchers: u32) -> Self {
        let shape = Shape { hives, workers, every: Some(every), watchers, class: Duration::ZERO };
        Self { shape, peers: &WITH_FLOOR, window: Duration::from_secs(10), bound: DOCUMENT }
    }

    fn name(&self) -> String {
        let Shape { hives, workers, every, watchers, .. } = self.shape;
        let rate = 1.0 / every.unwrap_or_default().as_secs_f64();
        let many = if hives == 1 { "a hive".to_owned() } else { format!("{hives} hives") };
        format!("hive's send to watcher, {many} × {workers} workers at {rate} Hz, {watchers} watchers, p99")
    }
}

pub async fn run(pace: Pace, table: &mut Table) {
    let second = Duration::from_secs(1);
    let many = Scene::of(1_000, 10, second, 10);
    let scenes = [
        Scene::of(10, 10, second, 20),
        Scene { window: Duration::from_secs(3), ..Scene::of(1, WORKERS, Duration::from_millis(100), 100) },
        Scene { window: Duration::from_secs(2), peers: &PEERS, bound: 50.0, ..many },
    ];
    for scene in scenes {
        let what = scene.name();
        eprintln!("{what}");
        let pace = Pace { window: pace.window.max(scene.window), ..pace };
        let (p50, p99) = percentiles(pace, scene.peers, scene.shape).await;
        table.ours(&what, p99.median(Peer::Ours), "ms", Some(scene.bound), scene.bound >= DOCUMENT);
        table.ours(&what.replace("p99", "p50"), p50.median(Peer::Ours), "ms", None, false);
        for peer in scene.peers.iter().filter(|peer| **peer != Peer::Ours && p99.has(**peer)) {
            let target = (*peer == Peer::SseEach).then_some(0.5);
            table.peer(&what, peer.name(), p99.median(*peer), "ms", p99.ours_to(*peer), target);
        }
    }
    let class = Duration::from_millis(50);
    let shape = Shape { hives: 1_000, workers: 10, every: Some(second), watchers: 10, class };
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
            let took = running.end().await.latencies();
            let (half, last) = (percentile(&took, 0.5), percentile(&took, 0.99));
            eprintln!("  run {run} {}: p50 {half:.2} ms, p99 {last:.2} ms of {}", peer.name(), took.len());
            p50.push(half);
            p99.push(last);
        }
    }
    (all50, all99)
}

/// Of what is sorted, in milliseconds.
fn percentile(took: &[u64], part: f64) -> f64 {
    took.get((took.len() as f64 * part) as usize).map_or(f64::NAN, |us| *us as f64 / 1_000.0)
}
