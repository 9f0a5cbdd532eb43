//! Looking at the fleet: single workers, whole walks, counts. Ages are worked out here, at the moment of asking.

use super::age::Pardon;
use super::index::{Flags, is_idle};
use super::known::{KnownHive, KnownWorker};
use super::measured::Measured;
use super::{Fleet, Limits, Spec};
use common::{HiveId, WorkerId};
use proto::{Coverage, Freshness, OperationalStatus};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Bookmarks name at most this many workers, and as many hives.
const NAMED: usize = 1_000;

/// A point in time, and what makes things fresh at it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    now: Instant,
    limits: Limits,
    pardon: Pardon,
}

impl Moment {
    /// The point in time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Whoever was heard then or later is LIVE, unless its stream is broken. `None`: there was no such moment.
    pub fn live_since(&self) -> Option<Instant> {
        self.now.checked_sub(self.limits.stale)
    }

    /// The freshness of a hive that was last heard then.
    pub fn hive_freshness(&self, heard: Instant, broken: bool) -> Freshness {
        // Silence is at most age, and nearly always the same: the pauses of the queen need not be looked at.
        if !broken && self.now.saturating_duration_since(heard) <= self.limits.stale {
            return Freshness::Live;
        }
        let by_age = self.limits.freshness(self.pardon.silence(heard, self.now));
        if broken { by_age.max(Freshness::Stale) } else { by_age }
    }
}

/// One hive, seen now.
#[derive(Clone, Copy)]
pub struct SeenHive<'a> {
    hive: &'a KnownHive,
    moment: &'a Moment,
}

impl<'a> SeenHive<'a> {
    pub(super) fn new(hive: &'a KnownHive, moment: &'a Moment) -> Self {
        Self { hive, moment }
    }

    /// Its name.
    pub fn id(&self) -> &'a HiveId {
        &self.hive.id
    }

    /// What it says of itself.
    pub fn record(&self) -> &'a proto::Hive {
        &self.hive.info
    }

    /// How old its newest sample is.
    pub fn age(&self) -> Duration {
        self.moment.now.saturating_duration_since(self.hive.taken)
    }

    /// How far it may be trusted.
    pub fn freshness(&self) -> Freshness {
        self.moment.hive_freshness(self.hive.taken, self.hive.broken)
    }

    /// Whether its stream is broken.
    pub fn is_broken(&self) -> bool {
        self.hive.broken
    }

    /// So many places its workers may have.
    pub fn places(&self) -> usize {
        self.hive.places()
    }

    /// The worker of this name.
    pub fn named(&self, id: &WorkerId) -> Option<Seen<'a>> {
        self.worker(self.hive.place_of(id)?)
    }

    /// The worker at a place.
    pub fn worker(&self, place: u32) -> Option<Seen<'a>> {
        let (hive, moment) = (self.hive, self.moment);
        self.hive.at(place).map(|worker| Seen { hive, worker, place, moment })
    }

    /// All its workers, in no order.
    pub fn workers(&self) -> impl Iterator<Item = Seen<'a>> {
        let (hive, moment) = (self.hive, self.moment);
        hive.taken_places().filter_map(move |place| Some(Seen { hive, worker: hive.at(place)?, place, moment }))
    }
}

/// One worker, seen now.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    hive: &'a KnownHive,
    worker: &'a KnownWorker,
    place: u32,
    moment: &'a Moment,
}

