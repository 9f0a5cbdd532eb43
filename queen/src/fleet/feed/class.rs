//! A class of watchers that want the same: what they are shown is worked out and encoded once for all of them. A class
//! follows the index like a watcher and keeps what it shows in an index of its own, under the same revisions. One that has neither
//! filter nor mask reads the index itself: what it shows of an object follows from the object alone.

use super::list::{Key, Ordered};
use super::page::{Part, Place};
use super::shelf::Desk;
use super::wanted::Wanted;
use super::{Inner, Object, TOMBSTONES_MIN};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// No object of the class stands for an object of the index.
const NONE: Key = Key::MAX;

/// What is shown of one object.
#[derive(Debug)]
pub(super) struct Shown {
    /// The object's key in the index.
    source: Key,
    /// The revision of the index at which it was last looked at.
    seen: u64,
    /// As it stands in an update; a removal once `gone`. `None`: as the index has it, if it is still as it was seen.
    bytes: Option<Bytes>,
    /// It left the class.
    gone: bool,
    /// So many states it had had when it was last looked at.
    had: u32,
    /// The revision at which it was first shown: a cursor before it cannot have seen it.
    created: u64,
    /// The revision at which more than its numbers were news.
    whole: u64,
    /// The number of its present state among all that the class has shown.
    pub state: u64,
}

/// A class: made for its first watcher, ended with its last.
#[derive(Debug)]
pub struct Class {
    pub(super) wanted: Wanted,
    pub(super) desk: Desk,
    view: Mutex<View>,
}

/// What the watchers of a class are shown.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The index has been read up to this revision.
    pub reached: u64,
    pub objects: Ordered<Shown>,
    /// So many states have been shown, one after the other.
    pub states: u64,
    hint: Option<Key>,
    /// Removals up to this revision cannot matter: the view was begun after them.
    begun: u64,
    /// By key of the index.
    places: Vec<Key>,
    /// What left the class, in the order of the revisions.
    gone: VecDeque<(u64, Key)>,
}

impl Class {
    pub(super) fn new(wanted: Wanted, revision: u64) -> Self {
        Self { wanted, desk: Desk::default(), view: Mutex::new(View { begun: revision, ..View::default() }) }
    }

    /// The view. Taken before the index is locked, never after.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // No user code runs inside, so a poisoned lock still guards a whole list.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// What a reader at this place must be told, if anything. Not what the index has already moved on: that comes with a
    /// later page, and until then its reader is not whole.
    pub fn part<'a>(&self, inner: &'a Inner, place: &Place, wanted: &Wanted) -> Option<Part<'a>> {
        let whole = |bytes: &Bytes| Part::Whole(bytes.clone());
        if self.gone {
            return self.bytes.as_ref().filter(|_| self.created <= place.cursor()).map(whole);
        }
        let unmoved = inner.objects.number(self.source) == Some(self.seen);
        let telling = inner.objects.get(self.source).filter(|_| unmoved).map(|object| &object.bytes);
        let numbers = wanted.columns.filter(|_| self.whole <= place.revision().whole);
        let row = numbers.and_then(|numbers| telling?.row(numbers)).map(Part::Numbers);
        row.or_else(|| self.bytes.as_ref().map(whole)).or_else(|| telling.map(|telling| whole(telling)))
    }
}

impl View {
    /// Reads on in the index, but no more than one page may.
    pub fn advance(&mut self, inner: &Inner, wanted: &Wanted) {
        // Whoever reads in this class has read no further than it, and is behind as well.
        if inner.forgotten > self.reached.max(self.begun) {
            *self = Self { begun: inner.revision, ..Self::default() };
        }
        self.forget(inner.forgotten);
        let mut newer = inner.objects.newer(self.reached, self.hint);
        for (key, revision, object) in newer.by_ref().take(inner.scan as usize) {
            self.take(key, revision, object, wanted);
            (self.reached, self.hint) = (revision, Some(key));
        }
        // The newest revision may be that of a removal that has been forgotten: no object stands there any more.
        if newer.next().is_none() {
            self.reached = inner.revision;
        }
    }

    fn take(&mut self, key: Key, revision: u64, object: &Object, wanted: &Wanted) {
        let there = !object.gone && wanted.matches(&object.subject);
        let bytes = there.then(|| (!wanted.can_wait(&object.bytes)).then(|| wanted.cut(&object.bytes)));
        let place = self.places.get(key as usize).copied().unwrap_or(NONE);
        let mut state = self.states + 1;
        match (self.objects.get_mut(place), bytes) {
            (Some(shown), Some(bytes)) => {
                let whole = shown.gone || object.detailed > shown.seen;
                // A mask hides changes, and nobody knows which of those between: they count as none.
                if wanted.mask.is_none() && !shown.gone {
                    state = self.states + u64::from(object.states.wrapping_sub(shown.had).max(1));
                }
                (shown.seen, shown.had) = (revision, object.states);
                // What the mask hides is no news.
                if !shown.gone && bytes.is_some() && shown.bytes == bytes {
                    return;
                }
                (shown.bytes, shown.gone, shown.state) = (bytes, false, state);
                shown.whole = if whole { revision } else { shown.whole };
                self.objects.advance(place, revision);
            }
            (Some(shown), None) if !shown.gone => {
                (shown.bytes, shown.gone, shown.state) = (Some(object.subject.removal()), true, state);
                self.objects.advance(place, revision);
                self.left(revision, place);
            }
            (None, Some(bytes)) => {
                let (seen, created, whole) = (revision, revision, revision);
                let had = object.states;
                let shown = Shown { source: key, seen, bytes, gone: false, had, created, whole, state };
                let place = self.objects.push(revision, shown);
                if self.places.len() <= key as usize {
                    self.places.resize(key as usize + 1, NONE);
                }
                self.places[key as usize] = place;
            }
            _ => return,
        }
        self.states = state;
    }

    fn left(&mut self, revision: u64, place: Key) {
        self.gone.push_back((revision, place));
        // What left and came back leaves a mark behind; many such must not outgrow the objects themselves.
        if self.gone.len() > TOMBSTONES_MIN + 2 * self.objects.len() {
            let objects = &self.objects;
            self.gone.retain(|(revision, place)| objects.number(*place) == Some(*revision));
        }
    }

    /// Forgets what the index has forgotten: who has not read that far starts over. Only then are keys used again, so
    /// none can stand for two objects here.
    fn forget(&mut self, forgotten: u64) {
        while let Some((revision, place)) = self.gone.front().copied().filter(|(revision, _)| *revision <= forgotten) {
            self.gone.pop_front();
            if self.objects.number(place) != Some(revision) {
                continue;
            }
            let Some(shown) = self.objects.remove(place) else { continue };
            if let Some(at) = self.places.get_mut(shown.source as usize).filter(|at| **at == place) {
                *at = NONE;
            }
        }
    }
}

#[cfg(test)]
mod tests;
