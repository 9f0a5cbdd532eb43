//! The ledger without workers and drivers: a scene is made up, the clock is set, and the file is on a memory disk.

mod disk;
mod holding;
mod model;
mod schedules;
mod using;

use super::sync::Mutex as Lock;
use super::*;
use crate::gpus::{Device, GpuRound, GpuView, Outcome};
use crate::worker::vram::Promise;
use common::WorkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const G: u64 = 1 << 30;
/// What a queen asks for first.
const TTL: Duration = Duration::from_secs(5);

/// A state directory and a clock.
struct Place {
    state: tempfile::TempDir,
    now: Arc<Mutex<Duration>>,
    boot: String,
}

impl Place {
    fn new() -> Self {
        // Memory, where there is such a place: a long run syncs a million times.
        let memory = Path::new("/dev/shm");
        let state = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let now = Arc::new(Mutex::new(Duration::from_secs(1000)));
        Self { state: state.unwrap(), now, boot: "boot".to_owned() }
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Arc::new(move || {
            let boot = *now.lock().unwrap_or_else(PoisonError::into_inner);
            Now { boot, unix: Duration::from_secs(1_700_000_000) + boot }
        })
    }

    fn pass(&self, length: Duration) {
        *self.now.lock().unwrap() += length;
    }

    fn locks(&self) -> GpuLocks {
        GpuLocks::new(self.state.path(), Path::new("/proc"))
    }

    fn open(&self) -> Keeper {
        Keeper::open(self.state.path(), &self.boot, self.locks(), self.clock())
    }

    /// With a lock that a scheduler knows.
    fn open_scheduled(&self) -> Keeper {
        let lock = |state| Lock::Scheduled(shuttle::sync::Mutex::new(state));
        Keeper::within(lock, self.state.path(), &self.boot, self.locks(), self.clock())
    }

    /// The machine is started anew.
    fn reboot(&mut self) {
        self.boot.push('+');
        *self.now.lock().unwrap() = Duration::from_secs(10);
    }

    fn file(&self) -> std::path::PathBuf {
        self.state.path().join("ledger")
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId::new("llm", name).unwrap()
}

/// GPUs with total and used bytes, and workers that run.
fn scene(gpus: &[(&str, u64, u64)], workers: &[&str]) -> Scene {
    let device = |(uuid, total, used): &(&str, u64, u64)| Device {
        uuid: (*uuid).to_owned(),
        memory_total_bytes: Some(*total),
        memory_used_bytes: Some(*used),
        ..Device::default()
    };
    let devices = gpus.iter().map(device).collect();
    let at = Instant::now();
    let round = GpuRound { outcome: Outcome::Answered, devices, ..GpuRound::default() };
    Scene {
        view: Arc::new(GpuView { round: Arc::new(round), answered: Some(at) }),
        at,
        promises: Vec::new(),
        used: BTreeMap::new(),
        ours: BTreeSet::new(),
        workers: workers.iter().map(|name| (worker(name), Ok(()))).collect(),
    }
}

fn vram(bytes: u64) -> Wish {
    Wish::Vram { bytes, gpu: String::new(), headroom: 0 }
}

fn ask(reservation: &str, wishes: &[Wish]) -> Ask {
    Ask {
        reservation: reservation.to_owned(),
        wishes: wishes.to_vec(),
        ttl: TTL,
        holder: "somebody".to_owned(),
        key: String::new(),
        wish: 7,
        size: 1,
    }
}

fn start<'a>(reservation: &'a str, worker: &'a WorkerId) -> Start<'a> {
    Start { reservation, token: None, worker, again: false, bytes: None }
}

fn tokens(grants: &[Grant]) -> Vec<u64> {
    grants.iter().map(|grant| grant.token).collect()
}

/// What is granted now.
fn granted(keeper: &Keeper) -> Vec<Grant> {
    keeper.tidy(BTreeSet::new);
    keeper.granted().grants.clone()
}
