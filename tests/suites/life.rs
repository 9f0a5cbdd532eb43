//! Workers outlive their hive, a killed `up` leaves nothing burning, and every end has its story.
// Everything in this file is a test or a part of one.
#![allow(clippy::unwrap_used)]

use harness::{Process, Scene, Watcher, alive, eventually, start_ticks};
use nix::sys::signal::Signal;
use proto::{Origin, WatchRequest};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn ps(scene: &Scene) -> Vec<serde_json::Value> {
    let output = scene.rbee(&["ps", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    answer.get("workers").and_then(|w| w.as_array()).cloned().unwrap_or_default()
}

fn pids(workers: &[serde_json::Value]) -> Vec<u32> {
    let pid = |w: &serde_json::Value| w.pointer("/spec/pid")?.as_u64()?.try_into().ok();
    let mut all: Vec<u32> = workers.iter().filter_map(pid).collect();
    all.sort_unstable();
    all
}

async fn until_count(scene: &Scene, count: usize) -> Vec<serde_json::Value> {
    let look = || async { Some(ps(scene)).filter(|all| all.len() == count) };
    eventually(&format!("rbee ps shows {count} workers"), SOON, look).await.0
}

#[tokio::test]
async fn l2_a_killed_hive_finds_its_workers_again() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let mut hive = scene.hive(&[]).await;
    for name in ["1", "2"] {
        let output = scene.run(&["--group", "llm", "--name", name, "--model", "m", "--", "sleep", "1000"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    let before = pids(&until_count(&scene, 2).await);
    let ticks: Vec<_> = before.iter().map(|pid| start_ticks(*pid)).collect();
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    watcher.until("both workers", SOON, |w| w.workers.len() == 2).await;
    hive.kill();
    let _again = scene.hive(&[]).await;
    let adopted = |w: &Watcher| {
        w.workers.len() == 2
            && w.workers.values().all(|w| w.spec.as_ref().is_some_and(|s| s.origin() == Origin::Adopted))
    };
    watcher.until("both workers adopted, in a watch that ran all the time", SOON, adopted).await;
    assert_eq!(pids(&until_count(&scene, 2).await), before);
    assert_eq!(before.iter().map(|pid| start_ticks(*pid)).collect::<Vec<_>>(), ticks, "the same processes");
}

#[tokio::test]
async fn l9_a_worker_that_ended_while_no_hive_ran_is_said_to_have() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let mut hive = scene.hive(&[]).await;
    let output = scene.run(&["--group", "llm", "--name", "1", "--", "sleep", "1000"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let pid = pids(&until_count(&scene, 1).await)[0];
    hive.kill();
    let raw = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(raw, Signal::SIGKILL).unwrap();
    eventually("the worker is dead", SOON, || async { (!alive(pid)).then_some(()) }).await;
    let _again = scene.hive(&[]).await;
    until_count(&scene, 0).await;
    let events = scene.rbee(&["events"]);
    assert!(events.stdout.contains("while no hive ran"), "{}", events.stdout);
}

#[tokio::test]
async fn l6_stop_ends_even_a_worker_that_ignores_sigterm() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let stubborn = "trap '' TERM; while :; do sleep 1000 & wait; done";
    let output = scene.run(&["--group", "llm", "--name", "1", "--", "sh", "-c", stubborn]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let pid = pids(&until_count(&scene, 1).await)[0];
    let stopped = scene.rbee(&["stop", "llm/1", "--grace", "1s"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    assert!(!alive(pid));
    until_count(&scene, 0).await;
    let events = scene.rbee(&["events", "-o", "jsonl"]);
    assert!(events.stdout.contains("EXIT_REASON_STOPPED"), "{}", events.stdout);
}

#[tokio::test]
async fn logs_keep_what_a_worker_wrote() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let script = "for i in 1 2 3; do echo line $i; done; echo oops >&2; exec sleep 1000";
    let output = scene.run(&["--group", "llm", "--name", "1", "--", "sh", "-c", script]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let all = || async { Some(scene.rbee(&["logs", "llm/1"]).stdout).filter(|text| text.contains("oops")) };
    let (text, _) = eventually("the log is there", SOON, all).await;
    assert_eq!(text, "line 1\nline 2\nline 3\noops\n");
    assert_eq!(scene.rbee(&["logs", "llm/1", "--tail", "1"]).stdout, "oops\n");
}

fn up(scene: &Scene, log: &str) -> Process {
    let mut command = scene.command();
    command.args(["up", "--demo", "3", "--listen", &format!("127.0.0.1:{}", scene.port())]);
    command.arg("--state-dir").arg(scene.state_dir("box")).args(["--slice", scene.slice()]);
    Process::start(command, &scene.dir().join(log))
}

#[tokio::test]
async fn a_demo_shows_three_different_workers_and_a_second_up_takes_them_over() {
    let scene = Scene::new();
    let mut first = up(&scene, "up-1.log");
    let workers = until_count(&scene, 3).await;
    let mut models: Vec<_> = workers.iter().filter_map(|w| w.pointer("/spec/model")?.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    assert_eq!(models.len(), 3, "three different models");
    let moving = || async {
        let has = |w: &serde_json::Value, key: &str| w.pointer(&format!("/stats/{key}")).is_some();
        let fields = ["cpuPct", "memoryCurrentBytes", "ioReadBytesPerSecond", "ioWriteBytesPerSecond"];
        ps(&scene).iter().all(|w| fields.iter().all(|key| has(w, key))).then_some(())
    };
    eventually("every demo worker has numbers", SOON, moving).await;
    let before = pids(&workers);

    first.kill();
    assert!(before.iter().all(|pid| alive(*pid)), "a killed up kills nothing");
    let mut second = up(&scene, "up-2.log");
    let after = pids(&until_count(&scene, 3).await);
    assert_eq!(after, before, "taken over, not started twice");

    second.stop();
    eventually("a stopped up ends its demo", SOON, || async { before.iter().all(|pid| !alive(*pid)).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_demo_without_an_owner_ends_itself() {
    let scene = Scene::new();
    let lock = scene.dir().join("nobody.lock");
    std::fs::write(&lock, "1 1\n").unwrap();
    let mut command = scene.command();
    command.args(["demo-worker", "--profile", "0", "--model", "m", "--orphan-after", "1s", "--lock"]).arg(&lock);
    let mut worker = Process::start(command, &scene.dir().join("demo.log"));
    let worker = std::cell::RefCell::new(&mut worker);
    eventually("the orphan has ended", SOON, || async { worker.borrow_mut().ended() }).await;
}

#[tokio::test]
async fn l6_several_stops_share_their_grace() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)";
    let names: Vec<String> = (1..=6).map(|number| format!("llm/{number}")).collect();
    for number in ["1", "2", "3", "4", "5", "6"] {
        let output = scene.run(&["--group", "llm", "--name", number, "--", "python3", "-c", stubborn]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    for name in &names {
        let deaf = || async { scene.rbee(&["logs", name]).stdout.contains("deaf").then_some(()) };
        eventually("it ignores the polite signal", SOON, deaf).await;
    }
    let began = std::time::Instant::now();
    let mut words = vec!["stop", "--grace", "2s"];
    words.extend(names.iter().map(String::as_str));
    let output = scene.rbee(&words);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stdout.lines().count(), 6);
    // One after another they would take six times their grace.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
