//! Processes that have left their worker's cgroup and are still of its session: root can do that to itself. A stop reaches
//! them, each by a pidfd whose session and start time were looked at after opening. Who has left both is out of reach.

use super::{Inner, request, watch};
use crate::roster::{Footing, Slot};
use crate::worker::{procfs, sys};
use common::WorkerId;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How often it is looked whether they are gone, when their end was asked for.
const LOOK: Duration = Duration::from_millis(100);
/// The grace of a worker that is being ended and nobody gave one.
const GRACE: Duration = Duration::from_secs(5);
/// How long after its grace they are waited for; then it is told that they live on.
const PATIENCE: Duration = Duration::from_secs(3);

/// A worker's session. The kernel gives the leader's pid to nobody else as long as a process of the session lives.
pub struct Session<'a> {
    pub id: &'a WorkerId,
    pub footing: &'a Footing,
    /// Its leader, the worker's first process.
    pub leader: Option<&'a OwnedFd>,
}

impl Session<'_> {
    /// Its live processes but for those in the cgroup, and but for its leader.
    pub fn outside(&self, inner: &Inner, inside: &[i32]) -> Vec<i32> {
        let all = watch::session_of(inner, self.footing.pid, self.footing.start_ticks);
        let others = all.into_iter().filter(|pid| *pid != self.footing.pid && !inside.contains(pid));
        others.filter(|pid| self.vouched(inner, *pid)).collect()
    }

    /// Sends them a signal.
    pub fn signal(&self, inner: &Inner, inside: &[i32], signal: Signal) {
        let root = &inner.config.proc_root;
        for pid in self.outside(inner, inside) {
            let (Ok(before), Ok(pidfd)) = (procfs::stat(root, pid), sys::open(pid)) else { continue };
            let same = procfs::stat(root, pid).is_ok_and(|now| {
                now.session == self.footing.pid && now.start_ticks == before.start_ticks && !now.is_dead()
            });
            if same && self.vouched(inner, pid) {
                // It may have ended since; that is what was wanted.
                let _ = sys::send(pidfd.as_fd(), signal);
            }
        }
    }

    /// Whether a session of this number is this worker's: certainly while its leader lives. After that the number may have
    /// come to another session, whose processes do not bear the worker's name.
    fn vouched(&self, inner: &Inner, pid: i32) -> bool {
        if self.leader.is_some_and(|leader| !sys::has_ended(leader.as_fd())) {
            return true;
        }
        let mark = request::mark(&inner.config, self.id);
        procfs::environment(&inner.config.proc_root, pid).iter().any(|variable| *variable == mark.as_bytes())
    }

    /// Those that are left when the worker's cgroup is empty. When somebody is ending them, they get the time for it.
    /// None of a worker that nobody here started: its session may be somebody else's.
    pub async fn left(&self, inner: &Inner, slot: Slot) -> Vec<i32> {
        let began = tokio::time::Instant::now();
        // Its end is to be told at once, and a walk over all processes takes longer: who ended by itself is walked for only
        // when its process group has a member left, which costs one call that signals nobody.
        let ending = patience(inner, self.id, slot).is_some_and(|patience| !patience.is_zero());
        if !ending && killpg(Pid::from_raw(self.footing.pid), None) == Err(Errno::ESRCH) {
            return Vec::new();
        }
        while let Some(patience) = patience(inner, self.id, slot) {
            let left = self.outside(inner, &[]);
            if left.is_empty() || began.elapsed() >= patience {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
        Vec::new()
    }
}

/// How long the end of the rest is waited for: not at all when nobody is ending it. `None`: nobody here started it.
fn patience(inner: &Inner, id: &WorkerId, slot: Slot) -> Option<Duration> {
    let mut table = inner.table();
    let entry = table.entry(id, slot).filter(|entry| entry.record.is_some())?;
    let grace = entry.asked.as_ref().map_or(GRACE, |asked| Duration::from_millis(asked.grace_millis));
    Some(if entry.member.state == proto::WorkerState::Stopping { grace + PATIENCE } else { Duration::ZERO })
}

/// What is said of them with the end of their worker.
pub fn words(left: &[i32]) -> String {
    if left.is_empty() {
        return String::new();
    }
    let pids: Vec<String> = left.iter().map(i32::to_string).collect();
    format!("; processes of it that have left its cgroup live on: {}", pids.join(", "))
}
