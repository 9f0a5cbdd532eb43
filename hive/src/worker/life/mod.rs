//! The lives of all workers of this hive: who is here, who is being started, who is leaving. Each step of a life is a
//! file of its own; this one keeps the table and publishes the roster.

mod claim;
mod entry;
mod first;
mod health;
mod launch;
mod launching;
mod leave;
mod notice;
mod oom;
mod outside;
mod release;
mod request;
mod restart;
mod start;
mod stop;
mod wait;
mod watch;

pub use claim::Claim;
pub(super) use entry::{Entry, Names, Table};
pub(super) use launch::footing;
pub(super) use leave::sentence;
pub(super) use request::mark;
pub use restart::RestartError;
pub(super) use restart::{Wait, policy, wait_for_start};
pub use start::{StartError, Started};
pub use stop::StopError;
pub(super) use stop::go_on as go_on_stopping;
pub(super) use watch::{session, watch as watch_worker};

use super::cgroup::{Ground, SliceError};
use super::journal::Journal;
use super::lock::{LockError, SliceLock};
use super::mend::mend;
use super::record::Records;
use super::{adopt, flood, logs, procfs};
use crate::gpus::GpuView;
use crate::roster::{Finding, Member, Roster};
use common::{HiveId, WorkerId};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often a slice that a leaving hive has just removed is made again before the hive gives up.
const CLAIM_ATTEMPTS: u32 = 5;

/// How long a stopping hive waits for its tasks. A disk that does not answer would keep it for ever, and a service manager
/// waits for 10 s.
const CLOSING: Duration = Duration::from_secs(5);

/// What this wing needs to know.
#[derive(Debug, Clone)]
pub struct LifeConfig {
    /// The hive's name.
    pub hive: HiveId,
    /// Host under which clients reach this machine's workers.
    pub advertise: String,
    /// Where records, logs, journal and locks are kept.
    pub state_dir: PathBuf,
    /// Name of the cgroup tree that the hive owns.
    pub slice: String,
    /// Where cgroup v2 is, instead of where `/proc/self/mountinfo` says; for tests.
    pub cgroup_root: Option<PathBuf>,
    /// Where procfs is mounted.
    pub proc_root: PathBuf,
}

/// Why a hive cannot keep workers here.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The slice's name.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// Another hive holds the slice, or the lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Workers of an earlier hive, of which it cannot be told whether they live.
    #[error(transparent)]
    Unread(#[from] adopt::Unread),
    /// The state directory, or procfs.
    #[error("open {}{}", .path.display(), mend(.source))]
    State {
        /// What was opened.
        path: PathBuf,
        /// Why it cannot be.
        #[source]
        source: io::Error,
    },
}

/// The lives of this hive's workers. Clones share them. When the last clone is dropped the tasks end; no worker does.
#[derive(Debug, Clone)]
pub struct Life(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stopping.cancel();
    }
}

/// What the tasks of all lives share.
#[derive(Debug)]
pub(super) struct Inner {
    pub config: LifeConfig,
    pub gpus: Receiver<Arc<GpuView>>,
    pub ground: Ground,
    pub boot_id: String,
    pub journal: Journal,
    pub records: Records,
    pub stopping: CancellationToken,
    tracker: TaskTracker,
    table: Mutex<Table>,
    roster: Sender<Arc<Roster>>,
    _lock: SliceLock,
    _claim: Claim,
}

impl Life {
    /// Locks the state directory, then does what [`Life::open_claimed`] does.
    pub async fn open(
        config: LifeConfig,
        gpus: Receiver<Arc<GpuView>>,
        stopping: CancellationToken,
    ) -> Result<Self, OpenError> {
        let claim = Claim::take(&config).await?;
        Self::open_claimed(claim, config, gpus, stopping).await
    }

