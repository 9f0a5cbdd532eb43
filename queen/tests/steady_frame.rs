//! A steady frame allocates nothing: the same workers, new numbers, from the bytes on the wire to what watchers read.

#![expect(unsafe_code, reason = "an allocator that counts can only be written with it")]
#![expect(clippy::unwrap_used, reason = "a test: what cannot be set up fails it")]

use common::HiveId;
use common::columns::{Change, Quanta, encode};
use prost::Message;
use proto::push_telemetry_request::Frame;
use proto::{
    Activity, Batch, Gpu, GpuUse, Hive, ProcessStats, PushTelemetryRequest, RegisterRequest, SlotGpus, Snapshot,
    WorkerRow, WorkerSpec, WorkerState,
};
use queen::Config;
use queen::fleet::{Fleet, Outcome};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

const WORKERS: u32 = 100;
/// Frames before it is steady: every buffer has its size.
const WARM_UP: u64 = 10;
/// Frames that must not allocate.
const STEADY: u64 = 50;

thread_local! {
    /// How much was allocated by this thread, while it counts.
    static COUNTED: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    // A thread that is ending has no such variable any more, and counts nothing.
    let _ended = COUNTED.try_with(|counted| counted.set(counted.get().map(|sum| sum + 1)));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches a thread-local cell that is made
// without allocating.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises that this needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in there.
fn allocations<T>(work: impl FnOnce() -> T) -> (usize, T) {
    COUNTED.set(Some(0));
    let done = work();
    (COUNTED.take().unwrap(), done)
}

fn stats(slot: u32, round: u64) -> ProcessStats {
    let moved = round * 7 + u64::from(slot);
    let busy = moved.is_multiple_of(3);
    ProcessStats {
        cpu_pct: Some((moved % 100) as f64),
        memory_current_bytes: Some((1_000 + moved % 50_000) * 4_096),
        io_read_bytes_per_second: Some((moved % 9_000 * 1_024) as f64),
        gpu_util_pct: busy.then_some((moved % 90) as f64),
        vram_bytes: Some((moved % 9_000) * 4_096),
        activity: if busy { Activity::Busy } else { Activity::Idle }.into(),
        idle_since: (!busy).then_some(prost_types::Timestamp { seconds: round as i64, nanos: 0 }),
        gpus: vec![GpuUse { uuid: "GPU-0".into(), ..GpuUse::default() }],
        ..ProcessStats::default()
    }
}

fn frame(session: &str, sequence: u64, frame: Frame) -> Vec<u8> {
    let request = PushTelemetryRequest {
        session: session.to_owned(),
        sequence,
        monotonic_ms: sequence * 1_000,
        before_register_ms: 0,
        sampled_at: Some(prost_types::Timestamp { seconds: sequence as i64, nanos: 0 }),
        frame: Some(frame),
        hive: None,
    };
    request.encode_to_vec()
}

/// A session's frames: a snapshot, then each the difference to the one before. The second says that each worker's only
/// GPU has the worker's own numbers.
fn frames(session: &str) -> Vec<Vec<u8>> {
    let row = |slot: u32| {
        let spec = WorkerSpec { group: "llm".into(), instance: slot.to_string(), ..WorkerSpec::default() };
        WorkerRow { slot, spec: Some(spec), state: WorkerState::Running.into(), stats: Some(stats(slot, 1)) }
    };
    let snapshot = Snapshot { rows: (1..=WORKERS).map(row).collect(), last: true };
    let mut frames = vec![frame(session, 1, Frame::Snapshot(snapshot))];
    for round in 2..=WARM_UP + STEADY {
        let change = |slot| {
            let [before, after] = [round - 1, round].map(|round| Quanta::of(&stats(slot, round)));
            Change { slot, before, after }
        };
        let columns = encode(&(1..=WORKERS).map(change).collect::<Vec<_>>());
        let sole = |slot| SlotGpus { slot, sole: Some(0), ..SlotGpus::default() };
        let gpus = if round == 2 { (1..=WORKERS).map(sole).collect() } else { Vec::new() };
        frames.push(frame(session, round, Frame::Batch(Batch { columns, gpus, ..Batch::default() })));
    }
    frames
}

/// Applies all frames; `between` looks at the fleet after each. Answers the allocations of the steady ones.
fn applied(between: impl Fn(&Fleet)) -> Vec<usize> {
    let start = Instant::now();
    let fleet = Fleet::new(&Config::default(), "q1".into(), start);
    let gpus = vec![Gpu { uuid: "GPU-0".into(), ..Gpu::default() }];
    let hive = Hive { id: "box".into(), gpus, ..Hive::default() };
    let request = RegisterRequest { hive: Some(hive), ..RegisterRequest::default() };
    let session = fleet.register(start, request, "token").unwrap().session;
    fleet.attach(&session).unwrap();
    let id = HiveId::parse("box").unwrap();
    let mut counted = Vec::new();
    for (sequence, bytes) in (1..).zip(frames(&session)) {
        let now = start + Duration::from_secs(sequence);
        let (count, outcome) = allocations(|| fleet.apply_bytes(now, &id, &bytes));
        assert_eq!(outcome, Ok(Outcome::Accepted { samples: u64::from(WORKERS), dropped: 0 }));
        counted.push(count);
        between(&fleet);
    }
    let worker = fleet.worker(start, &id, &common::WorkerId::new("llm", "7").unwrap()).unwrap();
    let (kept, last) = (worker.stats.unwrap(), stats(7, WARM_UP + STEADY));
    assert_eq!((kept.cpu_pct, kept.vram_bytes, kept.idle_since), (last.cpu_pct, last.vram_bytes, last.idle_since));
    assert_eq!(kept.gpus[0].vram_bytes, last.vram_bytes, "its only GPU follows");
    counted.split_off(WARM_UP as usize)
}

#[test]
fn a_steady_frame_allocates_nothing() {
    assert_eq!(applied(|_| {}).iter().sum::<usize>(), 0);
}

#[test]
fn a_steady_frame_allocates_nothing_while_somebody_watches() {
    // Whoever reads encodes; applying the next frame does not.
    let counted = applied(|fleet| {
        let mut place = fleet.feed().start();
        while let queen::fleet::feed::Read::Page { more: true, .. } =
            fleet.feed().read(fleet.started(), &mut place, None, 256 * 1024)
        {}
    });
    assert_eq!(counted.iter().sum::<usize>(), 0);
}

#[test]
fn a_steady_frame_allocates_nothing_while_nobody_watches() {
    assert_eq!(applied(|fleet| fleet.feed().link_when_watched()).iter().sum::<usize>(), 0);
}