impl<'a> Seen<'a> {
    /// Its name on its hive.
    pub fn id(&self) -> &'a WorkerId {
        &self.worker.id
    }

    /// Its hive.
    pub fn on(&self) -> SeenHive<'a> {
        SeenHive { hive: self.hive, moment: self.moment }
    }

    /// Its hive's name.
    pub fn hive(&self) -> &'a HiveId {
        &self.hive.id
    }

    /// What holds it.
    pub fn hold(&self) -> Option<&'a proto::Hold> {
        self.hive.info.holds.get(self.hive.seat.hold(&self.worker.id)?)
    }

    /// The record of its hive, as the hive sent it.
    pub fn record(&self) -> &proto::Hive {
        &self.hive.info
    }

    /// The reservation that holds it, by its hive's record.
    pub fn reservation(&self) -> Option<&str> {
        self.hold().map(|hold| hold.reservation.as_str())
    }

    /// What it is.
    pub fn spec(&self) -> &'a Arc<Spec> {
        &self.worker.spec
    }

    /// A `WorkerState` as it came.
    pub fn state(&self) -> i32 {
        self.worker.state
    }

    /// Its numbers.
    pub fn stats(&self) -> Option<&'a Measured> {
        self.hive.stats(self.place)
    }

    /// How old its last good sample is; absent before the first.
    pub fn age(&self) -> Option<Duration> {
        self.worker.good.map(|good| self.moment.now.saturating_duration_since(good))
    }

    /// Since when it has been idle, on the queen's clock.
    pub fn idle_from(&self) -> Option<Instant> {
        self.worker.idle_from
    }

    /// For how long it has been idle.
    pub fn idle_for(&self) -> Option<Duration> {
        self.worker.idle_from.map(|from| self.moment.now.saturating_duration_since(from))
    }

    /// How far its numbers may be trusted.
    pub fn freshness(&self) -> Freshness {
        let Moment { now, limits, pardon } = self.moment;
        // A young sample is fresh whatever the queen's own pauses were, unless its hive is not.
        let hive = self.on().freshness();
        if hive == Freshness::Live && self.age().is_some_and(|age| age <= limits.stale) {
            return Freshness::Live;
        }
        hive.max(self.worker.freshness_at(*now, limits, pardon))
    }

    /// Whether it is known to be idle. Unknown is never idle.
    pub fn is_idle(&self) -> bool {
        self.stats().is_some_and(is_idle)
    }

    /// How long it has been running: its hive's clock up to the newest sample, the queen's since.
    fn uptime(&self) -> Option<Duration> {
        let start = common::from_timestamp(self.worker.spec.start_time.as_ref()?)?;
        let sampled = common::from_timestamp(self.hive.sampled_at.as_ref()?)?;
        let up = sampled.duration_since(start).ok()?;
        up.checked_add(self.moment.now.saturating_duration_since(self.hive.taken))
    }

    /// As unary calls answer it.
    pub fn to_wire(&self) -> proto::Worker {
        proto::Worker { spec: Some(self.worker.spec.whole()), ..self.to_wire_bare() }
    }

    /// The same without its spec.
    pub fn to_wire_bare(&self) -> proto::Worker {
        let mut stats = self.stats().map(Measured::row);
        if let Some(stats) = &mut stats {
            stats.uptime = self.uptime().map(common::duration);
        }
        proto::Worker {
            slot: self.worker.slot(),
            spec: None,
            stats,
            state: self.worker.state,
            age: self.age().map(common::duration),
            freshness: self.freshness().into(),
            reservation: self.hold().map(|hold| hold.reservation.clone()).unwrap_or_default(),
        }
    }
}

