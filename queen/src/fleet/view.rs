//! Looking at the fleet: single workers, whole walks, counts. Ages are worked out here, at the moment of asking.

use super::known::{KnownHive, KnownWorker};
use super::{Fleet, Limits};
use crate::fleet::age::Pardon;
use common::{HiveId, WorkerId};
use proto::{Activity, Coverage, Freshness, OperationalStatus, ProcessStats, WorkerSpec, WorkerState};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Bookmarks name at most this many workers, and as many hives.
const NAMED: usize = 1_000;

/// One worker, seen now.
pub struct Seen<'a> {
    hive: &'a KnownHive,
    worker: &'a KnownWorker,
    now: Instant,
    limits: Limits,
    pardon: Pardon,
}

impl Seen<'_> {
    /// Its name on its hive.
    pub fn id(&self) -> &WorkerId {
        &self.worker.id
    }

    /// Its hive.
    pub fn hive(&self) -> &HiveId {
        &self.hive.id
    }

    /// GPUs of its hive; none while their driver does not answer truthfully.
    pub fn gpus(&self) -> &[proto::Gpu] {
        use proto::GpuSampleState::{Error, Timeout};
        match self.hive.info.gpu_sample_state() {
            Timeout | Error => &[],
            _ => &self.hive.info.gpus,
        }
    }

    /// What it is.
    pub fn spec(&self) -> &Arc<WorkerSpec> {
        &self.worker.spec
    }

    /// A `WorkerState` as it came.
    pub fn state(&self) -> i32 {
        self.worker.state
    }

    /// Its numbers.
    pub fn stats(&self) -> Option<&ProcessStats> {
        self.worker.stats.as_ref()
    }

    /// How old its last good sample is; absent before the first.
    pub fn age(&self) -> Option<Duration> {
        self.worker.good.map(|good| self.now.saturating_duration_since(good))
    }

    /// For how long it has been idle.
    pub fn idle_for(&self) -> Option<Duration> {
        self.worker.idle_from.map(|from| self.now.saturating_duration_since(from))
    }

    /// How far its numbers may be trusted.
    pub fn freshness(&self) -> Freshness {
        self.hive.worker_freshness(self.worker, self.now, &self.limits, &self.pardon)
    }

    /// Whether it is known to be idle. Unknown is never idle.
    pub fn is_idle(&self) -> bool {
        self.worker.stats.as_ref().is_some_and(|stats| stats.activity == i32::from(Activity::Idle))
    }

    /// How long it has been running: its hive's clock up to the newest sample, the queen's since.
    fn uptime(&self) -> Option<Duration> {
        let start = common::from_timestamp(self.worker.spec.start_time.as_ref()?)?;
        let sampled = common::from_timestamp(self.hive.sampled_at.as_ref()?)?;
        let up = sampled.duration_since(start).ok()?;
        up.checked_add(self.now.saturating_duration_since(self.hive.taken))
    }

    /// As unary calls answer it.
    pub fn to_wire(&self) -> proto::Worker {
        proto::Worker { spec: Some(WorkerSpec::clone(&self.worker.spec)), ..self.to_wire_bare() }
    }

    /// The same without its spec.
    pub fn to_wire_bare(&self) -> proto::Worker {
        let mut stats = self.worker.stats.clone();
        if let Some(stats) = &mut stats {
            stats.uptime = self.uptime().map(common::duration);
        }
        proto::Worker {
            spec: None,
            stats,
            state: self.worker.state,
            age: self.age().map(common::duration),
            freshness: self.freshness().into(),
            reservation: String::new(),
        }
    }
}

/// Counts over the whole fleet, as bookmarks carry them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Census {
    /// LIVE workers.
    pub workers_online: u32,
    /// LIVE, running and idle.
    pub workers_available: u32,
    /// LIVE hives.
    pub hives_online: u32,
    /// LIVE and READY.
    pub hives_available: u32,
    /// Names of LIVE workers, at most 1,000, in order.
    pub worker_ids: Vec<String>,
    /// Names of LIVE hives, at most 1,000, in order.
    pub hive_ids: Vec<String>,
    /// There are more.
    pub ids_truncated: bool,
}

