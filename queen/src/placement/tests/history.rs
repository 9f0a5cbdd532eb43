//! What may happen to a small fleet, step by step, made up by a generator.

use super::*;
use crate::Config;
use crate::fleet::LOOK;
use common::HiveId;
use proptest::prelude::*;
use proto::push_telemetry_request::Frame;
use proto::{Batch, GpuSampleState, Readiness, Snapshot, WorkerRow};
use std::time::Duration;

pub const HIVES: [&str; 4] = ["attic", "box", "den", "hall"];
const MODELS: [&str; 4] = ["llama-3", "LLAMA-3", "qwen", "phi"];
/// More workers than a block has rows, so that hives take and give back further ones.
const SLOTS: u32 = 70;

/// What a worker is and does.
#[derive(Debug, Clone)]
pub struct Being {
    slot: u32,
    state: WorkerState,
    activity: Activity,
    readiness: Readiness,
    util: Option<f64>,
    cpu: Option<f64>,
    model: Option<usize>,
    alias: Option<usize>,
    gpu: Option<usize>,
    sampled: bool,
}

/// A GPU's total, used, observed and held bytes, and whether it is lost.
type Card = (Option<u64>, Option<u64>, Option<u64>, u64, bool);

/// What happens next. The first number names the hive.
#[derive(Debug, Clone)]
pub enum Step {
    Register(usize),
    Snapshot(usize, Vec<Being>),
    Rows(usize, Vec<Being>, Vec<u32>),
    Failed(usize, Vec<u32>),
    Record(usize, Vec<Card>, Vec<u32>, OperationalStatus, GpuSampleState),
    Detach(usize),
    Wait(u64),
    Pause(u64),
    Expire,
    Forget(usize),
}

fn being() -> impl Strategy<Value = Being> {
    let state = prop_oneof![6 => Just(WorkerState::Running), 1 => Just(WorkerState::Stopping)];
    let activity = prop_oneof![Just(Activity::Idle), Just(Activity::Busy), Just(Activity::Unknown)];
    let readiness =
        prop_oneof![4 => Just(Readiness::Unspecified), 1 => Just(Readiness::Ready), 1 => Just(Readiness::NotReady)];
    let util = proptest::option::of(prop_oneof![Just(0.0), Just(12.5)]);
    let cpu = proptest::option::of(prop_oneof![Just(0.0), Just(1.0), Just(50.0)]);
    let model = || proptest::option::of(0..MODELS.len());
    let gpu = proptest::option::of(0..3_usize);
    let slot = prop_oneof![4 => 1..6_u32, 1 => 1..=SLOTS];
    let kinds = (slot, state, activity, readiness);
    (kinds, util, cpu, model(), model(), gpu, any::<bool>()).prop_map(
        |(kinds, util, cpu, model, alias, gpu, sampled)| {
            let (slot, state, activity, readiness) = kinds;
            Being { slot, state, activity, readiness, util, cpu, model, alias, gpu, sampled }
        },
    )
}

fn card() -> impl Strategy<Value = Card> {
    let some = |most| proptest::option::weighted(0.9, 0..most);
    (some(20_u64), some(20), some(20), 0..5_u64, proptest::bool::weighted(0.1))
}

pub fn step() -> impl Strategy<Value = Step> {
    let hive = || 0..HIVES.len();
    let slots = || proptest::collection::vec(1..6_u32, 0..3);
    let beings = |most| proptest::collection::vec(being(), 0..most);
    let status = prop_oneof![
        4 => Just(OperationalStatus::Ready),
        1 => Just(OperationalStatus::Draining),
        1 => Just(OperationalStatus::Stopping)
    ];
    let driver = prop_oneof![
        4 => Just(GpuSampleState::Ok),
        1 => Just(GpuSampleState::Timeout),
        1 => Just(GpuSampleState::Stale)
    ];
    prop_oneof![
        1 => hive().prop_map(Step::Register),
        3 => (hive(), beings(12)).prop_map(|(hive, beings)| Step::Snapshot(hive, beings)),
        1 => (hive(), beings(90)).prop_map(|(hive, beings)| Step::Snapshot(hive, beings)),
        6 => (hive(), beings(4), slots()).prop_map(|(hive, beings, gone)| Step::Rows(hive, beings, gone)),
        1 => (hive(), slots()).prop_map(|(hive, slots)| Step::Failed(hive, slots)),
        3 => (hive(), proptest::collection::vec(card(), 0..4), slots(), status, driver)
            .prop_map(|(hive, cards, held, status, driver)| Step::Record(hive, cards, held, status, driver)),
        1 => hive().prop_map(Step::Detach),
        3 => (0..4_000_u64).prop_map(Step::Wait),
        1 => (1..30_u64).prop_map(|seconds| Step::Wait(seconds * 1_000)),
        1 => (1..10_000_u64).prop_map(Step::Pause),
        1 => Just(Step::Expire),
        1 => hive().prop_map(Step::Forget),
    ]
}

/// A fleet and the sessions that tell it.
pub struct World<'a> {
    pub fleet: &'a Fleet,
    pub now: Instant,
    sessions: [Option<Session<'a>>; HIVES.len()],
    records: [proto::Hive; HIVES.len()],
}

