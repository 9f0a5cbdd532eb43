//! One hive as the queen knows it: its record, its session, its workers, and which of them must be linked anew.

use super::Spec;
use super::age::{Arrivals, Limits, Pardon};
use super::feed::{Feed, Key, slot};
use super::index::{Index, Seat};
use super::measured::Measured;
use super::row::Checked;
use super::slots::{Pending, Slots, Synced};
use common::{HiveId, WorkerId};
use proto::{Activity, Freshness};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

mod held;
mod link;
mod settle;
mod take;

pub use settle::Judging;

use link::{Stirred, Waiting};

/// How many fenced sessions of a hive are remembered, so that their streams are told why they end.
const FENCED: usize = 4;

/// One worker.
#[derive(Debug)]
pub struct KnownWorker {
    pub id: WorkerId,
    pub spec: Arc<Spec>,
    pub state: i32,
    /// It has numbers.
    measured: bool,
    /// Its only GPU has the numbers that it has itself.
    sole_gpu: bool,
    /// When its last good sample was made.
    pub good: Option<Instant>,
    /// When the queen first heard of it.
    pub known: Instant,
    /// Since when it has been idle, on the queen's clock.
    pub idle_from: Option<Instant>,
    pub freshness: Freshness,
    key: Option<Key>,
    /// Something changed since the index and the feed were told.
    dirty: bool,
    refiltered: bool,
    waiting: Waiting,
    /// It is linked without its numbers, because nobody watched.
    hollow: bool,
}

/// Two stretches of idleness that began within this are one: a hive tells it anew when its clock has moved by a second.
const SAME_STRETCH: Duration = Duration::from_secs(2);

impl KnownWorker {
    pub fn freshness_at(&self, now: Instant, limits: &Limits, pardon: &Pardon) -> Freshness {
        limits.freshness(pardon.silence(self.good.unwrap_or(self.known), now))
    }

    /// What it is called in columns; 0 where no watch knows it yet.
    pub fn slot(&self) -> u32 {
        self.key.map_or(0, slot)
    }

    /// Call when its numbers have been written anew. `idle_for` is what the hive's own clock says.
    fn note_activity(&mut self, stats: Option<&Measured>, was_idle: bool, taken: Instant, idle_for: Option<Duration>) {
        let idle = stats.is_some_and(|stats| stats.activity() == Activity::Idle);
        if !idle {
            self.idle_from = None;
        } else if !was_idle || self.idle_from.is_none() {
            // Never before the last sample at which it was known not to be idle.
            let earliest = self.good;
            let told = taken.checked_sub(idle_for.unwrap_or_default()).unwrap_or(taken);
            // It began when the last one did: the hive's wall clock was set.
            let goes_on = |from: &Instant| told <= *from + SAME_STRETCH && *from <= told + SAME_STRETCH;
            let from = earliest.map_or(told, |earliest| told.max(earliest));
            self.idle_from = Some(self.idle_from.filter(goes_on).unwrap_or(from));
        }
    }
}

/// One hive. Workers are kept at places that stay theirs; a session's slots point at places.
#[derive(Debug)]
pub struct KnownHive {
    pub id: HiveId,
    name: Arc<str>,
    pub info: proto::Hive,
    pub session: String,
    pub epoch: u64,
    /// When its machine asked for the session, on that machine's own clock.
    pub sent: Option<u64>,
    pub fence: CancellationToken,
    pub fenced: VecDeque<(u64, String)>,
    pub streams: u32,
    /// Its stream broke and nothing has come since.
    pub broken: bool,
    /// It ended its stream in order.
    pub goodbye: bool,
    pub sequence: u64,
    pub synced: Synced,
    pub pending: Option<Pending>,
    /// The rest of a refused snapshot is passed over.
    pub skipping: bool,
    /// A frame ended the stream: what comes after it in this session was made for a state that is not held here.
    pub spoilt: bool,
    pub arrivals: Arrivals,
    /// Frames in a row that were late beyond the lost limit.
    pub late: u32,
    /// When something last came.
    pub arrived: Instant,
    /// When the newest sample was made.
    pub taken: Instant,
    pub sampled_at: Option<prost_types::Timestamp>,
    pub freshness: Freshness,
    pub by_slot: Slots,
    by_name: HashMap<WorkerId, u32>,
    workers: Vec<Option<KnownWorker>>,
    /// What of them is measured, at the same places: by itself, because all of it is written each second.
    numbers: Vec<Measured>,
    free: Vec<u32>,
    held: HashMap<WorkerId, Arc<str>>,
    key: Option<Key>,
    beat: Option<Key>,
    pub dirty: bool,
    waiting: Waiting,
    /// What of its workers waits.
    stirred: Stirred,
    /// All of it was live when it was settled, and is until then if nothing changes.
    live_until: Option<Instant>,
    /// It was heard from, and no watcher could be told.
    unheard: bool,
    gone: Vec<Key>,
    /// Its end of the index.
    pub seat: Seat,
}

