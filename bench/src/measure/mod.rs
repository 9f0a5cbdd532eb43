//! What is measured. Peers take turns, so that what else this machine does falls on all of them.

pub mod bytes;
pub mod fanout;
pub mod ingest;
pub mod latency;
pub mod queries;
pub mod scale;

use crate::Pace;
use crate::child::Server;
use crate::drive::{Counts, Peer, Shape, start};
use crate::table::median;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Before a window begins: connections, snapshots, buffers that find their size.
const WARM_UP: Duration = Duration::from_millis(1_500);

/// One window: the server's CPU time, and what was done.
struct Window {
    cpu_ns: f64,
    pushed: f64,
    delivered: f64,
}

async fn window(server: &Server, counts: &Arc<Counts>, length: Duration) -> Window {
    let read = || {
        let pushed = counts.pushed.load(Ordering::Relaxed);
        (server.cpu(), pushed, counts.delivered.load(Ordering::Relaxed))
    };
    let before = read();
    tokio::time::sleep(length).await;
    let after = read();
    Window {
        cpu_ns: (after.0 - before.0).as_nanos() as f64,
        pushed: (after.1 - before.1) as f64,
        delivered: (after.2 - before.2) as f64,
    }
}

/// One peer under one load for so long.
pub async fn load(peer: Peer, shape: Shape, length: Duration) {
    let server = peer.start().expect("a peer that is installed");
    let running = start(peer, &server.address, shape, false).await;
    tokio::time::sleep(WARM_UP).await;
    eprintln!("{}: process {}", peer.name(), server.id());
    let window = window(&server, &running.counts, length).await;
    let micros = window.cpu_ns / 1_000.0;
    eprintln!("{:.1} µs CPU per batch taken, {:.0} of them", micros / window.pushed, window.pushed);
    let delivered = window.delivered / f64::from(crate::fleet::WORKERS);
    let counts = running.end().await;
    if delivered > 0.0 {
        let bytes = counts.bytes.load(Ordering::Relaxed) as f64 / window.delivered.max(1.0);
        eprintln!("about {bytes:.0} bytes per worker delivered");
        eprintln!("{:.1} µs CPU per batch delivered, {delivered:.0} of them", micros / delivered);
    }
}

/// A peer under one load, once it is warm; `None` where it is not installed.
async fn once(peer: Peer, shape: Shape, length: Duration) -> Option<Window> {
    let server = peer.start()?;
    let running = start(peer, &server.address, shape, false).await;
    tokio::time::sleep(WARM_UP).await;
    let window = window(&server, &running.counts, length).await;
    running.end().await;
    Some(window)
}

/// What the runs of each peer cost, in the order of the runs.
struct Runs(Vec<(Peer, Vec<f64>)>);

impl Runs {
    /// Measures every peer in turn, as often as asked. A peer that is not installed is left out.
    async fn of(pace: Pace, peers: &[Peer], shape: Shape, cost: impl Fn(&Window) -> f64) -> Self {
        let mut runs = Self::none(peers);
        for run in 0..pace.runs {
            for (peer, costs) in &mut runs.0 {
                if let Some(window) = once(*peer, shape, pace.window).await {
                    eprintln!("  run {run} {}: {:.1}", peer.name(), cost(&window));
                    costs.push(cost(&window));
                }
            }
        }
        runs
    }

    fn none(peers: &[Peer]) -> Self {
        Self(peers.iter().map(|peer| (*peer, Vec::new())).collect())
    }

    fn costs(&self, wanted: Peer) -> &[f64] {
        self.0.iter().find(|(peer, _)| *peer == wanted).map_or(&[], |(_, costs)| costs)
    }

    fn has(&self, peer: Peer) -> bool {
        !self.costs(peer).is_empty()
    }

    /// The median of its runs.
    fn median(&self, peer: Peer) -> f64 {
        median(self.costs(peer).to_vec())
    }

    /// The median of what ours is of it, run by run: what else the machine does falls on both.
    fn ours_to(&self, peer: Peer) -> f64 {
        median(self.costs(Peer::Ours).iter().zip(self.costs(peer)).map(|(ours, its)| ours / its).collect())
    }
}
