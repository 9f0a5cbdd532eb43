//! Counts over the whole fleet for the queen's own metrics: by freshness, and how often a bound of the fleet was met.

use super::Fleet;
use proto::Freshness;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Refusals by the fleet's own bounds.
#[derive(Debug, Default)]
pub struct Refused {
    hives: AtomicU64,
    workers: AtomicU64,
    frame_bytes: AtomicU64,
}

impl Refused {
    pub(super) fn hive(&self) {
        self.hives.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn workers(&self) {
        self.workers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn frame_bytes(&self) {
        self.frame_bytes.fetch_add(1, Ordering::Relaxed);
    }
}

/// A bound: how many there are, may be, and were refused. `None`: nobody counts that.
pub type Met = (Option<usize>, usize, Option<u64>);

/// The fleet in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Hives that are LIVE, STALE and LOST.
    pub hives: [usize; 3],
    /// Workers that are.
    pub workers: [usize; 3],
    /// Hives.
    pub bound_hives: Met,
    /// Workers of the hive that has most.
    pub bound_workers: Met,
    /// Bytes of a frame.
    pub bound_frame_bytes: Met,
}

impl Fleet {
    /// Counts everything now. Looks at every worker.
    pub fn tally(&self, now: Instant) -> Tally {
        let (limits, pardon) = (self.bounds.limits, self.pardon(now));
        let (mut hives, mut workers, mut most) = ([0; 3], [0; 3], 0);
        for hive in &self.hives {
            hives[place(hive.freshness_at(now, &limits, &pardon))] += 1;
            most = most.max(hive.count());
        }
        self.walk(now, None, |seen| workers[place(seen.freshness())] += 1);
        let refused = |count: &AtomicU64| Some(count.load(Ordering::Relaxed));
        Tally {
            hives,
            workers,
            bound_hives: (Some(hives.iter().sum()), self.bounds.max_hives, refused(&self.refused.hives)),
            bound_workers: (Some(most), self.bounds.max_workers, refused(&self.refused.workers)),
            bound_frame_bytes: (None, self.bounds.max_frame_bytes, refused(&self.refused.frame_bytes)),
        }
    }
}

fn place(freshness: Freshness) -> usize {
    match freshness {
        Freshness::Live => 0,
        Freshness::Stale => 1,
        Freshness::Lost | Freshness::Unspecified => 2,
    }
}
