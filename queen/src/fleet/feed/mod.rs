//! The latest-revision index: every object once, at its newest revision. Revisions are allotted inside the one lock
//! that links the objects, and readers take their upper bound under it, so no number appears behind a cursor.

mod beat;
mod class;
mod classes;
mod followers;
mod list;
mod message;
#[cfg(test)]
pub(crate) mod mirror;
#[cfg(test)]
mod model;
mod numbers;
mod page;
mod revision;
mod shelf;
mod sizes;
mod telling;
mod tip;
mod wanted;
mod watched;

pub use beat::Beat;
pub use class::Class;
pub use classes::TooManyClasses;
pub use followers::{Bell, Following, INTERVALS, Rhythm, Why};
pub use list::{AHEAD, Key};
pub use message::Message;
pub use numbers::slot;
pub use page::{Place, Read};
pub use revision::Revision;
pub use sizes::{Sizes, Told};
pub use telling::{News, Telling};
pub use wanted::Wanted;

use super::Spec;
use super::filter;
use super::object;
use beat::LastBeat;
use bytes::Bytes;
use followers::Followers;
use list::Ordered;
use page::SCAN;
use proto::Filter;
use shelf::Desk;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tip::Tip;
use watched::Watched;

/// A removal is remembered for this long. Who missed it after that starts over with a snapshot.
const TOMBSTONE_AGE: Duration = Duration::from_secs(600);
/// At most as many removals are remembered as there are live objects, but always this many: the last workers of a
/// small fleet must not cost its watchers a snapshot each.
const TOMBSTONES_MIN: usize = 1_024;

/// What an object is, as far as filters ask.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A worker.
    Worker {
        /// What it is.
        spec: Arc<Spec>,
        /// A `WorkerState` as it came.
        state: i32,
    },
    /// A hive.
    Hive {
        /// Its name.
        id: Arc<str>,
    },
}

impl Subject {
    /// `hive/group/instance`, or the hive's name: no worker has a name without a slash.
    fn name(&self) -> String {
        match self {
            Self::Worker { spec, .. } => spec.name().to_owned(),
            Self::Hive { id } => id.to_string(),
        }
    }

    fn matches(&self, filter: &Filter) -> bool {
        match self {
            Self::Worker { spec, state } => filter::matches(filter, spec, *state),
            Self::Hive { id } => filter::matches_hive(filter, id),
        }
    }

    fn removal(&self) -> Bytes {
        object::removal(&self.name(), matches!(self, Self::Worker { .. }))
    }
}

/// In this order: what every reader and every change look at stands in the first lines of the processor's cache.
#[derive(Debug)]
#[repr(C)]
struct Object {
    /// The revision before the present one.
    prior: u64,
    /// The revision at which more than its numbers last changed.
    detailed: u64,
    /// The revision at which the name appeared: a cursor before it cannot have seen it.
    created: u64,
    gone: bool,
    /// So many states it has had.
    states: u32,
    /// As it stands in an update; a removal once `gone`.
    bytes: Telling,
    /// The revision at which a field that filters look at last changed.
    refiltered: u64,
    subject: Subject,
}

#[derive(Debug, Default)]
struct Inner {
    revision: u64,
    beat: u64,
    objects: Ordered<Object>,
    beats: Ordered<LastBeat>,
    gone: HashMap<String, Key>,
    tombstones: VecDeque<(Key, u64, Instant)>,
    /// The newest revision of a removal that has been forgotten.
    forgotten: u64,
    /// So many objects are looked at for one page.
    scan: u64,
}

impl Inner {
    fn begin(&mut self, revision: u64, subject: Subject, bytes: Telling) -> Key {
        let (created, refiltered, detailed) = (revision, revision, revision);
        let object = Object { subject, bytes, gone: false, states: 1, created, refiltered, detailed, prior: 0 };
        let key = self.objects.push(revision, object);
        if let Some(object) = self.objects.get_mut(key) {
            object.bytes.name(slot(key));
        }
        key
    }

