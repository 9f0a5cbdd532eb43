//! Faults: drivers that hang, cgroups that are denied, queens that answer nonsense, watchers that do not read.
// Everything in this file is a test or a part of one.
#![allow(clippy::unwrap_used)]

use harness::{Scene, Watcher, eventually, within};
use proto::hive_service_server::{HiveService, HiveServiceServer};
use proto::{GpuSampleState, WatchRequest};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

const SOON: Duration = Duration::from_secs(30);

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn one_worker(scene: &Scene) {
    let output = scene.run(&["--group", "llm", "--name", "1", "--model", "m", "--", "sh", "-c", "while :; do :; done"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// Counts the frames of hive "box" that a watcher is told of in `span`.
async fn beats(watcher: &mut Watcher, span: Duration) -> usize {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < span {
        if let proto::watch_response::Event::Update(update) = watcher.step().await.expect("the watch goes on") {
            count += update.beats.iter().filter(|beat| beat.hive == "box").count();
        }
    }
    count
}

#[tokio::test]
async fn test_nvidia_smi_timeout() {
    let scene = Scene::new();
    let smi = scene.dir().join("nvidia-smi");
    script(&smi, "#!/bin/sh\nexec sleep 10\n");
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&["--nvidia-smi", smi.to_str().unwrap()]).await;
    one_worker(&scene);
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    watcher
        .until("CPU use in spite of the hung program", SOON, |w| {
            w.workers.values().any(|w| w.stats.as_ref().is_some_and(|s| s.cpu_pct.is_some()))
        })
        .await;
    let heard = beats(&mut watcher, Duration::from_secs(4)).await;
    assert!((3..=7).contains(&heard), "one frame a second, whatever nvidia-smi does: {heard} in 4 s");
    let stats = watcher.workers["box/llm/1"].stats.clone().unwrap();
    assert_eq!((stats.gpu_util_pct, stats.vram_bytes), (None, None), "unknown is absent, not zero");
}

/// Hands out the errors of a server that is ill.
struct Ill(Arc<AtomicU32>);

#[tonic::async_trait]
impl HiveService for Ill {
    type AttachStream = tokio_stream::Empty<Result<proto::AttachResponse, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<proto::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::internal("500"))
    }

    async fn register(&self, _: Request<proto::RegisterRequest>) -> Result<Response<proto::RegisterResponse>, Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Status::internal("500"))
    }

    async fn push_telemetry(
        &self,
        _: Request<Streaming<proto::PushTelemetryRequest>>,
    ) -> Result<Response<proto::PushTelemetryResponse>, Status> {
        Err(Status::internal("500"))
    }
}

#[tokio::test]
async fn test_queen_5xx_error() {
    let scene = Scene::new();
    let asked = Arc::new(AtomicU32::new(0));
    let address = format!("127.0.0.1:{}", scene.port()).parse().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let ill = tonic::transport::Server::builder().add_service(HiveServiceServer::new(Ill(Arc::clone(&asked))));
    let server = tokio::spawn(ill.serve_with_shutdown(address, async { drop(ended.await) }));
    let _hive = scene.hive(&[]).await;
    one_worker(&scene);
    let again = || async { (asked.load(Ordering::SeqCst) >= 3).then_some(()) };
    eventually("the hive asks again and again", SOON, again).await;
    drop(end);
    within("the ill server ends", SOON, server).await.unwrap().unwrap();
    let _queen = scene.queen(&[]).await;
    let listed = || async { scene.rbee(&["ps"]).stdout.contains("llm/1").then_some(()) };
    eventually("a healthy queen hears of the worker", SOON, listed).await;
}

#[tokio::test]
async fn test_broadcast_channel_full() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&["--period", "100ms"]).await;
    let mut lazy = Watcher::open(&scene.url(), WatchRequest::default()).await;
    let mut eager = Watcher::open(&scene.url(), WatchRequest::default()).await;
    one_worker(&scene);
    eager.until("the worker", SOON, |w| w.workers.len() == 1).await;
    // The lazy one reads nothing while states pass by; the eager one is not held up by it.
    let heard = beats(&mut eager, Duration::from_secs(3)).await;
    assert!(heard >= 10, "{heard} beats at ten a second");
    assert_eq!(scene.rbee(&["stop", "llm/1", "--grace", "1s"]).code, Some(0));
    eager.until("the end of the worker", SOON, |w| w.workers.is_empty()).await;
    let last = eager.revision.clone();
    lazy.until("the right end, late", SOON, |w| w.workers.is_empty() && w.revision >= last).await;
    assert_eq!(lazy.snapshots.len(), 1, "{:?}", lazy.snapshots);
}

