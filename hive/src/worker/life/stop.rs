//! Stopping a worker: SIGTERM, grace, then everything it has is killed, until nothing is left. Processes are only
//! ever signalled by a pidfd that was checked to be the worker's.

use super::entry::{Entry, Standing};
use super::launching::give_up_again;
use super::outside::Session;
use super::{Inner, Life, leave, watch};
use crate::roster::{Footing, Slot};
use crate::worker::cgroup::Cgroup;
use crate::worker::journal::News;
use crate::worker::record::Asked;
use crate::worker::sys;
use common::WorkerId;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch::Receiver;
use tracing::{info, warn};

/// How long after the kill a worker may take to be gone; a process in a driver's hands can take for ever.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How often the kill is repeated meanwhile: what forked in between is caught by the next one.
const KILL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a worker that is just being started again may take to have a process, or none after all: the driver's time to
/// release GPU memory, and a little.
const STAND_PATIENCE: Duration = Duration::from_secs(15);
/// Who stopped a worker, when the caller does not say.
const SOMEBODY: &str = "a caller who gave no name";

/// Why a worker was not stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Killed, and still there.
    #[error("stop {id}: {} after SIGKILL these processes are still there: {pids:?}", humane(KILL_PATIENCE))]
    Survives {
        /// The worker.
        id: WorkerId,
        /// What is left of it.
        pids: Vec<i32>,
    },
    /// The hive stops first; the worker may live on.
    #[error("stop {0}: this hive is stopping")]
    Stopping(WorkerId),
    /// It has no process yet that could be ended.
    #[error(
        "stop {0}: it is just being started, and that cannot be given up at once: it ends before it begins, or is \
         stopped as soon as it has a process; ask again"
    )]
    Starting(WorkerId),
    /// It is only looked at.
    #[error(
        "{0}: observed, not started by rbee: end it where it was started; `rbee observe --end {0}` only looks away"
    )]
    Observed(WorkerId),
}

fn humane(length: Duration) -> String {
    format!("{} s", length.as_secs())
}

/// What a stop needs to know about its worker.
pub(super) struct Target {
    id: WorkerId,
    slot: Slot,
    run: u32,
    /// `None`: it is just being started again.
    footing: Option<Footing>,
    pidfd: Option<Arc<OwnedFd>>,
    cgroup: Option<Cgroup>,
    /// It was started here, so that its session is its own.
    ours: bool,
    /// Those of its processes that hold GPU memory.
    held: BTreeSet<u32>,
    standing: Receiver<Standing>,
}

/// What a worker was found doing when its end was asked for.
pub(super) enum Marked {
    /// It only waited for its next start, and is gone.
    Waited(proto::ExitCause),
    /// It lives, or is just being started.
    Lives(Box<Target>),
}

impl Life {
    /// Stops a worker and waits until it is gone and its GPU memory is released. `Ok(None)`: nothing of this name was
    /// running. Doing it twice, or at the same time, is harmless; the story names who asked first.
    pub async fn stop(&self, id: &WorkerId, grace: Duration, by: &str) -> Result<Option<proto::ExitCause>, StopError> {
        let inner = self.inner().clone();
        if inner.table().observed.knows(id) {
            return Err(StopError::Observed(id.clone()));
        }
        let asked = Asked { by: named(by), grace_millis: millis(grace), again: false };
        let mut marked = mark(&inner, id, &asked);
        if marked.is_none() {
            if let Some(cause) = inner.give_up(id, &asked.by).await? {
                return Ok(Some(cause));
            }
            marked = mark(&inner, id, &asked);
        }
        let mut target = match marked {
            None => return Ok(None),
            Some(Marked::Waited(cause)) => return Ok(Some(cause)),
            Some(Marked::Lives(target)) => target,
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        // A task of its own: a caller who goes away does not leave a worker half-stopped.
        self.inner().spawn(async move {
            let stopping = inner.stopping.clone();
            let id = target.id.clone();
            let result = tokio::select! {
                () = stopping.cancelled() => Err(StopError::Stopping(id)),
                result = end_and_release(&inner, &mut target, grace) => result,
            };
            let _ = answer.send(result);
        });
        answered.await.unwrap_or_else(|_| Err(StopError::Stopping(id.clone())))
    }
}

/// Whoever asks, by name.
pub(super) fn named(by: &str) -> String {
    if by.is_empty() { SOMEBODY.to_owned() } else { by.to_owned() }
}

/// A grace as records have it.
pub(super) fn millis(grace: Duration) -> u64 {
    u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)
}