    fn forget(&mut self, now: Instant) {
        let room = TOMBSTONES_MIN.max(self.objects.len() - self.gone.len());
        while let Some((key, revision, at)) = self.tombstones.front().copied() {
            let current = self.objects.number(key) == Some(revision);
            if current && self.gone.len() <= room && now.saturating_duration_since(at) < TOMBSTONE_AGE {
                return;
            }
            self.tombstones.pop_front();
            if current && let Some(object) = self.objects.remove(key) {
                self.gone.remove(&object.subject.name());
                self.forgotten = self.forgotten.max(revision);
            }
        }
    }
}

/// The index. Cheap to share; all methods take `&self`.
#[derive(Debug)]
pub struct Feed {
    instance: String,
    inner: Mutex<Inner>,
    tip: Tip,
    desk: Desk,
    classes: Mutex<Vec<Weak<Class>>>,
    max_classes: usize,
    followers: Arc<Followers>,
    watched: Watched,
    told: Told,
}

impl Feed {
    /// An empty index. `instance` tells this queen's revisions from those of all others. At most `max_classes`
    /// different filters and masks are watched at once.
    pub fn new(instance: String, max_classes: usize) -> Self {
        let inner = Mutex::new(Inner { scan: SCAN, ..Inner::default() });
        let (desk, classes) = (Desk::default(), Mutex::default());
        let (watched, told) = (Watched::default(), Told::default());
        let (tip, followers) = (Tip::default(), Arc::default());
        Self { instance, inner, tip, desk, classes, max_classes, followers, watched, told }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No user code runs inside, so a poisoned lock still guards a whole list.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What names this queen's run.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// A revision as text for the wire.
    pub fn name_revision(&self, revision: Revision) -> String {
        format!("{}:{revision}", self.instance)
    }

    /// The newest revision as text for the wire.
    pub fn name_tip(&self) -> String {
        self.name_revision(Revision::at(self.revision()))
    }

    /// Opens the index for linking. Whoever holds the writer must not wait for anything.
    pub fn write(&self, now: Instant) -> Writer<'_> {
        let inner = self.lock();
        let before = inner.revision + inner.beat;
        let news = Unheard { followers: &self.followers, before, now: before };
        Writer { tip: &self.tip, inner, news, now, passed_over: 0 }
    }

    /// Forgets removals that are too old.
    pub fn forget(&self, now: Instant) {
        let mut inner = self.lock();
        inner.forget(now);
        self.tip.tell(&inner);
    }
}

/// The locked index. Once it is unlocked again those who follow are woken.
pub struct Writer<'a> {
    tip: &'a Tip,
    // Dropped in this order: nobody is woken only to wait for the lock.
    inner: MutexGuard<'a, Inner>,
    news: Unheard<'a>,
    now: Instant,
    passed_over: u32,
}

/// Revisions and beats together, as they were and as they are.
struct Unheard<'a> {
    followers: &'a Followers,
    before: u64,
    now: u64,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if self.now != self.before {
            self.followers.changed(self.now);
        }
    }
}

