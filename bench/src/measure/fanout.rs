//! The way out: what it costs to deliver 100 workers to a watcher, at once and in the 50 ms class.

use super::{Runs, Window, once};
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

/// The frames of 200 hives have to be taken as well, which costs all peers different amounts and is measured by itself: so it is
/// told what delivering costs with that, and alone.
pub async fn classes(pace: Pace, table: &mut Table) {
    let (every, class) = (Some(Duration::from_secs(1)), Duration::from_millis(50));
    let peers = [
        (Peer::SseEach, Some(1.0 / 20.0)),
        (Peer::SseOnce, Some(1.0 / 3.0)),
        (Peer::Plain, Some(1.0 / 7.0)),
        (Peer::Nats, Some(1.0 / 3.0)),
    ];
    let shape = |watchers| Shape { hives: 200, workers: WORKERS, every, watchers, class };
    for watchers in [20, 100] {
        eprintln!("fan-out, 50 ms class, {watchers} watchers: CPU µs per delivery of 100 workers");
        let measured = with_ours(&peers);
        let (mut whole, mut alone) = (Runs::none(&measured), Runs::none(&measured));
        for run in 0..pace.runs {
            for (at, peer) in measured.iter().enumerate() {
                let Some(unwatched) = once(*peer, shape(0), pace.window).await else { continue };
                let Some(watched) = once(*peer, shape(watchers), pace.window).await else { continue };
                let taking = watched.pushed * unwatched.cpu_ns / unwatched.pushed;
                let costs = (cost(&watched), cost(&Window { cpu_ns: watched.cpu_ns - taking, ..watched }));
                eprintln!("  run {run} {}: {:.1}, alone {:.1}", peer.name(), costs.0, costs.1);
                whole.0[at].1.push(costs.0);
                alone.0[at].1.push(costs.1);
            }
        }
        let what = format!("fan-out every 50 ms, {watchers} watchers, 200 hives at 1 Hz, the document's fields");
        let untold = peers.map(|(peer, _)| (peer, None));
        rows(table, &format!("{what}, with taking the frames"), &whole, &untold);
        rows(table, &what, &alone, &peers);
    }
}

async fn compare(pace: Pace, table: &mut Table, shape: Shape, what: &str, peers: &Peers) {
    rows(table, what, &Runs::of(pace, &with_ours(peers), shape, cost).await, peers);
}

fn with_ours(peers: &Peers) -> Vec<Peer> {
    peers.iter().map(|(peer, _)| *peer).chain([Peer::Ours]).collect()
}

/// µs for 100 workers delivered.
fn cost(window: &Window) -> f64 {
    window.cpu_ns / (window.delivered / f64::from(WORKERS)) / 1_000.0
}

fn rows(table: &mut Table, what: &str, runs: &Runs, peers: &Peers) {
    let unit = "µs CPU per delivery";
    table.ours(what, runs.median(Peer::Ours), unit, None, false);
    for (peer, target) in peers.iter().filter(|(peer, _)| runs.has(*peer)) {
        table.peer(what, peer.name(), runs.median(*peer), unit, runs.ours_to(*peer), *target);
    }
}