/// Writes down that somebody wants this worker to end. Who asks for its end for good outdoes who asks for a new start.
pub(super) fn mark(inner: &Arc<Inner>, id: &WorkerId, asked: &Asked) -> Option<Marked> {
    let mut table = inner.table();
    let entry = table.live.get_mut(id)?;
    if entry.waits() {
        if asked.again {
            entry.asked = Some(asked.clone());
            entry.wake.notify_one();
            return None;
        }
        let slot = entry.member.slot;
        entry.wake.notify_one();
        drop(table);
        return Some(Marked::Waited(forget_waiting(inner, id, slot, &asked.by)));
    }
    let news = entry.asked.as_ref().is_none_or(|before| before.again && !asked.again);
    if news {
        entry.asked = Some(asked.clone());
        if let Some(record) = entry.record.as_mut() {
            record.asked = Some(asked.clone());
        }
        entry.set_state(proto::WorkerState::Stopping);
    }
    let target = Target::of(id, entry);
    if news {
        if !asked.again {
            give_up_again(&table, id);
        }
        inner.publish(&table);
        drop(table);
        inner.save_aside(id);
        let by = &asked.by;
        info!(worker = %id, by, again = asked.again, "worker is being stopped");
        let message =
            if asked.again { format!("asked to start again by {by}") } else { format!("asked to stop by {by}") };
        let pid = target.pid().unwrap_or_default();
        inner.journal.add(id, News { kind: proto::LifeEventKind::Stopping, pid, message, ..News::default() });
    }
    Some(Marked::Lives(Box::new(target)))
}

/// Ends the wait of a worker that has no process.
fn forget_waiting(inner: &Inner, id: &WorkerId, slot: Slot, by: &str) -> proto::ExitCause {
    info!(worker = %id, by, "worker is not started again");
    let message = format!("asked to stop by {by} while it waited for its next start: it is not started again");
    inner.journal.add(id, News { kind: proto::LifeEventKind::Stopping, message, ..News::default() });
    let cause = leave::stopped(by.to_owned());
    inner.let_go(id, slot, Standing { ended: Some(cause.clone()), ..Standing::default() });
    cause
}

/// Goes on with a stop that an earlier hive began.
pub async fn go_on(inner: Arc<Inner>, id: WorkerId, grace: Duration) {
    let stopping = inner.stopping.clone();
    tokio::select! {
        () = stopping.cancelled() => {}
        ended = end_marked(&inner, &id, grace) => if let Err(error) = ended {
            warn!(worker = %id, %error, "worker not stopped");
        },
    }
}

/// Ends the present run of a worker whose end is written down.
pub(super) async fn end_marked(inner: &Arc<Inner>, id: &WorkerId, grace: Duration) -> Result<(), StopError> {
    let target = inner.table().live.get(id).map(|entry| Target::of(id, entry));
    match target {
        Some(mut target) => end(inner, &mut target, grace).await.map(|_| ()),
        None => Ok(()),
    }
}

async fn end_and_release(
    inner: &Arc<Inner>,
    target: &mut Target,
    grace: Duration,
) -> Result<Option<proto::ExitCause>, StopError> {
    let cause = end(inner, target, grace).await?;
    inner.until_released(&target.id, std::mem::take(&mut target.held), Instant::now()).await;
    Ok(cause)
}

/// SIGTERM, grace, then everything is killed until nothing is left. Tells how the run ended.
pub(super) async fn end(
    inner: &Inner,
    target: &mut Target,
    grace: Duration,
) -> Result<Option<proto::ExitCause>, StopError> {
    if let Some(cause) = target.stand(inner).await? {
        return Ok(Some(cause));
    }
    target.remember_gpus(inner);
    target.signal(inner, Signal::SIGTERM);
    // A suspended process hears nothing before it goes on.
    target.signal(inner, Signal::SIGCONT);
    if let Some(cause) = target.wait(grace).await {
        return Ok(Some(cause));
    }
    let deadline = tokio::time::Instant::now() + KILL_PATIENCE;
    while tokio::time::Instant::now() < deadline {
        target.remember_gpus(inner);
        target.kill(inner);
        if let Some(cause) = target.wait(KILL_INTERVAL).await {
            return Ok(Some(cause));
        }
    }
    let mut pids = target.processes(inner);
    pids.extend(target.session().map(|session| session.outside(inner, &pids)).unwrap_or_default());
    pids.sort_unstable();
    pids.dedup();
    Err(StopError::Survives { pids, id: target.id.clone() })
}

impl Target {
    /// A worker as it is now.
    pub fn of(id: &WorkerId, entry: &Entry) -> Self {
        let standing = entry.standing.subscribe();
        let run = standing.borrow().run;
        Self {
            id: id.clone(),
            slot: entry.member.slot,
            run,
            footing: entry.member.footing.clone(),
            pidfd: entry.pidfd.clone(),
            cgroup: entry.cgroup.clone(),
            ours: entry.record.is_some(),
            held: entry.gpu_holders.clone(),
            standing,
        }
    }