/// Counts over the whole fleet, as bookmarks carry them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Census {
    /// LIVE workers.
    pub workers_online: u32,
    /// LIVE, running, not known to be unready, idle and not held.
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
    /// Now, as far as freshness is concerned.
    pub fn moment(&self, now: Instant) -> Moment {
        Moment { now, limits: self.bounds.limits, pardon: self.pardon(now) }
    }

    /// Looks at every worker, in no order. With `only`, at those of one hive. `look` must not call the fleet.
    pub fn walk(&self, now: Instant, only: Option<&HiveId>, mut look: impl FnMut(&Seen<'_>)) {
        let moment = self.moment(now);
        let mut each = |hive: &KnownHive| SeenHive { hive, moment: &moment }.workers().for_each(|seen| look(&seen));
        match only {
            Some(id) => {
                if let Some(hive) = self.hives.get(id) {
                    each(&hive);
                }
            }
            None => self.hives.iter().for_each(|hive| each(&hive)),
        }
    }

    /// Looks at one hive, if it is known. `look` must not call the fleet.
    pub fn visit<T>(&self, moment: &Moment, id: &HiveId, look: impl FnOnce(SeenHive<'_>) -> T) -> Option<T> {
        self.hives.get(id).map(|hive| look(SeenHive { hive: &hive, moment }))
    }

    /// One worker.
    pub fn worker(&self, now: Instant, hive: &HiveId, id: &WorkerId) -> Option<proto::Worker> {
        let hive = self.hives.get(hive)?;
        let place = hive.place_of(id)?;
        Some(SeenHive { hive: &hive, moment: &self.moment(now) }.worker(place)?.to_wire())
    }

    /// Looks at every hive, in no order. `look` must not call the fleet.
    pub fn walk_hives(&self, now: Instant, mut look: impl FnMut(&proto::Hive, Freshness)) {
        let (limits, pardon) = (self.bounds.limits, self.pardon(now));
        for hive in &self.hives {
            look(&hive.info, hive.freshness_at(now, &limits, &pardon));
        }
    }

    /// Looks at one hive's record; `None` when it is not known. `look` must not call the fleet.
    pub fn look_at<T>(&self, now: Instant, id: &HiveId, look: impl FnOnce(&proto::Hive, Freshness) -> T) -> Option<T> {
        let (limits, pardon) = (self.bounds.limits, self.pardon(now));
        self.hives.get(id).map(|hive| look(&hive.info, hive.freshness_at(now, &limits, &pardon)))
    }

    /// One hive.
    pub fn hive(&self, now: Instant, id: &HiveId) -> Option<proto::Hive> {
        self.hives.get(id).map(|hive| self.hive_to_wire(&hive, now))
    }

    /// All hives from this name on, in the order of their names.
    pub fn names_from(&self, first: Option<&HiveId>) -> Vec<HiveId> {
        let from = |id: &HiveId| first.is_none_or(|first| id >= first);
        let mut names: Vec<HiveId> =
            self.hives.iter().filter(|hive| from(&hive.id)).map(|hive| hive.id.clone()).collect();
        names.sort_unstable();
        names
    }

    /// All hives whose name comes after `after`, in the order of their names, at most `limit`.
    pub fn hives_after(&self, now: Instant, after: Option<&HiveId>, limit: usize) -> Vec<proto::Hive> {
        let names = self.names_from(after).into_iter().filter(|name| Some(name) != after);
        names.filter_map(|name| self.hive(now, &name)).take(limit).collect()
    }

    fn hive_to_wire(&self, hive: &KnownHive, now: Instant) -> proto::Hive {
        proto::Hive {
            freshness: hive.freshness_at(now, &self.bounds.limits, &self.pardon(now)).into(),
            age: Some(common::duration(now.saturating_duration_since(hive.taken))),
            worker_count: u32::try_from(hive.count()).unwrap_or(u32::MAX),
            ..hive.info.clone()
        }
    }

    /// How much of the fleet an answer speaks for.
    pub fn coverage(&self, now: Instant) -> Coverage {
        let (known, live) = self.index.census(&self.moment(now));
        let freeze = self.freeze.lock().unwrap_or_else(PoisonError::into_inner);
        let short = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Coverage {
            hives_known: short(known),
            hives_live: short(live),
            queen_uptime: Some(common::duration(now.saturating_duration_since(self.started))),
            removal_frozen: freeze.holds(&self.pardon(now), now),
        }
    }

    /// Counts everything.
    pub fn census(&self, now: Instant) -> Census {
        let mut census = Census::default();
        let moment = self.moment(now);
        for hive in &self.hives {
            let hive = hive.value();
            let view = SeenHive { hive, moment: &moment };
            if view.freshness() != Freshness::Live {
                continue;
            }
            census.hives_online += 1;
            let ready = hive.info.operational_status == i32::from(OperationalStatus::Ready);
            census.hives_available += u32::from(ready);
            census.name_hive(&hive.id);
            for seen in view.workers() {
                if seen.freshness() != Freshness::Live {
                    continue;
                }
                census.workers_online += 1;
                // As finds judge, or somebody would look for what is counted here.
                let flags = Flags::of(seen.state(), seen.stats(), seen.hold().is_some());
                census.workers_available += u32::from(flags.ready && flags.idle && !flags.held);
                census.name_worker(&hive.id, seen.id());
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
