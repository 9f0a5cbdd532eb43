//! How large the index is and what it was good for: for the queen's own metrics.

use super::Feed;
use std::sync::atomic::{AtomicU64, Ordering};

/// Messages of watches, counted as they are made.
#[derive(Debug, Default)]
pub struct Told {
    /// Encoded.
    pub made: AtomicU64,
    /// Given to one more watcher as they were.
    pub shared: AtomicU64,
    /// States that were replaced before a watcher was told.
    pub conflated: AtomicU64,
    /// Watches for which there was no class any more.
    pub classes_refused: AtomicU64,
}

impl Told {
    pub(super) fn made(&self, conflated: u64) {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.conflated.fetch_add(conflated, Ordering::Relaxed);
    }

    pub(super) fn class_refused(&self) {
        self.classes_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The newest revision.
    pub revision: u64,
    /// Objects that are there.
    pub live: usize,
    /// Removals that are remembered.
    pub tombstones: usize,
    /// Messages that are kept for others to share.
    pub pages: usize,
}

impl Feed {
    /// What is held now.
    pub fn sizes(&self) -> Sizes {
        let pages = self.desk.shelf().len();
        let inner = self.lock();
        let tombstones = inner.gone.len();
        Sizes { revision: inner.revision, live: inner.objects.len() - tombstones, tombstones, pages }
    }

    /// What watchers were told.
    pub fn told(&self) -> &Told {
        &self.told
    }
}