    fn pid(&self) -> Option<i32> {
        self.footing.as_ref().map(|footing| footing.pid)
    }

    /// Waits until a worker that is just being started has a process, or none after all.
    async fn stand(&mut self, inner: &Inner) -> Result<Option<proto::ExitCause>, StopError> {
        if self.footing.is_some() {
            return Ok(None);
        }
        let run = self.run;
        let news = self.standing.wait_for(|now| now.gone || now.run != run);
        let Ok(news) = tokio::time::timeout(STAND_PATIENCE, news).await else {
            return Err(StopError::Starting(self.id.clone()));
        };
        let now = news.map(|now| now.clone()).unwrap_or_default();
        if now.gone {
            return Ok(now.ended.or_else(|| Some(proto::ExitCause::default())));
        }
        let found = inner.table().entry(&self.id, self.slot).map(|entry| Self::of(&self.id, entry));
        if let Some(found) = found {
            *self = found;
        }
        Ok(None)
    }

    /// How its run ended, if it does within this time.
    async fn wait(&mut self, length: Duration) -> Option<proto::ExitCause> {
        let run = self.run;
        let ended = self.standing.wait_for(|now| now.gone || now.run != run || now.ended.is_some());
        match tokio::time::timeout(length, ended).await {
            // A next run began meanwhile: how this one ended is told in the journal.
            Ok(Ok(now)) => Some(now.ended.clone().unwrap_or_default()),
            // Out of the table without a word cannot be; not yet gone can.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Takes down which of its processes hold GPU memory, as long as they can be told from others.
    fn remember_gpus(&mut self, inner: &Inner) {
        let holders = inner.gpu_holders(&self.processes(inner));
        if holders.is_empty() {
            return;
        }
        if let Some(entry) = inner.table().entry(&self.id, self.slot) {
            entry.gpu_holders.extend(&holders);
        }
        self.held.extend(holders);
    }

    fn kill(&self, inner: &Inner) {
        match &self.cgroup {
            Some(cgroup) if cgroup.is_same() => {
                cgroup.kill();
                self.signal_outside(inner, &cgroup.processes(), Signal::SIGKILL);
            }
            _ => self.signal(inner, Signal::SIGKILL),
        }
    }

    /// Reaches what has left the worker's cgroup by itself: others of its session, then its first process.
    fn signal_outside(&self, inner: &Inner, inside: &[i32], signal: Signal) {
        if let Some(session) = self.session() {
            session.signal(inner, inside, signal);
        }
        if let Some(pidfd) = &self.pidfd
            && self.pid().is_some_and(|pid| !inside.contains(&pid))
        {
            // It may have ended since; that is what was wanted.
            let _ = sys::send(pidfd.as_fd(), signal);
        }
    }

    /// Reaches every process of the worker.
    fn signal(&self, inner: &Inner, signal: Signal) {
        match &self.cgroup {
            Some(cgroup) if cgroup.is_same() => {
                let inside = cgroup.processes();
                cgroup.signal(signal);
                self.signal_outside(inner, &inside, signal);
            }
            _ => self.signal_session(inner, signal),
        }
    }

    fn signal_session(&self, inner: &Inner, signal: Signal) {
        let opened: Vec<(i32, OwnedFd)> =
            self.processes(inner).into_iter().filter_map(|pid| Some((pid, sys::open(pid).ok()?))).collect();
        // Looked at again after opening: a pid that went to somebody else meanwhile is in another session.
        let still = self.processes(inner);
        for (_, pidfd) in opened.iter().filter(|(pid, _)| Some(*pid) != self.pid() && still.contains(pid)) {
            // It may have ended since; that is what was wanted.
            let _ = sys::send(pidfd.as_fd(), signal);
        }
        if let Some(pidfd) = &self.pidfd {
            let _ = sys::send(pidfd.as_fd(), signal);
        }
    }

    fn session(&self) -> Option<Session<'_>> {
        let footing = self.footing.as_ref().filter(|_| self.ours)?;
        Some(Session { id: &self.id, footing, leader: self.pidfd.as_deref() })
    }

    fn processes(&self, inner: &Inner) -> Vec<i32> {
        match &self.cgroup {
            Some(cgroup) if cgroup.is_same() => cgroup.processes(),
            _ => self
                .footing
                .as_ref()
                .map_or_else(Vec::new, |footing| watch::session_of(inner, footing.pid, footing.start_ticks)),
        }
    }
}