impl KnownHive {
    pub fn new(id: HiveId, now: Instant) -> Self {
        Self {
            name: Arc::from(id.as_str()),
            id,
            info: proto::Hive::default(),
            session: String::new(),
            epoch: 0,
            sent: None,
            fence: CancellationToken::new(),
            fenced: VecDeque::new(),
            streams: 0,
            broken: false,
            goodbye: false,
            sequence: 0,
            synced: Synced::Never,
            pending: None,
            skipping: false,
            spoilt: false,
            arrivals: Arrivals::new(now),
            late: 0,
            arrived: now,
            taken: now,
            sampled_at: None,
            freshness: Freshness::Live,
            by_slot: Slots::default(),
            by_name: HashMap::new(),
            workers: Vec::new(),
            numbers: Vec::new(),
            free: Vec::new(),
            held: HashMap::new(),
            key: None,
            beat: None,
            dirty: true,
            waiting: Waiting::default(),
            stirred: Stirred::default(),
            live_until: None,
            unheard: false,
            gone: Vec::new(),
            seat: Seat::default(),
        }
    }

    /// Starts a session; the one before is fenced.
    pub fn begin(&mut self, now: Instant, session: String, epoch: u64, info: proto::Hive) {
        self.fence.cancel();
        self.fence = CancellationToken::new();
        let token = session.rsplit('/').next().unwrap_or_default().to_owned();
        self.fenced.push_back((epoch, token));
        if self.fenced.len() > FENCED {
            self.fenced.pop_front();
        }
        (self.session, self.epoch, self.info) = (session, epoch, info);
        (self.streams, self.sequence) = (0, 0);
        (self.synced, self.pending, self.skipping, self.late) = (Synced::Never, None, false, 0);
        self.spoilt = false;
        (self.arrivals, self.arrived, self.goodbye) = (Arrivals::new(now), now, false);
        self.by_slot.clear();
        self.note_holds();
        self.dirty = true;
    }

    /// How fresh the hive itself is.
    pub fn freshness_at(&self, now: Instant, limits: &Limits, pardon: &Pardon) -> Freshness {
        let by_age = limits.freshness(pardon.silence(self.taken, now));
        if self.broken { by_age.max(Freshness::Stale) } else { by_age }
    }

