//! What is counted where it happens.

use crate::guard::Knocks;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a queen since it started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls refused for want of a token or a role.
    pub knocks: Knocks,
    frames_accepted: AtomicU64,
    frames_refused: AtomicU64,
    frames_replayed: AtomicU64,
    samples: AtomicU64,
    fields_dropped: AtomicU64,
    renewed: AtomicU64,
    not_renewed: AtomicU64,
}

/// The counts of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry {
    /// Frames that were applied.
    pub frames_accepted: u64,
    /// Frames over a bound.
    pub frames_refused: u64,
    /// Frames that had been there before.
    pub frames_replayed: u64,
    /// Samples of single workers.
    pub samples: u64,
    /// Single numbers that cannot be true.
    pub fields_dropped: u64,
}

impl Counts {
    /// A frame was applied.
    pub fn accepted(&self, samples: u64, dropped: u64) {
        self.frames_accepted.fetch_add(1, Ordering::Relaxed);
        self.samples.fetch_add(samples, Ordering::Relaxed);
        if dropped > 0 {
            self.fields_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// A frame was over a bound.
    pub fn refused(&self) {
        self.frames_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame had been there before.
    pub fn replayed(&self) {
        self.frames_replayed.fetch_add(1, Ordering::Relaxed);
    }

    /// A certificate or the tokens had changed and were read again, or could not be used.
    pub fn renewed(&self, good: bool) {
        let count = if good { &self.renewed } else { &self.not_renewed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was done, and how often it failed.
    pub fn renewals(&self) -> [(&'static str, u64); 2] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("done", load(&self.renewed)), ("failed", load(&self.not_renewed))]
    }

    /// How telemetry stands.
    pub fn telemetry(&self) -> Telemetry {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Telemetry {
            frames_accepted: load(&self.frames_accepted),
            frames_refused: load(&self.frames_refused),
            frames_replayed: load(&self.frames_replayed),
            samples: load(&self.samples),
            fields_dropped: load(&self.fields_dropped),
        }
    }
}
