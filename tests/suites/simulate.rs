//! A simulated fleet against the real queen: hives are cut off, the queen is killed twice, and at the end nothing is
//! missing and the books balance. A minute at most; `LONG=1` takes ten minutes with 1,000 hives.

use harness::{Process, Scene, Watcher, eventually};
use proto::WatchRequest;
use std::time::{Duration, Instant};

/// How long until the simulator has settled everything after its time is over.
const SETTLING: Duration = Duration::from_secs(120);

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

/// Reads what a watcher is told for a while. What it is told is where checkers of histories look.
async fn look_on(watcher: &mut Watcher, long: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < long {
        watcher.step().await.expect("the watch goes on");
    }
    assert!(watcher.bookmarks.len() as u64 >= long.as_secs() / 5, "w4: bookmarks keep coming");
}
