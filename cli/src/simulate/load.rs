//! Numbers of a worker that does not exist, in the full form: every field that a hive can measure. Pure.

use super::random::Random;
use proto::{
    Activity, ActivityBasis, EngineSampleState, GpuSampleState, GpuUse, HostStats, ProcessStats, Readiness, WorkerSpec,
};
use std::time::SystemTime;

/// GPUs of a simulated machine.
pub const GPUS: u32 = 8;
/// Memory of one.
pub const VRAM: u64 = 80 << 30;

const MODELS: [&str; 6] = [
    "llama-3.2-1b",
    "llama-3.1-70b-instruct",
    "qwen2.5-coder-32b",
    "mistral-7b-v0.3",
    "deepseek-r1-distill-llama-8b",
    "gemma-2-27b-it",
];

/// What a new worker is.
pub fn spec(random: &mut Random, hive: &str, slot: u32, now: SystemTime) -> WorkerSpec {
    let model = model(random);
    let port = 8_000 + slot % 50_000;
    WorkerSpec {
        hive: hive.to_owned(),
        group: "llm".to_owned(),
        instance: slot.to_string(),
        pid: 1_000 + slot,
        start_time: Some(common::timestamp(now)),
        origin: proto::Origin::Started.into(),
        command: ["llama-server", "--model", model, "--port", &port.to_string()].map(str::to_owned).to_vec(),
        endpoint: Some(proto::Endpoint { scheme: "http".to_owned(), host: "10.0.0.1".to_owned(), port }),
        gpu_uuids: vec![gpu_uuid(hive, slot % GPUS)],
        ..named(WorkerSpec::default(), model)
    }
}

/// The same with another model.
pub fn renamed(random: &mut Random, spec: &WorkerSpec) -> WorkerSpec {
    let model = model(random);
    named(spec.clone(), model)
}

fn named(spec: WorkerSpec, model: &str) -> WorkerSpec {
    WorkerSpec { model: Some(model.to_owned()), model_names: vec![model.to_owned()], ..spec }
}

fn model(random: &mut Random) -> &'static str {
    MODELS[random.below(MODELS.len() as u64) as usize]
}

/// The UUID of a GPU, as long as a real one.
pub fn gpu_uuid(hive: &str, index: u32) -> String {
    let hive = hive.bytes().fold(0u64, |all, byte| all.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("GPU-{hive:016x}-0000-4000-{index:010x}")
}

/// The first numbers of a worker.
pub fn first(random: &mut Random, hive: &str, slot: u32, now: SystemTime) -> ProcessStats {
    let mut stats = ProcessStats {
        memory_current_bytes: Some((4 << 30) + random.below(4 << 30)),
        vram_bytes: Some((4 << 30) + random.below(8 << 30)),
        vram_total_bytes: Some(VRAM),
        gpus: vec![GpuUse { uuid: gpu_uuid(hive, slot % GPUS), ..GpuUse::default() }],
        gpu_sample_state: GpuSampleState::Ok.into(),
        process_count: Some(1 + random.below(4) as u32),
        activity_basis: ActivityBasis::Engine.into(),
        memory_peak_bytes: Some(9 << 30),
        swap_bytes: Some(0),
        oom_kills: Some(0),
        engine_sample_state: EngineSampleState::Ok.into(),
        readiness: Readiness::Ready.into(),
        ..ProcessStats::default()
    };
    next(random, &mut stats, now);
    stats
}

/// The next numbers: what moves every second moves, the rest seldom.
pub fn next(random: &mut Random, stats: &mut ProcessStats, now: SystemTime) {
    let tenths = |random: &mut Random, limit: u64| Some(random.below(limit) as f64 / 10.0);
    stats.cpu_pct = Some(random.below(20_000) as f64 / 100.0);
    stats.memory_current_bytes =
        stats.memory_current_bytes.map(|bytes| (4 << 30) + (bytes + random.below(64 << 20)) % (4 << 30));
    stats.io_read_bytes_per_second = Some((random.below(20 << 10) * 1_024) as f64);
    stats.io_write_bytes_per_second = Some((random.below(2 << 10) * 1_024) as f64);
    stats.gpu_util_pct = tenths(random, 1_000);
    stats.vram_bytes = stats.vram_bytes.map(|bytes| (4 << 30) + (bytes + random.below(16 << 20)) % (8 << 30));
    // Memory by kind is read every tenth second.
    if stats.anon_bytes.is_none() || random.happens(0.1) {
        let bytes = stats.memory_current_bytes.unwrap_or(0);
        (stats.rss_bytes, stats.anon_bytes) = (Some(bytes / 2), Some(bytes / 2));
        stats.working_set_bytes = Some(bytes / 4 * 3);
    }
    stats.cpu_throttled_pct = tenths(random, 200);
    stats.cpu_pressure_pct = tenths(random, 200);
    stats.memory_pressure_pct = Some(0.0);
    stats.io_pressure_pct = tenths(random, 50);
    stats.task_count = Some(20 + random.below(10) as u32);
    let idle = random.happens(0.2);
    stats.requests_running = Some(if idle { 0 } else { 1 + random.below(8) as u32 });
    stats.requests_waiting = Some(if idle { 0 } else { random.below(4) as u32 });
    stats.kv_cache_pct = tenths(random, 1_000);
    stats.tokens_per_second = if idle { Some(0.0) } else { tenths(random, 2_000) };
    let was_idle = stats.activity == i32::from(Activity::Idle);
    stats.activity = if idle { Activity::Idle } else { Activity::Busy }.into();
    stats.idle_since = idle.then(|| stats.idle_since.filter(|_| was_idle).unwrap_or_else(|| common::timestamp(now)));
    for gpu in &mut stats.gpus {
        (gpu.util_pct, gpu.vram_bytes) = (stats.gpu_util_pct, stats.vram_bytes);
    }
}

/// The machine as a whole.
pub fn host(random: &mut Random) -> HostStats {
    HostStats {
        cpu_pct: Some(random.below(6_400) as f64),
        memory_available_bytes: Some(random.below(512 << 20) * 1_024),
        load_1: Some(random.below(6_400) as f64 / 100.0),
        load_5: Some(random.below(6_400) as f64 / 100.0),
        load_15: Some(random.below(6_400) as f64 / 100.0),
        ..HostStats::default()
    }
}
