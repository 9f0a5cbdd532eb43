//! What a grant is decided from: the moment, the GPUs as their drivers told last, and the workers.

use super::refusal::Refusal;
use crate::gpus::{GpuView, Outcome};
use crate::worker::vram::{self, Promise};
use common::WorkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many GPUs are listed for somebody who names another.
const LISTED_MAX: usize = 16;

/// A moment, on the clock that decides and on the one that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the machine was started, the time in which it slept included.
    pub boot: Duration,
    /// Since 1970.
    pub unix: Duration,
}

impl Now {
    /// This machine's.
    pub fn real() -> Self {
        Self {
            boot: crate::worker::procfs::since_boot().unwrap_or_default(),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// So much later, on both clocks, in nanoseconds.
    pub fn after(&self, length: Duration) -> (u64, u64) {
        let nanos = |at: Duration| u64::try_from(at.saturating_add(length).as_nanos()).unwrap_or(u64::MAX);
        (nanos(self.boot), nanos(self.unix))
    }
}

/// The machine as a grant sees it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The GPUs.
    pub view: Arc<GpuView>,
    /// When that is looked at.
    pub at: Instant,
    /// What was promised to workers without a reservation.
    pub promises: Vec<Promise>,
    /// Bytes that workers use, by worker and GPU.
    pub used: BTreeMap<(String, String), u64>,
    /// Processes of workers.
    pub ours: BTreeSet<u32>,
    /// Of the workers that are wished for, those that are here; and why one cannot be held.
    pub workers: BTreeMap<WorkerId, Result<(), String>>,
}

impl Scene {
    /// How many bytes a worker uses of a GPU.
    pub fn used(&self, worker: &str, gpu: &str) -> u64 {
        self.used.get(&(worker.to_owned(), gpu.to_owned())).copied().unwrap_or(0)
    }

    /// The position of a GPU that is named by its UUID. Of a driver that does not answer, any: what it lacks is told
    /// where room is looked for.
    pub fn gpu(&self, uuid: &str) -> Result<usize, Refusal> {
        let devices = &self.view.round.devices;
        match devices.iter().position(|device| device.uuid == uuid) {
            Some(at) => Ok(at),
            None if self.view.round.outcome != Outcome::Answered => Ok(usize::MAX),
            None => {
                let name = |at| format!("{} is {}", vram::named(&self.view, at), devices[at].uuid);
                let mut list: Vec<String> = (0..devices.len()).take(LISTED_MAX).map(name).collect();
                if devices.len() > LISTED_MAX {
                    list.push(format!("and {} more", devices.len() - LISTED_MAX));
                }
                let there = if list.is_empty() { "there is none here".to_owned() } else { list.join("; ") };
                Err(Refusal::NoSuchGpu { uuid: uuid.to_owned(), there })
            }
        }
    }
}
