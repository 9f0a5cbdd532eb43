//! The same workers in a fleet, told as hives tell them.

use super::{Being, WORKERS};
use common::HiveId;
use proto::push_telemetry_request::Frame;
use proto::{
    Activity, Filter, FindOrder, Fit, Gpu, GpuSampleState, GpuUse, Hive, OperationalStatus, ProcessStats,
    PushTelemetryRequest, RegisterRequest, Snapshot, WorkerRow, WorkerSpec, WorkerState,
};
use queen::Config;
use queen::fleet::index::{Flags, Need, Seat, Sieve};
use queen::fleet::{Fleet, Spec};
use queen::placement::{CapacityQuery, GpuPage, ModelRule, Page, Query, Want, find, find_capacity};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;
/// Nobody is told of anything again, and nobody is to be doubted for that.
const FRESH: Duration = Duration::from_secs(3_600);
/// When all were sampled, in seconds since 1970.
const SAMPLED: i64 = 1_760_000_000;
/// The longest that one has been idle, in milliseconds.
const LONGEST: usize = 3_600_000;

/// A fleet that was just heard from, and the seat of one hive more, whose changes are measured.
pub struct Ours {
    fleet: Arc<Fleet>,
    now: Instant,
    seat: RefCell<Seat>,
    record: RefCell<Hive>,
    turn: RefCell<u64>,
}

impl Ours {
    pub fn new(beings: &[Being]) -> Self {
        let now = Instant::now();
        let config = Config { stale: FRESH, lost: FRESH * 2, remove: FRESH * 3, ..Config::default() };
        let fleet = Arc::new(Fleet::new(&config, "bench".to_owned(), now));
        for hive in beings.chunks(WORKERS) {
            let record = record(hive);
            let id = record.id.clone();
            let request = RegisterRequest { hive: Some(record), ..RegisterRequest::default() };
            let session = fleet.register(now, request, "t").expect("a place for a hive").session;
            let rows = hive.iter().map(|being| row(&id, being)).collect();
            let frame = Some(Frame::Snapshot(Snapshot { rows, last: true }));
            let sampled_at = Some(prost_types::Timestamp { seconds: SAMPLED, nanos: 0 });
            let frame = PushTelemetryRequest { session, sequence: 1, sampled_at, frame, ..Default::default() };
            fleet.apply(now, frame).expect("a snapshot that fits");
        }
        let mut seat = Seat::default();
        seat.take(fleet.index(), &HiveId::parse("zz-one-more").expect("a name"), WORKERS);
        let record = RefCell::new(record(&beings[..WORKERS]));
        let spec = Arc::new(Spec::of(&WorkerSpec { model: Some("model-7".into()), ..WorkerSpec::default() }));
        seat.set_spec(fleet.index(), 3, &spec);
        Self { fleet, now, seat: RefCell::new(seat), record, turn: RefCell::new(0) }
    }

