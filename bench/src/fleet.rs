//! The workers that every peer carries: the same numbers, in the form of each. All workers change in every batch: they go
//! to and fro between two states.

use crate::plain;
use bytes::{BufMut, Bytes, BytesMut};
use cli::simulate::{Random, first, gpu_uuid, next, spec};
use common::columns::{Change, Quanta, encode, pack};
use prost::Message;
use proto::push_telemetry_request::Frame;
use proto::{Batch, Gpu, Hive, ProcessStats, Snapshot, WorkerRow, WorkerSpec, WorkerState};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Workers in a batch.
pub const WORKERS: u32 = 100;
const SEED: u64 = 0x5eed;
const MIB: u64 = 1 << 20;

/// The document's worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Worker {
    pub pid: u32,
    pub group: String,
    pub instance: String,
    pub cpu_pct: f64,
    pub rss_mb: u64,
    pub io_r_mb_s: f64,
    pub io_w_mb_s: f64,
    pub uptime_s: u64,
    pub gpu_util_pct: f64,
    pub vram_mb: u64,
    pub total_vram_mb: u64,
    pub model: Option<String>,
}

/// The document's hive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HiveInfo {
    pub id: String,
    pub hostname: String,
    pub port: u16,
    pub operational_status: String,
    pub health_status: String,
    pub version: String,
}

/// The document's heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    pub hive: HiveInfo,
    pub timestamp: String,
    pub sent_ns: u64,
    pub workers: Vec<Worker>,
}

/// Which fields our form carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Those of the document.
    Document,
    /// All that a hive measures.
    Full,
}

/// One hive, in two states.
#[derive(Debug, Clone)]
pub struct Load {
    pub name: String,
    form: Form,
    specs: Vec<WorkerSpec>,
    states: [Vec<ProcessStats>; 2],
}

/// Nanoseconds of the wall clock, which all processes here share.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

impl Load {
    /// Hive number `index` with so many workers.
    pub fn new(index: u32, workers: u32, form: Form) -> Self {
        let name = format!("hive-{index:05}");
        let (mut random, now) = (Random::new(SEED, u64::from(index)), SystemTime::now());
        let mut specs: Vec<WorkerSpec> = (1..=workers).map(|slot| spec(&mut random, &name, slot, now)).collect();
        let before: Vec<ProcessStats> = (1..=workers).map(|slot| first(&mut random, &name, slot, now)).collect();
        let mut after = before.clone();
        after.iter_mut().for_each(|stats| next(&mut random, stats, now));
        let mut states = [before, after];
        if form == Form::Document {
            specs.iter_mut().for_each(strip_spec);
            states.iter_mut().flatten().for_each(strip);
        }
        Self { name, form, specs, states }
    }

    /// The hive's record.
    pub fn hive(&self) -> Hive {
        let gpu = |index| Gpu { uuid: gpu_uuid(&self.name, index), ..Gpu::default() };
        let gpus = if self.form == Form::Full { (0..8).map(gpu).collect() } else { Vec::new() };
        Hive {
            id: self.name.clone(),
            hostname: self.name.clone(),
            boot_id: "boot".into(),
            slice: "s".into(),
            gpus,
            ..Hive::default()
        }
    }

    /// The first frame of a session.
    pub fn snapshot(&self) -> Frame {
        let row = |(slot, (spec, stats)): (u32, (&WorkerSpec, &ProcessStats))| WorkerRow {
            slot,
            spec: Some(spec.clone()),
            state: WorkerState::Running.into(),
            stats: Some(stats.clone()),
        };
        let rows = (1..).zip(self.specs.iter().zip(&self.states[0])).map(row).collect();
        Frame::Snapshot(Snapshot { rows, last: true })
    }

    /// The batch that leads from state `from` to the other one, of the first `share` percent of the workers.
    pub fn batch(&self, from: usize, share: usize) -> Batch {
        let told = self.hive().gpus;
        let pairs = (1..).zip(self.states[from].iter().zip(&self.states[1 - from]));
        let chosen = pairs.filter(|(slot, _): &(u32, _)| (*slot as usize * share) % 100 < share);
        let (mut changes, mut gpus) = (Vec::new(), Vec::new());
        for (slot, (before, after)) in chosen {
            changes.push(Change { slot, before: Quanta::of(before), after: Quanta::of(after) });
            let uses = common::gpus::Uses::of(before, &told);
            if !uses.still(after) {
                gpus.push(common::gpus::pack(slot, &told, &uses));
            }
        }
        Batch { columns: encode(&changes), gpus, ..Batch::default() }
    }

    /// Frames of a session, whole but for what is counted: the two batches on the wire.
    pub fn frames(&self, session: &str) -> Frames {
        let batch = |from| {
            // The snapshot told the first state and no list of an only GPU: its rows go on as they are.
            let batch = Batch { gpus: Vec::new(), ..self.batch(from, 100) };
            Bytes::from(batch.encode_to_vec())
        };
        Frames { session: session.to_owned(), batches: [batch(0), batch(1)], sequence: 1 }
    }

    /// The document's heartbeat, in state `at`.
    pub fn heartbeat(&self, at: usize) -> Heartbeat {
        let workers = self.specs.iter().zip(&self.states[at]).map(|(spec, stats)| worker(spec, stats)).collect();
        let hive = HiveInfo {
            id: self.name.clone(),
            hostname: self.name.clone(),
            port: 7835,
            operational_status: "ready".into(),
            health_status: "healthy".into(),
            version: "0.1.0".into(),
        };
        Heartbeat { hive, timestamp: "2025-10-30T18:30:00.123Z".into(), sent_ns: now_ns(), workers }
    }