impl Fleet {
    /// Looks at every worker, in no order. With `only`, at those of one hive. `look` must not call the fleet.
    pub fn walk(&self, now: Instant, only: Option<&HiveId>, mut look: impl FnMut(&Seen<'_>)) {
        let (limits, pardon) = (self.bounds.limits, self.pardon());
        let mut each = |hive: &KnownHive| {
            for worker in hive.workers() {
                look(&Seen { hive, worker, now, limits, pardon });
            }
        };
        match only {
            Some(id) => {
                if let Some(hive) = self.hives.get(id) {
                    each(&hive);
                }
            }
            None => self.hives.iter().for_each(|hive| each(&hive)),
        }
    }

    /// One worker.
    pub fn worker(&self, now: Instant, hive: &HiveId, id: &WorkerId) -> Option<proto::Worker> {
        let (limits, pardon) = (self.bounds.limits, self.pardon());
        let hive = self.hives.get(hive)?;
        let worker = hive.worker(id)?;
        Some(Seen { hive: &hive, worker, now, limits, pardon }.to_wire())
    }

    /// One hive.
    pub fn hive(&self, now: Instant, id: &HiveId) -> Option<proto::Hive> {
        self.hives.get(id).map(|hive| self.hive_to_wire(&hive, now))
    }

    /// All hives whose name comes after `after`, in the order of their names, at most `limit`.
    pub fn hives_after(&self, now: Instant, after: Option<&HiveId>, limit: usize) -> Vec<proto::Hive> {
        let mut ids: Vec<HiveId> = self.hives.iter().map(|hive| hive.id.clone()).collect();
        ids.retain(|id| after.is_none_or(|after| id > after));
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.hive(now, id)).take(limit).collect()
    }

    fn hive_to_wire(&self, hive: &KnownHive, now: Instant) -> proto::Hive {
        proto::Hive {
            freshness: hive.freshness_at(now, &self.bounds.limits, &self.pardon()).into(),
            age: Some(common::duration(now.saturating_duration_since(hive.taken))),
            worker_count: u32::try_from(hive.count()).unwrap_or(u32::MAX),
            ..hive.info.clone()
        }
    }

    /// How much of the fleet an answer speaks for.
    pub fn coverage(&self, now: Instant) -> Coverage {
        let (limits, pardon) = (self.bounds.limits, self.pardon());
        let mut coverage = Coverage {
            queen_uptime: Some(common::duration(now.saturating_duration_since(self.started))),
            removal_frozen: self.freeze.lock().unwrap_or_else(PoisonError::into_inner).holds(now),
            ..Coverage::default()
        };
        for hive in &self.hives {
            coverage.hives_known += 1;
            coverage.hives_live += u32::from(hive.freshness_at(now, &limits, &pardon) == Freshness::Live);
        }
        coverage
    }

    /// Counts everything.
    pub fn census(&self, now: Instant) -> Census {
        let mut census = Census::default();
        let (limits, pardon) = (self.bounds.limits, self.pardon());
        for hive in &self.hives {
            let hive = hive.value();
            if hive.freshness_at(now, &limits, &pardon) != Freshness::Live {
                continue;
            }
            census.hives_online += 1;
            let ready = hive.info.operational_status == i32::from(OperationalStatus::Ready);
            census.hives_available += u32::from(ready);
            census.name_hive(&hive.id);
            for worker in hive.workers() {
                let seen = Seen { hive, worker, now, limits, pardon };
                if seen.freshness() != Freshness::Live {
                    continue;
                }
                census.workers_online += 1;
                let running = worker.state == i32::from(WorkerState::Running);
                census.workers_available += u32::from(running && seen.is_idle());
                census.name_worker(&hive.id, &worker.id);
            }
        }
        census.worker_ids.sort_unstable();
        census.hive_ids.sort_unstable();
        census
    }
}

impl Census {
    fn name_worker(&mut self, hive: &HiveId, id: &WorkerId) {
        if self.worker_ids.len() < NAMED {
            self.worker_ids.push(format!("{hive}/{id}"));
        } else {
            self.ids_truncated = true;
        }
    }

    fn name_hive(&mut self, id: &HiveId) {
        if self.hive_ids.len() < NAMED {
            self.hive_ids.push(id.to_string());
        } else {
            self.ids_truncated = true;
        }
    }
}
