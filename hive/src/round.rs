//! The words that sampling and reporting share: one round of samples over all workers.

use crate::roster::Slot;
use std::time::{Instant, SystemTime};

/// One worker in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which worker.
    pub slot: Slot,
    /// Its numbers; `None` when this worker could not be sampled in this round.
    pub stats: Option<proto::ProcessStats>,
}

/// One tick's samples of all workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// When, on the monotonic clock.
    pub taken: Instant,
    /// The same instant on the wall clock.
    pub sampled_at: SystemTime,
    /// Why the whole round failed; `samples` is empty then.
    pub failed: Option<String>,
    /// In ascending order of slots. A worker that ended since is still here: the roster decides who lives.
    pub samples: Vec<Sample>,
    /// The machine's GPUs, as their driver last told.
    pub gpus: Vec<proto::Gpu>,
    /// How much of that can be believed.
    pub gpu_state: proto::GpuSampleState,
}

impl Round {
    /// A round of nothing, for the time before the first tick.
    pub fn empty(taken: Instant, sampled_at: SystemTime) -> Self {
        Self {
            taken,
            sampled_at,
            failed: None,
            samples: Vec::new(),
            gpus: Vec::new(),
            gpu_state: proto::GpuSampleState::Unspecified,
        }
    }
}
