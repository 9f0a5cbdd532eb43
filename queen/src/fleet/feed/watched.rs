//! Whether anybody watches. While nobody does, new states of what is linked already may wait; whoever begins to watch has
//! them linked first.

use super::Feed;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// How changes are linked.
#[derive(Debug)]
pub(super) struct Watched {
    /// They may wait while nobody watches.
    lazy: AtomicBool,
    /// Nothing may wait now. Read by whoever changes a hive, under that hive's lock.
    now: AtomicBool,
    /// One at a time begins to watch, or finds that nobody does.
    turn: Mutex<()>,
}

impl Default for Watched {
    fn default() -> Self {
        Self { lazy: AtomicBool::new(false), now: AtomicBool::new(true), turn: Mutex::default() }
    }
}

impl Feed {
    /// From now on states wait while nobody follows: see [`Feed::follow`].
    pub fn link_when_watched(&self) {
        self.watched.lazy.store(true, Ordering::Relaxed);
        self.rest();
    }

    /// Whether new states must be linked now.
    pub fn is_watched(&self) -> bool {
        self.watched.now.load(Ordering::Relaxed)
    }

    /// Lets states wait if nobody watches any more.
    pub fn rest(&self) {
        let _turn = self.watched.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.watched.lazy.load(Ordering::Relaxed) && self.followers.count() == 0 {
            self.watched.now.store(false, Ordering::Relaxed);
        }
    }

    /// To be called by who begins to watch, once he follows. `link` links what waits and takes the lock of
    /// each hive for it: a frame that had that lock before leaves its states to `link`, one that has it later sees that
    /// nothing may wait. So whoever comes out of here has nothing waiting behind him.
    pub(in crate::fleet) fn end_rest(&self, link: impl FnOnce()) {
        let _turn = self.watched.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.watched.now.swap(true, Ordering::Relaxed) {
            link();
        }
    }
}