/// The binary where any user may run it, and a directory that any user may write.
fn open_to_all(scene: &Scene) -> PathBuf {
    let everyone = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(scene.dir(), everyone.clone()).unwrap();
    let binary = scene.dir().join("rbee");
    std::fs::copy(harness::rbee_binary(), &binary).unwrap();
    std::fs::set_permissions(&binary, everyone.clone()).unwrap();
    let state = scene.state_dir("box");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, everyone).unwrap();
    binary
}

#[tokio::test]
async fn test_cgroup_permission_denied() {
    let scene = Scene::new();
    let binary = open_to_all(&scene);
    let _queen = scene.queen(&[]).await;
    let template = scene.hive_command("box", &[]);
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
        command
    } else {
        std::process::Command::new(&binary)
    };
    command.args(template.get_args()).current_dir(scene.dir());
    let _hive = scene.hive_from(command, "box").await;

    let refused =
        scene.run(&["--group", "llm", "--name", "strict", "--cpu", "50%", "--require-limits", "--", "sleep", "9"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.to_lowercase().contains("permission"), "{}", refused.stderr);

    let lenient =
        scene.run(&["--group", "llm", "--name", "1", "--cpu", "50%", "--", "sh", "-c", "while :; do :; done"]);
    assert_eq!(lenient.code, Some(0), "{}", lenient.stderr);
    let measured = || async {
        let listed = scene.json(&["ps", "-o", "json"]);
        let worker = listed.pointer("/workers/0")?.clone();
        worker.pointer("/stats/cpuPct")?.as_f64().filter(|cpu| *cpu > 5.0)?;
        Some(worker)
    };
    let (worker, _) = eventually("a worker without a cgroup is measured all the same", SOON, measured).await;
    assert_eq!(worker.pointer("/spec/placement/level").and_then(|l| l.as_str()), Some("PLACEMENT_LEVEL_PROCESS"));
    assert!(worker.pointer("/spec/placement/notApplied/0").is_some(), "{worker}");
    assert_eq!(scene.rbee(&["stop", "llm/1", "--grace", "1s"]).code, Some(0));
}

/// A hive whose NVML is the fake library, steered by `steering`.
async fn hive_with_gpu(scene: &Scene, steering: &Path) -> harness::Hive {
    let library = harness::fake_nvml();
    let mut command = scene.hive_command("box", &["--nvml-library", library.to_str().unwrap()]);
    command.env("FAKE_NVML_SCRIPT", steering);
    scene.hive_from(command, "box").await
}

#[tokio::test]
async fn two_gpus_of_one_worker_are_summed_and_a_hung_driver_makes_nobody_idle() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let steering = scene.dir().join("fake-nvml.txt");
    std::fs::write(&steering, "gpus = 2\n").unwrap();
    let _hive = hive_with_gpu(&scene, &steering).await;
    let started = scene.run(&["-o", "json", "--group", "llm", "--name", "1", "--model", "m", "--", "sleep", "1000"]);
    let answer: serde_json::Value = serde_json::from_str(&started.stdout).unwrap();
    let pid = answer.pointer("/worker/spec/pid").and_then(serde_json::Value::as_u64).unwrap();
    harness::steer_two_gpus(&steering, pid);

    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    let stats = |w: &Watcher| w.workers.get("box/llm/1").and_then(|w| w.stats.clone());
    watcher
        .until("both GPUs summed", SOON, |w| stats(w).is_some_and(|s| s.gpu_util_pct == Some(0.0) && s.gpus.len() == 2))
        .await;
    let summed = stats(&watcher).unwrap();
    assert_eq!(summed.vram_bytes, Some(12 << 30), "4 + 8 GiB");
    let idle = || async { scene.rbee(&["idle"]).stdout.contains("llm/1").then_some(()) };
    eventually("idle by its GPU", SOON, idle).await;

    harness::steer_hang(&steering);
    watcher
        .until("stale", SOON, |w| {
            stats(w).is_some_and(|s| s.gpu_sample_state() == GpuSampleState::Stale && s.gpu_util_pct.is_some())
        })
        .await;
    assert_eq!(scene.rbee(&["idle"]).code, Some(3), "unknown is never idle");
    let heard = beats(&mut watcher, Duration::from_secs(4)).await;
    assert!((3..=7).contains(&heard), "the rhythm stays: {heard} in 4 s");
    watcher
        .until("absent", SOON, |w| {
            stats(w).is_some_and(|s| s.gpu_sample_state() == GpuSampleState::Timeout && s.gpu_util_pct.is_none())
        })
        .await;
    assert_eq!(scene.rbee(&["idle"]).code, Some(3), "unknown is never idle");
}
