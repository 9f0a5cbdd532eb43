//! The whole path on real processes: hive, queen and `rbee` as separate processes, real sockets, real cgroups as far as
//! the machine has them. The five integration tests of the user's document are here under their own names.

use harness::{Hive, Scene, Watcher, alive, eventually, fleet, scheduler};
use proto::{
    FindIdleWorkersRequest, FindOptions, FindWorkersWithCapacityRequest, FindWorkersWithModelRequest,
    ListWorkersRequest, WatchRequest, Worker,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Percent of a core: a busy loop gets more on the most loaded machine, a sleeper gets none.
const BUSY: f64 = 5.0;
/// Times that the queen is given in tests that would else wait for a minute and a half.
const SHORT: [&str; 6] = ["--stale-after", "1s", "--lost-after", "2s", "--remove-after", "4s"];

async fn workers(scene: &Scene) -> Vec<Worker> {
    let Ok(mut client) = proto::fleet_service_client::FleetServiceClient::connect(scene.url()).await else {
        return Vec::new();
    };
    client.list_workers(ListWorkersRequest::default()).await.map(|a| a.into_inner().workers).unwrap_or_default()
}

fn names(workers: &[Worker]) -> Vec<String> {
    let spec = |w: &Worker| w.spec.clone().expect("a spec");
    workers.iter().map(spec).map(|s| format!("{}/{}/{}", s.hive, s.group, s.instance)).collect()
}

fn start(scene: &Scene, name: &str, model: &str, command: &[&str]) -> u32 {
    let mut args = vec!["-o", "json", "--group", "llm", "--name", name, "--model", model, "--"];
    args.extend_from_slice(command);
    let output = scene.run(&args);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let answer: serde_json::Value = serde_json::from_str(&output.stdout).expect("json");
    let pid = answer.pointer("/worker/spec/pid").and_then(serde_json::Value::as_u64);
    u32::try_from(pid.expect("a pid in the answer")).expect("a pid")
}

async fn until_count(scene: &Scene, count: usize) -> Vec<Worker> {
    let look = || async { Some(workers(scene).await).filter(|all| all.len() == count) };
    eventually(&format!("the queen lists {count} workers"), SOON, look).await.0
}

#[tokio::test]
async fn test_end_to_end_telemetry_flow() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    let pid = start(&scene, "8080", "llama-3.2-1b", &["sh", "-c", "while :; do :; done"]);

    let measured = || async {
        let all = workers(&scene).await;
        let stats = all.first()?.stats.clone()?;
        (stats.cpu_pct? > BUSY).then_some((all[0].clone(), stats))
    };
    let ((worker, stats), _) = eventually("the queen knows the CPU use", SOON, measured).await;
    let spec = worker.spec.expect("a spec");
    assert_eq!((spec.pid, spec.model.as_deref()), (pid, Some("llama-3.2-1b")));
    assert_eq!((spec.hive.as_str(), spec.group.as_str(), spec.instance.as_str()), ("box", "llm", "8080"));
    assert!(stats.memory_current_bytes.is_some_and(|bytes| bytes > 0));
    assert!(stats.rss_bytes.is_some() && stats.io_write_bytes_per_second.is_some());
    assert_eq!(stats.process_count, Some(1));
    assert!(stats.uptime.is_some_and(|up| up.seconds < 60));
    assert!(worker.age.is_some_and(|age| age.seconds < 3));

    watcher
        .until("the worker with its CPU use", SOON, |w| {
            w.workers.get("box/llm/8080").and_then(|w| w.stats.as_ref()?.cpu_pct).is_some_and(|cpu| cpu > BUSY)
        })
        .await;
    watcher
        .until("a bookmark that counts it", SOON, |w| w.bookmarks.last().is_some_and(|b| b.workers_online == 1))
        .await;
}

#[tokio::test]
async fn test_worker_dies_removed_from_registry() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let pid = start(&scene, "8080", "m", &["sleep", "1000"]);
    until_count(&scene, 1).await;
    kill(pid);
    let gone = || async { workers(&scene).await.is_empty().then_some(()) };
    let ((), took) = eventually("the dead worker left the registry", SOON, gone).await;
    assert!(took < Duration::from_secs(2), "its end is news, not silence: {took:?}");
    let events = scene.rbee(&["events", "-o", "jsonl"]);
    assert!(events.stdout.contains("EXIT_REASON_SIGNAL"), "{}", events.stdout);
}

#[tokio::test]
async fn test_scheduling_queries() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    start(&scene, "1", "llama-3.2-1b", &["sleep", "1000"]);
    start(&scene, "2", "qwen3-8b", &["sleep", "1000"]);
    start(&scene, "3", "mistral-7b", &["sh", "-c", "while :; do :; done"]);
    until_count(&scene, 3).await;

    let idle = || async {
        let answer = scheduler(&scene.url()).await.find_idle_workers(FindIdleWorkersRequest::default()).await;
        let found = names(&answer.expect("an answer").into_inner().workers);
        (found == ["box/llm/1", "box/llm/2"]).then_some(())
    };
    eventually("exactly the sleeping workers are idle", SOON, idle).await;

    let mut client = scheduler(&scene.url()).await;
    let mut with = async |model: &str| {
        let request = FindWorkersWithModelRequest { model: model.into(), ..FindWorkersWithModelRequest::default() };
        names(&client.find_workers_with_model(request).await.expect("an answer").into_inner().workers)
    };
    assert_eq!(with("qwen3-8b").await, ["box/llm/2"]);
    assert!(with("qwen3").await.is_empty(), "a model's name matches exactly");
    assert!(with("QWEN3-8B").await.is_empty());

    let request =
        FindWorkersWithCapacityRequest { required_vram_bytes: 1, ..FindWorkersWithCapacityRequest::default() };
    let room = scheduler(&scene.url()).await.find_workers_with_capacity(request).await.expect("an answer").into_inner();
    assert!(room.workers.is_empty(), "no GPU, no answer");

    let limited = FindOptions { limit: 1, ..FindOptions::default() };
    let request = FindIdleWorkersRequest { options: Some(limited), ..FindIdleWorkersRequest::default() };
    let one = scheduler(&scene.url()).await.find_idle_workers(request).await.expect("an answer").into_inner();
    assert_eq!(one.workers.len(), 1);
}