impl Writer<'_> {
    /// What is put next had so many states that were not linked. Every state has a revision, so that who resumes can be
    /// told how many he was not shown.
    pub fn pass_over(&mut self, states: u32) {
        self.passed_over = states;
    }

    /// Links an object at the next revision, as new where `key` is `None`. `refiltered`: spec or state changed.
    pub fn put(&mut self, key: Option<Key>, subject: Subject, bytes: Bytes, refiltered: bool) -> Key {
        match self.advance(key, || subject.name(), refiltered) {
            Ok((key, object)) => {
                (object.subject, object.bytes) = (subject, bytes.into());
                self.detail(key, true);
                key
            }
            Err(revision) => self.inner.begin(revision, subject, bytes.into()),
        }
    }

    /// The same for a worker, in the room that it has already.
    pub fn put_worker(&mut self, key: Option<Key>, news: &News<'_>) -> Key {
        let subject = || Subject::Worker { spec: Arc::clone(news.spec), state: news.state };
        match self.advance(key, || subject().name(), news.refiltered) {
            Ok((key, object)) => {
                if news.refiltered {
                    object.subject = subject();
                }
                let detailed = object.bytes.renew(news, slot(key));
                self.detail(key, detailed);
                key
            }
            Err(revision) => self.inner.begin(revision, subject(), Telling::worker(news)),
        }
    }

    /// Has workers that are put next on their way from memory.
    pub fn touch(&self, keys: impl Iterator<Item = Key>) {
        let objects = keys.filter_map(|key| self.inner.objects.get(key));
        std::hint::black_box(objects.fold(0, |sum, object| sum ^ object.bytes.touch()));
    }

    /// Notes that more than numbers changed.
    fn detail(&mut self, key: Key, detailed: bool) {
        if let Some(revision) = self.inner.objects.number(key).filter(|_| detailed)
            && let Some(object) = self.inner.objects.get_mut(key)
        {
            object.detailed = revision;
        }
    }

    /// Adds what was left out when an object was linked, before anybody has read it: it is the same state.
    pub fn fill(&mut self, key: Key, news: &News<'_>) {
        if let Some(object) = self.inner.objects.get_mut(key).filter(|object| !object.gone) {
            let detailed = object.bytes.renew(news, slot(key));
            self.detail(key, detailed);
        }
    }

    /// Takes the next revision and moves an object there; `Err` with the revision when there is none under this key or
    /// name.
    fn advance(
        &mut self,
        key: Option<Key>,
        name: impl FnOnce() -> String,
        refiltered: bool,
    ) -> Result<(Key, &mut Object), u64> {
        let passed_over = std::mem::take(&mut self.passed_over);
        let inner = &mut *self.inner;
        inner.revision += u64::from(passed_over) + 1;
        let revision = inner.revision;
        let key = key.or_else(|| if inner.gone.is_empty() { None } else { inner.gone.remove(&name()) });
        let Some((key, prior)) = key.and_then(|key| Some((key, inner.objects.number(key)?))) else {
            return Err(revision);
        };
        inner.objects.advance(key, revision);
        let Some(object) = inner.objects.get_mut(key) else { return Err(revision) };
        if refiltered || object.gone {
            object.refiltered = revision;
        }
        (object.gone, object.prior) = (false, if passed_over > 0 { revision - 1 } else { prior });
        object.states = object.states.wrapping_add(passed_over).wrapping_add(1);
        Ok((key, object))
    }

    /// Links the removal of an object.
    pub fn remove(&mut self, key: Key) {
        let inner = &mut *self.inner;
        let prior = inner.objects.number(key).unwrap_or(0);
        let Some(object) = inner.objects.get_mut(key).filter(|object| !object.gone) else { return };
        inner.revision += 1;
        (object.bytes, object.gone, object.prior) = (object.subject.removal().into(), true, prior);
        inner.gone.insert(object.subject.name(), key);
        inner.objects.advance(key, inner.revision);
        inner.tombstones.push_back((key, inner.revision, self.now));
        // A name that left and came back leaves a mark behind; many such must not outgrow the removals themselves.
        if inner.tombstones.len() > TOMBSTONES_MIN + 2 * inner.gone.len() {
            let objects = &inner.objects;
            inner.tombstones.retain(|(key, revision, _)| objects.number(*key) == Some(*revision));
        }
        inner.forget(self.now);
    }

    /// Notes that a hive was heard from.
    pub fn beat(&mut self, key: Option<Key>, beat: &Beat<'_>) -> Key {
        let inner = &mut *self.inner;
        inner.beat += 1;
        match key.and_then(|key| Some((key, inner.beats.get_mut(key)?))) {
            Some((key, value)) => {
                value.renew(beat);
                inner.beats.advance(key, inner.beat);
                key
            }
            None => inner.beats.push(inner.beat, LastBeat::new(beat)),
        }
    }

    /// A hive that has been removed beats no more.
    pub fn end_beat(&mut self, key: Key) {
        self.inner.beats.remove(key);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.tip.tell(&self.inner);
        self.news.now = self.inner.revision + self.inner.beat;
    }
}

#[cfg(test)]
mod tests;
