//! Links that look alive and are not.

use harness::{Mode, Proxy, Scene, Watcher, eventually};
use proto::{Freshness, WatchRequest};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// Guarantee S2.
const HALF_OPEN: Duration = Duration::from_secs(5);
/// What a busy machine may add to it, and the half second between two looks at the hive's next try.
const SLACK: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn s2_a_half_open_link_is_found_within_5_s_at_both_ends() {
    let scene = Scene::new();
    let queen = scene.queen(&[]).await;
    let target: SocketAddr = format!("127.0.0.1:{}", scene.port()).parse().unwrap();
    let proxy = Proxy::start(target).await;
    let hive = scene.hive_from(scene.hive_command_to(&proxy.url(), "box", &[]), "box").await;
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    let live = |w: &Watcher| w.hives.get("box").is_some_and(|hive| hive.freshness() == Freshness::Live);
    // A registered hive is live before its stream has begun.
    watcher.until("the hive heard from", SOON, |w| live(w) && w.heard.contains("box")).await;

    proxy.set(Mode::Stall);
    let stalled = Instant::now();
    let broke = || async { hive.process.log().contains("not reporting").then(|| stalled.elapsed()) };
    let ended = || async { queen.process.log().contains("telemetry stream ended").then(|| stalled.elapsed()) };
    let stale = watcher.until("STALE", SOON, |w| w.hives["box"].freshness() != Freshness::Live);
    let ((by_hive, _), (by_queen, _), ()) = tokio::join!(
        eventually("the hive finds it", SOON, broke),
        eventually("the queen finds it", SOON, ended),
        stale
    );
    println!("half-open link: the hive found it after {by_hive:?}, the queen after {by_queen:?}");
    assert!(by_hive < HALF_OPEN + SLACK && by_queen < HALF_OPEN + SLACK, "{by_hive:?}, {by_queen:?}");

    proxy.set(Mode::Pass);
    watcher.until("the hive again", SOON, live).await;
    drop(hive);
}