/// A fleet that keeps silent hives for ten seconds, so that steps reach removal.
pub fn short_fleet(now: Instant) -> Fleet {
    let config = Config { lost: Duration::from_secs(5), remove: Duration::from_secs(10), ..Config::default() };
    Fleet::new(&config, "q1".into(), now)
}

impl<'a> World<'a> {
    pub fn new(fleet: &'a Fleet, now: Instant) -> Self {
        Self { fleet, now, sessions: Default::default(), records: HIVES.map(hive) }
    }

    /// Time passes, and the queen runs.
    fn wait(&mut self, mut time: Duration) {
        while !time.is_zero() {
            let step = time.min(LOOK);
            (self.now, time) = (self.now + step, time - step);
            self.fleet.look(self.now);
        }
    }

    /// Takes a step. A session that no longer stands is opened anew: what matters is what the fleet makes of it.
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Register(at) => self.open(at),
            Step::Snapshot(at, beings) => {
                let rows = distinct(beings).iter().map(|being| being.row(HIVES[at])).collect();
                self.send(at, Frame::Snapshot(Snapshot { rows, last: true }), None);
            }
            Step::Rows(at, beings, gone) => {
                let rows: Vec<WorkerRow> = distinct(beings).iter().map(|being| being.row(HIVES[at])).collect();
                let removed_slots = gone.into_iter().filter(|slot| rows.iter().all(|row| row.slot != *slot)).collect();
                self.send(at, Frame::Batch(Batch { rows, removed_slots, ..Batch::default() }), None);
            }
            Step::Failed(at, slots) => {
                let mut slots = slots;
                slots.sort_unstable();
                slots.dedup();
                let mut last = 0;
                let failed_slot_gaps = slots.iter().map(|slot| slot - std::mem::replace(&mut last, *slot)).collect();
                self.send(at, Frame::Batch(Batch { failed_slot_gaps, ..Batch::default() }), None);
            }
            Step::Record(at, cards, held, status, driver) => {
                let record = &mut self.records[at];
                record.gpus = (0..).zip(cards).map(|(position, card)| gpu(position, card)).collect();
                record.holds = held
                    .iter()
                    .map(|slot| Hold { reservation: "r1".into(), worker: format!("llm/{slot}"), ..Hold::default() })
                    .collect();
                (record.operational_status, record.gpu_sample_state) = (status.into(), driver.into());
                let record = record.clone();
                self.send(at, Frame::Batch(Batch::default()), Some(record));
            }
            Step::Detach(at) => {
                if let Some(session) = &self.sessions[at] {
                    self.fleet.detach(self.now, &session.session, false);
                }
            }
            Step::Wait(millis) => self.wait(Duration::from_millis(millis)),
            Step::Pause(millis) => {
                self.fleet.look(self.now);
                self.now += Duration::from_millis(millis);
                self.fleet.look(self.now);
            }
            Step::Expire => drop(self.fleet.expire(self.now)),
            Step::Forget(at) => drop(self.fleet.forget(self.now, &HiveId::parse(HIVES[at]).unwrap())),
        }
    }

    fn open(&mut self, at: usize) {
        self.sessions[at] = Session::open(self.fleet, self.records[at].clone(), self.now).ok();
    }

    fn send(&mut self, at: usize, frame: Frame, news: Option<proto::Hive>) {
        if self.sessions[at].is_none() {
            self.open(at);
        }
        let Some(session) = &mut self.sessions[at] else { return };
        let mut frame = session.frame(self.now, frame);
        frame.hive = news;
        if self.fleet.apply(self.now, frame).is_err() {
            self.sessions[at] = None;
        }
    }
}

fn distinct(mut beings: Vec<Being>) -> Vec<Being> {
    beings.sort_by_key(|being| being.slot);
    beings.dedup_by_key(|being| being.slot);
    beings
}

fn gpu(position: usize, (total, used, observed, held, lost): Card) -> Gpu {
    Gpu {
        uuid: format!("G{position}"),
        memory_total_bytes: total,
        memory_used_bytes: used,
        observed_bytes: observed,
        held_bytes: held,
        error: lost.then(|| "GPU is lost".to_owned()),
        ..Gpu::default()
    }
}

impl Being {
    fn row(&self, hive: &str) -> WorkerRow {
        let stats = ProcessStats {
            cpu_pct: self.cpu,
            gpu_util_pct: self.util,
            readiness: self.readiness.into(),
            gpus: self.gpu.iter().map(|at| GpuUse { uuid: format!("G{at}"), ..GpuUse::default() }).collect(),
            ..with(self.activity, self.util)
        };
        let mut row = row(hive, self.slot, stats);
        row.state = self.state.into();
        let spec = row.spec.get_or_insert_default();
        spec.model = self.model.map(|at| MODELS[at].to_owned());
        spec.model_names = self.alias.iter().map(|at| MODELS[*at].to_owned()).collect();
        if !self.sampled {
            row.stats = None;
        }
        row
    }
}
