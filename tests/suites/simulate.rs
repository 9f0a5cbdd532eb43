//! A simulated fleet against the real queen: hives are cut off, the queen is killed twice, and at the end nothing is
//! missing and the books balance. A minute at most; `LONG=1` takes ten minutes with 1,000 hives.

use harness::histories::{History, bookmarks, ordered, unique};
use harness::{Process, Scene, Watcher, eventually};
use proto::{WatchRequest, WatchResponse};
use std::time::{Duration, Instant};

/// How long until the simulator has settled everything after its time is over.
const SETTLING: Duration = Duration::from_secs(120);
/// How much of what a watcher was told is looked at together.
const PIECE: Duration = Duration::from_secs(10);
/// W4: a bookmark every 2.5 s, or a second later, and what a busy machine adds. Less than a piece, else it could not be missed.
const BOOKMARK: Duration = Duration::from_secs(5);

struct Size {
    hives: usize,
    workers: usize,
    /// Before the first kill, between the two, and after the second.
    part: Duration,
}

fn size() -> Size {
    if std::env::var("LONG").is_ok_and(|long| long == "1") {
        Size { hives: 1_000, workers: 10, part: Duration::from_secs(200) }
    } else {
        Size { hives: 200, workers: 10, part: Duration::from_secs(8) }
    }
}

fn simulate(scene: &Scene, size: &Size) -> Process {
    let mut command = scene.command();
    // Two parts until the queen has been killed twice, with what it takes to come back; and as much again after that.
    let duration = format!("{}s", size.part.as_secs() * 5);
    command.args(["simulate", "--hives", &size.hives.to_string(), "--workers", &size.workers.to_string()]);
    command.args([
        "--churn",
        "10%",
        "--kill",
        "10%",
        "--stall",
        "5%",
        "--seed",
        "7",
        "--watch",
        "--tunnels",
        "--duration",
        &duration,
    ]);
    Process::start(command, &scene.dir().join("simulate.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_the_books_balance_and_nothing_is_lost_though_hives_and_the_queen_are_killed() {
    let (scene, size) = (Scene::new(), size());
    let mut queen = scene.queen(&[]).await;
    let mut fleet = simulate(&scene, &size);
    for _ in 0..2 {
        let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
        watcher.until("every hive", SETTLING, |watcher| watcher.hives.len() == size.hives).await;
        look_on(&mut watcher, size.part).await;
        queen.kill();
        queen = scene.queen(&[]).await;
    }
    let (ended, _) = eventually("the simulation ends", size.part * 5 + SETTLING, || {
        let ended = fleet.ended();
        async move { ended }
    })
    .await;
    assert_eq!(ended, Some(0), "{}", fleet.log());
    assert!(fleet.log().contains("the books balance"), "{}", fleet.log());
}

/// Reads what a watcher is told for a while, and has the checkers look at it, a piece at a time: a fleet says much.
async fn look_on(watcher: &mut Watcher, long: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < long {
        let (piece, mut history) = (Instant::now(), History::default());
        history.opened(Duration::ZERO, &watcher.revision);
        while piece.elapsed() < PIECE && begun.elapsed() < long {
            let event = watcher.step().await.expect("the watch goes on");
            history.heard(piece.elapsed(), WatchResponse { event: Some(event) });
        }
        let found = ordered(&history).and_then(|()| unique(&history)).and_then(|()| bookmarks(&history, BOOKMARK));
        found.unwrap_or_else(|fault| panic!("{fault}"));
    }
}
