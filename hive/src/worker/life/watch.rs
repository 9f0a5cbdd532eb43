//! One task per worker: waits for its first process by pidfd, then until nothing of it is left.

use super::first::{self, First};
use super::notice::Notice;
use super::outside::Session;
use super::{Inner, oom};
use crate::roster::{Footing, Slot};
use crate::worker::cgroup::Cgroup;
use crate::worker::procfs;
use crate::worker::sys::{self, Ended};
use common::WorkerId;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// How often a worker whose first process is gone is looked at for others, where the kernel does not tell.
const EMPTY_POLL: Duration = Duration::from_millis(50);
/// How often it is looked at even so: a word of the kernel that was missed must not keep a worker for ever.
const EMPTY_LOOK: Duration = Duration::from_secs(1);
/// How often a process is looked at that cannot be waited for.
const END_POLL: Duration = Duration::from_millis(100);
/// How often the kernel is asked how a process ended that is not our child: it tells once that is reaped.
const TOLD_ATTEMPTS: u32 = 10;
/// From one such question to the next.
const TOLD_PAUSE: Duration = Duration::from_millis(20);

/// Follows a worker to its end and sees it out. Ends early, and leaves the worker alone, when the hive stops.
pub async fn watch(inner: Arc<Inner>, id: WorkerId, slot: Slot) {
    let stopping = inner.stopping.clone();
    tokio::select! {
        () = stopping.cancelled() => {}
        () = follow(&inner, &id, slot) => {}
        () = outlives(&inner, &id, slot) => {}
    }
}

async fn follow(inner: &Arc<Inner>, id: &WorkerId, slot: Slot) {
    let (pidfd, cgroup, Some(footing)) = ({
        let table = inner.table();
        let Some(entry) = table.live.get(id).filter(|entry| entry.member.slot == slot) else { return };
        (entry.pidfd.clone(), entry.cgroup.clone(), entry.member.footing.clone())
    }) else {
        return;
    };
    let leader = pidfd.clone();
    let ended = match pidfd {
        Some(pidfd) => First::Seen(first_process(inner, pidfd, &footing).await),
        None => First::Missed,
    };
    let others = async {
        match &cgroup {
            Some(cgroup) => until_empty(cgroup).await,
            None => until_alone(inner, footing.pid, footing.start_ticks).await,
        }
    };
    tokio::pin!(others);
    let mut told = ended.told();
    if tokio::time::timeout(first::SETTLES, &mut others).await.is_err() {
        told = first::outlived(inner, id, slot, ended);
        others.await;
    }
    let left = match &cgroup {
        Some(_) => Session { id, footing: &footing, leader: leader.as_deref() }.left(inner, slot).await,
        None => Vec::new(),
    };
    inner.see_out(id, slot, told, &left);
}

/// Tells of the kills at its memory limit that a worker outlives, for as long as it is watched.
async fn outlives(inner: &Arc<Inner>, id: &WorkerId, slot: Slot) {
    let cgroup = inner.table().entry(id, slot).and_then(|entry| entry.cgroup.clone());
    match cgroup {
        Some(cgroup) => oom::follow(inner, id, slot, &cgroup).await,
        None => std::future::pending().await,
    }
}

/// How the first process ended, once it has.
async fn first_process(inner: &Inner, pidfd: Arc<OwnedFd>, footing: &Footing) -> Ended {
    if let Err(error) = sys::ended(pidfd.clone()).await {
        warn!(%error, "a process cannot be waited for, it is looked at instead");
    }
    while !sys::has_ended(pidfd.as_fd()) {
        tokio::time::sleep(END_POLL).await;
    }
    match sys::reap(&pidfd) {
        Ok(Some(ended)) => return ended,
        Ok(None) => return Ended::Unknown,
        // Not our child: an earlier hive's.
        Err(_) => {}
    }
    for _ in 0..TOLD_ATTEMPTS {
        // Not reaped yet, which some kernels need to tell it by the pidfd, and others never do.
        if let Some(status) = procfs::wait_status(&inner.config.proc_root, footing.pid, footing.start_ticks) {
            return Ended::from_status(status);
        }
        if let Some(ended) = sys::told_exit(&pidfd) {
            return ended;
        }
        tokio::time::sleep(TOLD_PAUSE).await;
    }
    Ended::Unknown
}

async fn until_empty(cgroup: &Cgroup) {
    // Another directory of the same name is not this worker's.
    // What cannot be read is not known to be empty.
    let lives = || cgroup.same().unwrap_or(true) && cgroup.populated().unwrap_or(true);
    if !lives() {
        return;
    }
    let notice = Notice::open(&cgroup.path.join("cgroup.events"), EMPTY_POLL);
    loop {
        // Read first: what changes from now on ends the wait.
        let read = notice.as_ref().ok().and_then(|notice| notice.read().ok());
        if !lives() {
            return;
        }
        match (&notice, read) {
            (Ok(notice), Some(_)) => {
                let _ = tokio::time::timeout(EMPTY_LOOK, notice.changed()).await;
            }
            _ => tokio::time::sleep(EMPTY_POLL).await,
        }
    }
}

/// Without a cgroup, a worker is its session: gone when nobody is left in that. One that cannot be read is not known to
/// be empty.
async fn until_alone(inner: &Inner, leader: i32, start_ticks: u64) {
    while session(&inner.config.proc_root, leader, start_ticks).map_or(true, |left| !left.is_empty()) {
        tokio::time::sleep(END_POLL).await;
    }
}

/// The live processes of a worker's session, as far as they can be read.
pub fn session_of(inner: &Inner, leader: i32, start_ticks: u64) -> Vec<i32> {
    session(&inner.config.proc_root, leader, start_ticks).unwrap_or_default()
}

/// The live processes of a worker's session. The kernel gives the leader's pid to nobody while the session lasts, so
/// a process of that pid with another start time means that the session is over.
pub fn session(root: &Path, leader: i32, start_ticks: u64) -> io::Result<Vec<i32>> {
    match procfs::stat(root, leader) {
        Ok(found) if found.start_ticks != start_ticks => Ok(Vec::new()),
        _ => procfs::read_session(root, leader),
    }
}
