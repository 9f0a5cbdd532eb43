//! Hives made up for tests: a session that numbers its own frames.

use super::{Fleet, Outcome, Refusal};
use crate::Config;
use proto::push_telemetry_request::Frame;
use proto::{
    Batch, Hive, OperationalStatus, ProcessStats, PushTelemetryRequest, RegisterRequest, Snapshot, WorkerRow,
    WorkerSpec, WorkerState,
};
use std::time::{Duration, Instant};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// An empty fleet with the default limits.
pub(crate) fn fleet(now: Instant) -> Fleet {
    Fleet::new(&Config::default(), "q1".into(), now)
}

/// A hive's record.
pub(crate) fn hive(id: &str) -> Hive {
    Hive {
        id: id.into(),
        boot_id: "boot-1".into(),
        slice: "rbee.slice".into(),
        operational_status: OperationalStatus::Ready.into(),
        ..Hive::default()
    }
}

/// A running worker `llm/<slot>`.
pub(crate) fn row(hive: &str, slot: u32, stats: ProcessStats) -> WorkerRow {
    let spec =
        WorkerSpec { hive: hive.into(), group: "llm".into(), instance: slot.to_string(), ..WorkerSpec::default() };
    WorkerRow { slot, spec: Some(spec), state: WorkerState::Running.into(), stats: Some(stats) }
}

/// Numbers with nothing but a CPU use.
pub(crate) fn cpu(percent: f64) -> ProcessStats {
    ProcessStats { cpu_pct: Some(percent), ..ProcessStats::default() }
}

/// One session of one hive.
pub(crate) struct Session<'a> {
    pub fleet: &'a Fleet,
    pub session: String,
    pub sequence: u64,
    pub opened: Instant,
}

impl<'a> Session<'a> {
    /// Registers and attaches a stream.
    pub fn open(fleet: &'a Fleet, record: Hive, now: Instant) -> Result<Self, Refusal> {
        let request = RegisterRequest { hive: Some(record), ..RegisterRequest::default() };
        let session = fleet.register(now, request, "t")?.session;
        fleet.attach(&session)?;
        Ok(Self { fleet, session, sequence: 0, opened: now })
    }

    /// The next frame, sampled now.
    pub fn frame(&mut self, now: Instant, frame: Frame) -> PushTelemetryRequest {
        self.sequence += 1;
        PushTelemetryRequest {
            session: self.session.clone(),
            sequence: self.sequence,
            monotonic_ms: (now - self.opened).as_millis() as u64,
            before_register_ms: 0,
            sampled_at: Some(prost_types::Timestamp { seconds: 1_000_000 + self.sequence as i64, nanos: 0 }),
            frame: Some(frame),
            hive: None,
        }
    }

    /// A whole snapshot.
    pub fn snapshot(&mut self, now: Instant, rows: Vec<WorkerRow>) -> Result<Outcome, Refusal> {
        let frame = self.frame(now, Frame::Snapshot(Snapshot { rows, last: true }));
        self.fleet.apply(now, frame)
    }

    /// A batch.
    pub fn batch(&mut self, now: Instant, batch: Batch) -> Result<Outcome, Refusal> {
        let frame = self.frame(now, Frame::Batch(batch));
        self.fleet.apply(now, frame)
    }
}

/// A fleet of one hive, `box`, with these workers on slots 1, 2, …
pub(crate) fn one_hive(fleet: &Fleet, now: Instant, stats: Vec<ProcessStats>) -> Session<'_> {
    let mut session = Session::open(fleet, hive("box"), now).unwrap();
    let rows = (1..).zip(stats).map(|(slot, stats)| row("box", slot, stats)).collect();
    session.snapshot(now, rows).unwrap();
    session
}

/// Names of all workers, in order.
pub(crate) fn names(fleet: &Fleet, now: Instant) -> Vec<String> {
    let mut names = Vec::new();
    fleet.walk(now, None, |seen| names.push(format!("{}/{}", seen.hive(), seen.id())));
    names.sort();
    names
}
