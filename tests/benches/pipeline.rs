//! Two of the user's four performance measurements: bytes on the wire, and how long a start takes to reach a watcher.
//! They print numbers beside the document's targets; the other two are in `hive/benches/collect/`.

use common::columns::{Change, Quanta, encode};
use common::gpus::{Uses, pack};
use harness::{Scene, Watcher};
use prost::Message;
use proto::push_telemetry_request::Frame;
use proto::{Batch, Gpu, GpuUse, ProcessStats, PushTelemetryRequest, WatchRequest};
use std::time::{Duration, Instant};

const WORKERS: u32 = 100;
const GPUS: u64 = 8;
const SEED: u64 = 0x5eed;

/// A small multiplicative generator, so that every run measures the same batch.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The document's moving fields of a busy worker, and those we add.
fn stats(random: &mut Random, slot: u32, ours: bool, before: Option<&ProcessStats>) -> ProcessStats {
    let memory = before.and_then(|b| b.memory_current_bytes).unwrap_or(4 << 30) + random.below(64 << 20);
    let vram = before.and_then(|b| b.vram_bytes).unwrap_or(8 << 30) + random.below(16 << 20);
    let mut stats = ProcessStats {
        cpu_pct: Some(random.below(20_000) as f64 / 100.0),
        memory_current_bytes: Some(memory),
        io_read_bytes_per_second: Some(random.below(20 << 20) as f64),
        io_write_bytes_per_second: Some(random.below(2 << 20) as f64),
        gpu_util_pct: Some(random.below(1_000) as f64 / 10.0),
        vram_bytes: Some(vram),
        ..ProcessStats::default()
    };
    if ours {
        extras(&mut stats, random, memory);
        stats.vram_total_bytes = Some(24 << 30);
        stats.process_count = Some(1 + random.below(4) as u32);
        stats.activity = 1 + random.below(2) as i32;
        stats.activity_basis = 2;
        stats.gpu_sample_state = 1;
        let uuid = gpu(u64::from(slot) % GPUS);
        stats.gpus = vec![GpuUse { uuid, util_pct: stats.gpu_util_pct, vram_bytes: stats.vram_bytes }];
    }
    stats
}

/// What the document does not have. Memory by kind is read every tenth second, so a tenth of the workers has news of it.
fn extras(stats: &mut ProcessStats, random: &mut Random, memory: u64) {
    let by_kind = if random.below(10) == 0 { memory } else { 4 << 30 };
    stats.rss_bytes = Some(by_kind / 2);
    stats.anon_bytes = Some(by_kind / 2);
    stats.working_set_bytes = Some(by_kind / 4 * 3);
    stats.memory_peak_bytes = Some(5 << 30);
    stats.swap_bytes = Some(0);
    stats.oom_kills = Some(0);
    stats.cpu_throttled_pct = Some(random.below(200) as f64 / 10.0);
    stats.cpu_pressure_pct = Some(random.below(200) as f64 / 10.0);
    stats.memory_pressure_pct = Some(0.0);
    stats.io_pressure_pct = Some(random.below(50) as f64 / 10.0);
    stats.task_count = Some(20 + random.below(10) as u32);
    stats.engine_sample_state = 1;
    stats.requests_running = Some(random.below(9) as u32);
    stats.requests_waiting = Some(random.below(4) as u32);
    stats.kv_cache_pct = Some(random.below(1_000) as f64 / 10.0);
    stats.tokens_per_second = Some(random.below(2_000) as f64 / 10.0);
    stats.readiness = 1;
}

fn gpu(index: u64) -> String {
    format!("GPU-{index:032x}")
}

/// Bytes of the frame, with its five bytes of gRPC framing, in which `share` percent of the workers changed.
fn frame_bytes(share: u64, ours: bool) -> usize {
    let mut random = Random(SEED);
    let told: Vec<Gpu> = (0..GPUS).map(|i| Gpu { uuid: gpu(i), ..Gpu::default() }).collect();
    let mut gpus = Vec::new();
    let changes: Vec<Change> = (1..=WORKERS)
        .filter_map(|slot| {
            let before = stats(&mut random, slot, ours, None);
            let after = stats(&mut random, slot, ours, Some(&before));
            let changed = u64::from(slot) * share % 100 < share;
            let uses = Uses::of(&before, &told);
            if changed && !uses.still(&after) {
                gpus.push(pack(slot, &told, &uses));
            }
            changed.then(|| Change { slot, before: Quanta::of(&before), after: Quanta::of(&after) })
        })
        .collect();
    let request = PushTelemetryRequest {
        session: "0123456789abcdef".into(),
        sequence: 86_400,
        monotonic_ms: 86_400_000,
        before_register_ms: 0,
        sampled_at: Some(common::timestamp(std::time::SystemTime::now())),
        frame: Some(Frame::Batch(Batch { columns: encode(&changes), gpus, ..Batch::default() })),
        hive: None,
    };
    request.encoded_len() + 5
}

fn bench_heartbeat_payload_size() {
    let rows = [
        ("the document's fields, all workers changed", frame_bytes(100, false), 1_600),
        ("all of ours, all workers changed", frame_bytes(100, true), 4_000),
        ("the document's fields, 5 % changed", frame_bytes(5, false), 200),
    ];
    println!("bench_heartbeat_payload_size: one frame of {WORKERS} workers (document: < 100,000 bytes as JSON)");
    for (what, bytes, aim) in rows {
        println!("  {what:<44} {bytes:>6} bytes   aim {aim}");
    }
}

async fn bench_sse_latency(runs: usize) {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    watcher.until("the hive", Duration::from_secs(10), |w| !w.hives.is_empty()).await;
    let mut client = hive_client(&scene).await;
    let mut took = Vec::new();
    for run in 0..runs {
        let name = format!("box/bench/{run}");
        let request = proto::StartWorkerRequest {
            group: "bench".into(),
            instance: run.to_string(),
            command: vec!["sleep".into(), "1000".into()],
            ..proto::StartWorkerRequest::default()
        };
        let begun = Instant::now();
        let mut starter = client.clone();
        let start = tokio::spawn(async move { starter.start_worker(request).await });
        watcher.until("the start", Duration::from_secs(10), |w| w.workers.contains_key(&name)).await;
        took.push(begun.elapsed());
        start.await.expect("the call ran").expect("the worker started");
        let stop = proto::StopWorkerRequest { name: format!("bench/{run}"), ..proto::StopWorkerRequest::default() };
        client.stop_worker(stop).await.expect("the worker stopped");
    }
    took.sort();
    println!("bench_sse_latency: start asked for -> a watcher has the worker, {runs} runs (document: < 100 ms)");
    println!("  median {:?}   p90 {:?}   max {:?}", took[runs / 2], took[runs * 9 / 10], took[runs - 1]);
}

async fn hive_client(scene: &Scene) -> proto::worker_service_client::WorkerServiceClient<tonic::transport::Channel> {
    let address = format!("unix://{}", scene.socket("box").display());
    proto::worker_service_client::WorkerServiceClient::connect(address).await.expect("connect to the hive")
}

fn main() {
    // `cargo test --benches` and nextest ask what there is; these measurements are not tests.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let runs = if std::env::args().any(|arg| arg == "--long") { 200 } else { 20 };
    bench_heartbeat_payload_size();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(bench_sse_latency(runs));
}