#[tokio::test]
async fn test_queen_restart_recovers() {
    let scene = Scene::new();
    let mut queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let pids = [start(&scene, "1", "m", &["sleep", "1000"]), start(&scene, "2", "m", &["sleep", "1000"])];
    until_count(&scene, 2).await;
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    watcher.until("both workers", SOON, |w| w.workers.len() == 2).await;
    let seen = watcher.revision.clone();

    queen.kill();
    let _again = scene.queen(&[]).await;
    let back = || async { Some(workers(&scene).await).filter(|all| all.len() == 2) };
    let (all, took) = eventually("the fleet is whole again", SOON, back).await;
    println!("whole {took:?} after the new queen listened");
    assert!(took < Duration::from_secs(4), "reconnecting takes at most two seconds: {took:?}");
    let mut found: Vec<u32> = all.iter().filter_map(|w| Some(w.spec.as_ref()?.pid)).collect();
    found.sort_unstable();
    let mut expected = pids.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected, "the same processes");

    let request = WatchRequest { resume_after: seen, ..WatchRequest::default() };
    let mut resumed = Watcher::open(&scene.url(), request).await;
    resumed.until("both workers again", SOON, |w| w.workers.len() == 2).await;
    assert_eq!(resumed.snapshots, [proto::SnapshotReason::QueenRestarted]);
}

#[tokio::test]
async fn test_hive_restart_clears_workers() {
    let scene = Scene::new();
    let _queen = scene.queen(&SHORT).await;
    let mut hive = scene.hive(&[]).await;
    let pid = start(&scene, "8080", "m", &["sleep", "1000"]);
    let before = until_count(&scene, 1).await.remove(0).spec.expect("a spec");
    hive.kill();
    let gone = || async { workers(&scene).await.is_empty().then_some(()) };
    eventually("the silent hive's workers left the registry", SOON, gone).await;
    assert!(alive(pid), "losing the hive ends no worker");

    let _again: Hive = scene.hive(&[]).await;
    let after = until_count(&scene, 1).await.remove(0).spec.expect("a spec");
    assert_eq!((after.pid, after.start_time), (before.pid, before.start_time));
    assert_eq!(after.origin(), proto::Origin::Adopted);
    assert_eq!(after.model, before.model);
}

#[tokio::test]
async fn s1_no_find_returns_a_worker_of_a_silent_hive() {
    let scene = Scene::new();
    let _queen = scene.queen(&["--remove-after", "60s"]).await;
    let hive = scene.hive(&[]).await;
    start(&scene, "8080", "m", &["sleep", "1000"]);
    let find = || async {
        let request = FindWorkersWithModelRequest { model: "m".into(), ..FindWorkersWithModelRequest::default() };
        scheduler(&scene.url()).await.find_workers_with_model(request).await.expect("an answer").into_inner().workers
    };
    eventually("it is found", SOON, || async { (find().await.len() == 1).then_some(()) }).await;
    hive.process.signal(nix::sys::signal::Signal::SIGSTOP);
    eventually("it is found no more", SOON, || async { find().await.is_empty().then_some(()) }).await;
    assert_eq!(workers(&scene).await.len(), 1, "it is still listed, as stale");
    hive.process.signal(nix::sys::signal::Signal::SIGCONT);
    eventually("it is found again", SOON, || async { (find().await.len() == 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_child_is_counted_with_its_worker() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    start(&scene, "8080", "m", &["sh", "-c", "(while :; do :; done) & sleep 1000"]);
    let counted = || async {
        let stats = workers(&scene).await.first()?.stats.clone()?;
        (stats.process_count? >= 2 && stats.cpu_pct? > BUSY).then_some(())
    };
    eventually("the busy child is counted", SOON, counted).await;
}

#[tokio::test]
async fn a_worker_is_reachable_where_it_listens() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    start(&scene, "8080", "m", &["python3", "-m", "http.server", "--bind", "127.0.0.1", "0"]);
    let endpoint = || async { workers(&scene).await.first()?.spec.as_ref()?.endpoint.clone() };
    let (endpoint, _) = eventually("its endpoint is known", SOON, endpoint).await;
    let port = u16::try_from(endpoint.port).expect("a port");
    tokio::net::TcpStream::connect((endpoint.host.as_str(), port)).await.expect("a client can call it");
}

#[tokio::test]
async fn a_hive_is_listed_with_what_its_machine_offers() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&["--label", "rack=7"]).await;
    let listed = || async {
        let answer = fleet(&scene.url()).await.list_hives(proto::ListHivesRequest::default()).await.ok()?;
        answer.into_inner().hives.pop()
    };
    let (hive, _) = eventually("the hive is listed", SOON, listed).await;
    assert_eq!((hive.id.as_str(), hive.slice.as_str()), ("box", scene.slice()));
    assert_eq!(hive.labels.get("rack").map(String::as_str), Some("7"));
    assert!(hive.cpu_count > 0 && hive.memory_total_bytes.is_some());
    assert_ne!(hive.placement_level(), proto::PlacementLevel::Unspecified);
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the worker");
}