    /// Locks the slice, finds out what this machine offers, and takes over the workers of an earlier hive.
    /// `gpus` tells who holds GPU memory.
    pub async fn open_claimed(
        claimed: Claim,
        config: LifeConfig,
        gpus: Receiver<Arc<GpuView>>,
        stopping: CancellationToken,
    ) -> Result<Self, OpenError> {
        super::sys::remember_open_files();
        let at = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source| OpenError::State { path, source }
        };
        let boot_id = procfs::boot_id(&config.proc_root).map_err(at(&config.proc_root))?;
        let (ground, lock) = claim(&config).await?;
        let read = async {
            let records = Records::open(&config.state_dir).map_err(at(&config.state_dir))?;
            let judged = adopt::judge(&config, &boot_id, &records).await?;
            let journal = Journal::open(&config.state_dir, &config.hive, &boot_id).map_err(at(&config.state_dir))?;
            Ok((records, judged, journal))
        };
        let (records, judged, journal) = read.await.inspect_err(|_: &OpenError| vacate(&ground))?;
        let inner = Arc::new(Inner {
            config,
            gpus,
            ground,
            boot_id,
            journal,
            records,
            stopping: stopping.child_token(),
            tracker: TaskTracker::new(),
            table: Mutex::default(),
            roster: Sender::new(Arc::default()),
            _lock: lock,
            _claim: claimed,
        });
        adopt::adopt(&inner, judged);
        inner.tracker.spawn(adopt::rescan(inner.clone()));
        inner.tracker.spawn(flood::watch(inner.clone()));
        Ok(Self(Arc::new(Handle(inner))))
    }

    /// Every live worker, now and whenever that changes.
    pub fn roster(&self) -> Receiver<Arc<Roster>> {
        self.inner().roster.subscribe()
    }

    /// Takes in what a look at a worker's processes told. The roster changes only if that is news.
    pub fn learn(&self, finding: Finding) {
        self.inner().learn(&finding);
    }

    /// The life events.
    pub fn journal(&self) -> &Journal {
        &self.inner().journal
    }

    /// Where a worker's output is, whether it lives or not.
    pub fn log_path(&self, id: &WorkerId) -> PathBuf {
        logs::path(&self.inner().config.state_dir, id)
    }

    /// The step of the ladder that this machine offers.
    pub fn placement_level(&self) -> proto::PlacementLevel {
        self.inner().ground.level
    }

    /// Why that is not FULL: one sentence each, with path and reason.
    pub fn placement_reasons(&self) -> Vec<String> {
        self.inner().ground.reasons.clone()
    }

    /// The kernel's id of this boot.
    pub fn boot_id(&self) -> &str {
        &self.inner().boot_id
    }

    /// Waits for the stop token, then until every task of this wing has ended, but not for ever. Workers live on.
    pub async fn closed(&self) {
        let inner = self.inner();
        inner.stopping.cancelled().await;
        inner.tracker.close();
        if tokio::time::timeout(CLOSING, inner.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = inner.tracker.len(), "not every task of the workers has ended; they are left");
        }
        // Not left to the last owner: a client's connection may outlive this process's patience.
        inner.leave();
    }

    /// The hive whose workers these are.
    pub fn hive(&self) -> &HiveId {
        &self.inner().config.hive
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }
}

/// Finds the ground and locks it. A slice that a leaving hive removes between the two is made again.
async fn claim(config: &LifeConfig) -> Result<(Ground, SliceLock), LockError> {
    let mut lock = SliceLock::take(&config.state_dir, &config.slice, &config.proc_root).await?;
    let discover = || Ground::discover(&config.slice, config.cgroup_root.as_deref(), &config.proc_root);
    let mut ground = discover();
    for _ in 0..CLAIM_ATTEMPTS {
        let Some(root) = ground.root.clone() else { break };
        match lock.take_directory(&root, &config.slice, &config.proc_root).await {
            Ok(true) => break,
            Err(LockError::Failed { source, .. }) if !super::cgroup::is_gone(&source) => break,
            Err(held @ LockError::Held { .. }) => return Err(held),
            _ => ground = discover(),
        }
    }
    Ok((ground, lock))
}

impl Inner {
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Tells everybody who lives here now. Called with the table locked, so that rosters come in order.
    pub fn publish(&self, table: &Table) {
        let here = table.live.values().filter(|entry| !entry.leaving);
        let mut members: Vec<Arc<Member>> = here.map(|entry| entry.member.clone()).collect();
        members.extend(table.observed.members().cloned());
        members.extend(table.launching.values().filter_map(|launching| launching.shown.clone()));
        members.sort_by_key(|member| member.slot);
        self.roster.send_replace(Arc::new(Roster { members }));
    }
}

impl Inner {
    /// Takes away what was made for no worker.
    fn leave(&self) {
        adopt::sweep(self);
        vacate(&self.ground);
    }
}

/// Gives an empty slice up.
fn vacate(ground: &Ground) {
    if let Some(root) = &ground.root {
        // Fails, as it should, while a worker lives in it.
        let _ = std::fs::remove_dir(root);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;