    /// What everybody was told to.
    pub fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.fleet)
    }

    pub fn idle_rows(&self) -> Vec<u32> {
        self.fleet.index().rows(&Sieve {
            need: Need::Idle,
            held_too: false,
            models: None,
            least_room: None,
            oldest: self.fleet.index().oldest(self.now.checked_sub(Duration::from_secs(3))),
            broken_too: false,
        })
    }

    fn find(&self, want: Want, order: FindOrder, limit: usize) -> Page {
        let query = Query {
            filter: Filter::default(),
            max_age: Duration::from_secs(3),
            stale_too: false,
            held_too: false,
            min_idle: None,
            limit,
            order,
            page_size: 0,
            after: None,
            want,
        };
        find(&self.fleet, self.now, &query)
    }

    pub fn idle(&self, limit: usize) -> Page {
        self.find(Want::Idle, FindOrder::Name, limit)
    }

    pub fn longest_idle(&self, limit: usize) -> Page {
        self.find(Want::Idle, FindOrder::LongestIdle, limit)
    }

    pub fn with_model(&self, limit: usize) -> Page {
        let want = Want::Model { name: "model-7".into(), rule: ModelRule::Exact, idle: false };
        self.find(want, FindOrder::Name, limit)
    }

    pub fn with_room(&self, limit: usize) -> Page {
        self.find(Want::Capacity { required: 20 * GIB, headroom: 0, idle: false }, FindOrder::Name, limit)
    }

    pub fn best_fit(&self) -> GpuPage {
        self.fit(Fit::Best)
    }

    pub fn first_fit(&self) -> GpuPage {
        self.fit(Fit::First)
    }

    fn fit(&self, fit: Fit) -> GpuPage {
        let query = CapacityQuery {
            filter: Filter::default(),
            max_age: Duration::from_secs(3),
            stale_too: false,
            required: 8 * GIB,
            headroom: 0,
            fit,
            limit: 1,
            page_size: 0,
            after: None,
        };
        find_capacity(&self.fleet, self.now, &query)
    }

    pub fn coverage(&self) -> proto::Coverage {
        self.fleet.coverage(self.now)
    }

    /// One worker changes, the frame is told.
    pub fn flip(&self) {
        let mut turn = self.turn.borrow_mut();
        *turn += 1;
        let flags = Flags { ready: true, idle: turn.is_multiple_of(2), unused: false, held: false };
        let mut seat = self.seat.borrow_mut();
        seat.set(3, flags, self.fleet.index().idle_from(self.now));
        seat.publish(self.fleet.index(), self.now, false);
    }

    /// A frame is told.
    pub fn no_news(&self) {
        self.seat.borrow_mut().publish(self.fleet.index(), self.now, false);
    }

    /// A hive's record with one GPU whose use is another.
    pub fn move_room(&self) {
        let mut turn = self.turn.borrow_mut();
        *turn += 1;
        let mut record = self.record.borrow_mut();
        record.gpus[3].memory_used_bytes = Some(*turn % 997 * (GIB / 50));
        self.seat.borrow_mut().retell(self.fleet.index(), &record);
    }
}

fn uuid(being: &Being) -> String {
    format!("GPU-{:05}-{:04}-0000-0000-000000000000", being.hive, being.slot)
}

fn record(hive: &[Being]) -> Hive {
    let gpu = |being: &Being| Gpu {
        uuid: uuid(being),
        name: "NVIDIA GeForce RTX 4090".to_owned(),
        memory_total_bytes: Some(24 * GIB),
        memory_used_bytes: Some(being.vram_used),
        ..Gpu::default()
    };
    Hive {
        id: format!("hive-{:05}", hive[0].hive),
        operational_status: OperationalStatus::Ready.into(),
        gpu_sample_state: GpuSampleState::Ok.into(),
        gpus: hive.iter().map(gpu).collect(),
        ..Hive::default()
    }
}

/// Each since another moment of the last hour.
fn idle_since(being: &Being) -> prost_types::Timestamp {
    let before = (being.hive * WORKERS + being.slot) * 7_919 % LONGEST;
    let millis = SAMPLED * 1_000 - before as i64;
    prost_types::Timestamp { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 }
}

fn row(hive: &str, being: &Being) -> WorkerRow {
    let activity = if being.idle { Activity::Idle } else { Activity::Busy };
    let util = if being.idle { 0.0 } else { 55.0 };
    let stats = ProcessStats {
        cpu_pct: Some(12.5),
        memory_current_bytes: Some(4 * GIB),
        io_read_bytes_per_second: Some(0.0),
        io_write_bytes_per_second: Some(0.0),
        gpu_util_pct: Some(util),
        vram_bytes: Some(being.vram_used),
        gpus: vec![GpuUse { uuid: uuid(being), util_pct: Some(util), vram_bytes: Some(being.vram_used) }],
        gpu_sample_state: GpuSampleState::Ok.into(),
        activity: activity.into(),
        idle_since: being.idle.then(|| idle_since(being)),
        ..ProcessStats::default()
    };
    let spec = WorkerSpec {
        hive: hive.to_owned(),
        group: "llm".to_owned(),
        instance: format!("{}", 8_080 + being.slot),
        pid: 1_000 + being.slot as u32,
        model: Some(format!("model-{}", being.model)),
        ..WorkerSpec::default()
    };
    let slot = being.slot as u32 + 1;
    WorkerRow { slot, spec: Some(spec), state: WorkerState::Running.into(), stats: Some(stats) }
}