    /// The places at which there are workers.
    pub fn taken_places(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.workers).filter_map(|(place, worker)| worker.as_ref().map(|_| place))
    }

    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    pub fn place_of(&self, id: &WorkerId) -> Option<u32> {
        self.by_name.get(id).copied()
    }

    pub fn at(&self, place: u32) -> Option<&KnownWorker> {
        self.workers.get(place as usize)?.as_ref()
    }

    /// The numbers of the worker at a place.
    pub fn stats(&self, place: u32) -> Option<&Measured> {
        self.at(place).filter(|worker| worker.measured)?;
        self.numbers.get(place as usize)
    }

    /// Keeps a row under its name, new or changed; answers its place.
    pub fn place(&mut self, row: Checked, taken: Instant, now: Instant) -> u32 {
        let idle_for = self.idle_for(row.stats.as_ref());
        let place = match self.by_name.get(&row.id) {
            Some(place) => *place,
            None => self.make_room(&row, now),
        };
        let Some(worker) = self.workers.get_mut(place as usize).and_then(Option::as_mut) else { return place };
        if worker.state != row.state || worker.spec != row.spec {
            (worker.state, worker.spec) = (row.state, row.spec);
            (worker.dirty, worker.refiltered) = (true, true);
        }
        worker.sole_gpu = false;
        let Some(numbers) = self.numbers.get_mut(place as usize) else { return place };
        let before = worker.measured.then_some(&*numbers);
        let same = match (before, &row.stats) {
            (Some(before), Some(after)) => before.is(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !same {
            let same_idleness = same_idleness(before, row.stats.as_ref());
            worker.note_activity(row.stats.as_ref(), same_idleness, taken, idle_for);
            worker.measured = row.stats.is_some();
            *numbers = row.stats.unwrap_or_default();
            worker.dirty = true;
        }
        if worker.measured {
            worker.good = worker.good.max(Some(taken));
        }
        place
    }

    /// Makes room for so many more workers, and no more than that: there are as many such lists as hives.
    pub fn reserve(&mut self, more: usize) {
        let more = more.saturating_sub(self.free.len());
        self.workers.reserve_exact(more);
        self.numbers.reserve_exact(more);
        self.by_name.reserve(more);
    }

    fn make_room(&mut self, row: &Checked, now: Instant) -> u32 {
        let worker = KnownWorker {
            id: row.id.clone(),
            spec: Arc::clone(&row.spec),
            state: row.state,
            measured: false,
            sole_gpu: false,
            good: None,
            known: now,
            idle_from: None,
            freshness: Freshness::Live,
            key: None,
            dirty: true,
            refiltered: true,
            waiting: Waiting::default(),
            hollow: false,
        };
        let place = self.free.pop().unwrap_or(self.workers.len() as u32);
        match self.workers.get_mut(place as usize) {
            Some(room) => *room = Some(worker),
            None => {
                self.workers.push(Some(worker));
                self.numbers.push(Measured::default());
            }
        }
        self.by_name.insert(row.id.clone(), place);
        self.dirty = true;
        place
    }

    /// Every worker but those at `except` (ascending) was sampled at `taken`.
    pub fn sampled(&mut self, taken: Instant, except: &[u32]) -> u64 {
        let mut count = 0;
        for (place, worker) in self.workers.iter_mut().enumerate() {
            let Some(worker) = worker else { continue };
            if except.is_empty() || except.binary_search(&(place as u32)).is_err() {
                worker.good = worker.good.max(Some(taken));
                count += 1;
            }
        }
        count
    }

    /// Forgets the worker at a place.
    pub fn leave(&mut self, place: u32) {
        let Some(worker) = self.workers.get_mut(place as usize).and_then(Option::take) else { return };
        self.by_name.remove(&worker.id);
        self.numbers[place as usize] = Measured::default();
        self.free.push(place);
        self.gone.extend(worker.key);
        self.seat.vacate(place);
        self.dirty = true;
    }

    /// Forgets all workers but those at the places named.
    pub fn keep_only(&mut self, keep: impl Fn(u32) -> bool) {
        let leaving: Vec<u32> = (0..self.workers.len() as u32).filter(|place| !keep(*place)).collect();
        for place in leaving {
            self.leave(place);
        }
    }

    /// The hive itself is gone.
    pub fn end(&mut self, feed: &Feed, index: &Index, now: Instant) {
        self.keep_only(|_| false);
        self.seat.give_up(index);
        let mut writer = feed.write(now);
        for key in self.gone.drain(..).chain(self.key.take()) {
            writer.remove(key);
        }
        if let Some(beat) = self.beat.take() {
            writer.end_beat(beat);
        }
    }

    fn idle_for(&self, stats: Option<&Measured>) -> Option<Duration> {
        idle_for(self.sampled_at.as_ref(), stats)
    }
}

/// How long a worker has been idle by its hive's own clock: a difference, so the clock's setting does not matter.
fn idle_for(sampled_at: Option<&prost_types::Timestamp>, stats: Option<&Measured>) -> Option<Duration> {
    let since = common::from_timestamp(&stats?.idle_since()?)?;
    common::from_timestamp(sampled_at?)?.duration_since(since).ok()
}

/// Whether two samples speak of the same stretch of idleness.
fn same_idleness(before: Option<&Measured>, after: Option<&Measured>) -> bool {
    let idle = |stats: &Measured| stats.activity() == Activity::Idle;
    match (before, after) {
        (Some(before), Some(after)) => idle(before) && idle(after) && before.idle_since() == after.idle_since(),
        _ => false,
    }
}
