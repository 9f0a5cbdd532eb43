//! A class of watchers that want the same: what they are shown is worked out and encoded once for all of them. A class
//! follows the index like a watcher and keeps what it shows in an index of its own, under the same revisions.

use super::list::{Key, Ordered};
use super::page::SCAN;
use super::shelf::Shelf;
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
    /// As it stands in an update; a removal once `gone`.
    pub bytes: Bytes,
    /// It left the class.
    pub gone: bool,
    /// The revision at which it was first shown: a cursor before it cannot have seen it.
    pub created: u64,
    /// The number of its present state among all that the class has shown.
    pub state: u64,
}

/// A class: made for its first watcher, ended with its last.
#[derive(Debug)]
pub struct Class {
    pub(super) wanted: Wanted,
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
    pub shelf: Shelf,
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
        Self { wanted, view: Mutex::new(View { begun: revision, ..View::default() }) }
    }

    /// The view. Taken before the index is locked, never after.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        // No user code runs inside, so a poisoned lock still guards a whole list.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
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
        for (key, revision, object) in newer.by_ref().take(SCAN) {
            self.take(key, revision, object, wanted);
            (self.reached, self.hint) = (revision, Some(key));
        }
        // The newest revision may be that of a removal that has been forgotten: no object stands there any more.
        if newer.next().is_none() {
            self.reached = inner.revision;
        }
    }

    fn take(&mut self, key: Key, revision: u64, object: &Object, wanted: &Wanted) {
        let bytes = (!object.gone && wanted.matches(&object.subject)).then(|| wanted.cut(&object.bytes));
        let place = self.places.get(key as usize).copied().unwrap_or(NONE);
        let state = self.states + 1;
        match (self.objects.get_mut(place), bytes) {
            (Some(shown), Some(bytes)) => {
                // What the mask hides is no news.
                if !shown.gone && shown.bytes == bytes {
                    return;
                }
                (shown.bytes, shown.gone, shown.state) = (bytes, false, state);
                self.objects.advance(place, revision);
            }
            (Some(shown), None) if !shown.gone => {
                (shown.bytes, shown.gone, shown.state) = (object.subject.removal(), true, state);
                self.objects.advance(place, revision);
                self.left(revision, place);
            }
            (None, Some(bytes)) => {
                let shown = Shown { source: key, bytes, gone: false, created: revision, state };
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
