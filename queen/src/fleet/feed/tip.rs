//! What may be known of the index without its lock: as many as watch read at the same time, on as many processors as there are.

use super::Inner;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the index goes, as it stood when its lock was last given back by somebody who changed it. Whoever is woken by a
/// change finds that change here.
#[derive(Debug, Default)]
pub(super) struct Tip {
    revision: AtomicU64,
    beat: AtomicU64,
    forgotten: AtomicU64,
}

impl Tip {
    /// To be called before the lock is given back.
    pub fn tell(&self, inner: &Inner) {
        for (told, now) in
            [(&self.revision, inner.revision), (&self.beat, inner.beat), (&self.forgotten, inner.forgotten)]
        {
            // What is as it was stays in everybody's caches.
            if told.load(Ordering::Relaxed) != now {
                told.store(now, Ordering::Release);
            }
        }
    }

    /// The newest revision and the newest beat.
    pub fn tip(&self) -> (u64, u64) {
        (self.revision.load(Ordering::Acquire), self.beat.load(Ordering::Acquire))
    }

    /// The newest revision of a removal that has been forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }
}