    /// The plain peer's batch, in state `at`.
    pub fn plain(&self, at: usize) -> plain::Batch {
        let row = |worker: Worker| plain::Row {
            pid: worker.pid,
            group: worker.group,
            instance: worker.instance,
            cpu_pct: worker.cpu_pct,
            rss_mb: worker.rss_mb,
            io_r_mb_s: worker.io_r_mb_s,
            io_w_mb_s: worker.io_w_mb_s,
            uptime_s: worker.uptime_s,
            gpu_util_pct: worker.gpu_util_pct,
            vram_mb: worker.vram_mb,
            total_vram_mb: worker.total_vram_mb,
            model: worker.model.unwrap_or_default(),
        };
        let workers = self.heartbeat(at).workers.into_iter().map(row).collect();
        plain::Batch { hive: self.name.clone(), sent_ns: now_ns(), workers }
    }

    /// The workers as whoever asks for them is told.
    pub fn listed(&self) -> Vec<proto::Worker> {
        let worker = |(spec, stats): (&WorkerSpec, &ProcessStats)| proto::Worker {
            spec: Some(spec.clone()),
            stats: Some(stats.clone()),
            state: WorkerState::Running.into(),
            freshness: proto::Freshness::Live.into(),
            ..proto::Worker::default()
        };
        self.specs.iter().zip(&self.states[0]).map(worker).collect()
    }

    /// What a watcher of ours is told of a batch, as bytes: for carriers that carry anything.
    pub fn update(&self) -> Vec<u8> {
        let states: Vec<Quanta> = self.states[0].iter().map(Quanta::of).collect();
        let columns = proto::Columns::decode(pack((1..).zip(&states)).as_slice()).ok();
        let beat = proto::HiveBeat {
            hive: self.name.clone(),
            sampled_at: Some(common::timestamp(SystemTime::now())),
            sequence: 1,
            epoch: 1,
        };
        proto::Update { revision: "queen:1".into(), columns, beats: vec![beat], ..proto::Update::default() }
            .encode_to_vec()
    }
}

fn worker(spec: &WorkerSpec, stats: &ProcessStats) -> Worker {
    let rate = |value: Option<f64>| (value.unwrap_or(0.0) / MIB as f64 * 100.0).round() / 100.0;
    Worker {
        pid: spec.pid,
        group: spec.group.clone(),
        instance: spec.instance.clone(),
        cpu_pct: stats.cpu_pct.unwrap_or(0.0),
        rss_mb: stats.memory_current_bytes.unwrap_or(0) / MIB,
        io_r_mb_s: rate(stats.io_read_bytes_per_second),
        io_w_mb_s: rate(stats.io_write_bytes_per_second),
        uptime_s: 86_400,
        gpu_util_pct: stats.gpu_util_pct.unwrap_or(0.0),
        vram_mb: stats.vram_bytes.unwrap_or(0) / MIB,
        total_vram_mb: stats.vram_total_bytes.unwrap_or(0) / MIB,
        model: spec.model.clone(),
    }
}

fn strip(stats: &mut ProcessStats) {
    *stats = ProcessStats {
        cpu_pct: stats.cpu_pct,
        memory_current_bytes: stats.memory_current_bytes,
        io_read_bytes_per_second: stats.io_read_bytes_per_second,
        io_write_bytes_per_second: stats.io_write_bytes_per_second,
        gpu_util_pct: stats.gpu_util_pct,
        vram_bytes: stats.vram_bytes,
        vram_total_bytes: stats.vram_total_bytes,
        ..ProcessStats::default()
    };
}

fn strip_spec(spec: &mut WorkerSpec) {
    *spec = WorkerSpec {
        hive: std::mem::take(&mut spec.hive),
        group: std::mem::take(&mut spec.group),
        instance: std::mem::take(&mut spec.instance),
        pid: spec.pid,
        start_time: spec.start_time,
        model: spec.model.take(),
        ..WorkerSpec::default()
    };
}

/// Makes one frame after the other.
#[derive(Debug, Clone)]
pub struct Frames {
    session: String,
    batches: [Bytes; 2],
    sequence: u64,
}

impl Frames {
    /// The next one, sampled now.
    pub fn next(&mut self, since: Duration) -> Bytes {
        let now = now_ns();
        let batch = &self.batches[usize::from(self.sequence.is_multiple_of(2))];
        self.sequence += 1;
        let head = proto::PushTelemetryRequest {
            session: self.session.clone(),
            sequence: self.sequence,
            monotonic_ms: since.as_millis() as u64,
            sampled_at: Some(prost_types::Timestamp {
                seconds: (now / 1_000_000_000) as i64,
                nanos: (now % 1_000_000_000) as i32,
            }),
            ..proto::PushTelemetryRequest::default()
        };
        let mut bytes = BytesMut::with_capacity(head.encoded_len() + 8 + batch.len());
        head.encode_raw(&mut bytes);
        // Field 6, `batch`.
        bytes.put_u8(6 << 3 | 2);
        prost::encoding::encode_varint(batch.len() as u64, &mut bytes);
        bytes.extend_from_slice(batch);
        bytes.freeze()
    }
}
