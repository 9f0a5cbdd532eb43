//! A queen that stands still loses nobody.

use harness::{Queen, Scene, Watcher};
use nix::sys::signal::Signal;
use proto::{Freshness, WatchRequest};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// How long the queen stands still, and its limits: the defaults in the long form.
fn pause() -> (Duration, Vec<&'static str>) {
    match std::env::var_os("LONG") {
        Some(_) => (Duration::from_secs(120), vec![]),
        None => (Duration::from_secs(12), vec!["--lost-after", "5s", "--remove-after", "9s"]),
    }
}

fn lost(queen: &Queen) -> bool {
    ["hive lost", "hive removed"].iter().any(|news| queen.process.log().contains(news))
}

#[tokio::test]
async fn s4_a_queen_that_stood_still_declares_nobody_lost() {
    let (span, flags) = pause();
    let scene = Scene::new();
    let queen = scene.queen(&flags).await;
    let _hive = scene.hive(&[]).await;
    let output = scene.run(&["--group", "llm", "--name", "1", "--", "sleep", "1000"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let mut before = Watcher::open(&scene.url(), WatchRequest::default()).await;
    before.until("the worker", SOON, |w| w.workers.len() == 1).await;

    queen.process.signal(Signal::SIGSTOP);
    tokio::time::sleep(span).await;
    queen.process.signal(Signal::SIGCONT);

    let mut after = Watcher::open(&scene.url(), WatchRequest::default()).await;
    let mut worst = Freshness::Live;
    let mut live = 0;
    // Three seconds of a hive that reports: what is to go wrong has gone wrong by then.
    while live < 3 {
        if let proto::watch_response::Event::Update(update) = after.step().await.expect("the watch goes on") {
            let seen = update.hives.iter().map(proto::Hive::freshness);
            worst = seen.chain(update.workers.iter().map(proto::Worker::freshness)).fold(worst, Ord::max);
            assert!(update.removed_workers.is_empty() && update.removed_hives.is_empty(), "{update:?}");
            live += update.beats.len();
        }
    }
    assert!(worst < Freshness::Lost, "{worst:?}");
    assert_eq!((after.workers.len(), after.hives.len()), (1, 1));
    assert!(queen.process.log().contains("the queen stood still"), "{}", queen.process.log());
    assert!(!lost(&queen), "{}", queen.process.log());
}
