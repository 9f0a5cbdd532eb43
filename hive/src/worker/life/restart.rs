//! Starting a worker again: by its policy after an end, after a reboot, or because somebody asks. Until its next start
//! a worker keeps its name and its slot.

mod ask;
pub mod policy;

pub use ask::RestartError;

use super::entry::{Names, Standing};
use super::launch::{Beginning, enter};
use super::request::Plan;
use super::start::{StartError, blocking, tell_failure};
use super::{Inner, leave};
use crate::roster::{Member, Slot};
use crate::worker::journal::News;
use crate::worker::record::{Past, unix_nanos};
use common::WorkerId;
use policy::Interval;
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{info, warn};

/// Why a worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Its policy.
    Policy,
    /// Its policy, in another boot of the machine.
    Reboot,
    /// Somebody asked for it.
    Asked,
}

/// What comes after an end.
enum Next {
    Nothing,
    Now,
    Later(Interval),
}

impl Inner {
    /// What follows the end of a run, or a start that `failure` says did not lead to one: nothing, or another start.
    pub fn after_end(
        self: &Arc<Self>,
        id: &WorkerId,
        slot: Slot,
        cause: proto::ExitCause,
        failure: Option<Arc<StartError>>,
    ) {
        let last = Standing { ended: Some(cause.clone()), failure, ..Standing::default() };
        let mut table = self.table();
        let Some(entry) = table.entry(id, slot) else { return };
        let again = entry.asked.as_ref().is_some_and(|asked| asked.again);
        let Some(record) = entry.record.as_mut() else {
            drop(table);
            return self.let_go(id, slot, last);
        };
        let past = &mut record.past;
        let next = if again && last.failure.is_none() {
            past.quick_ends = 0;
            Next::Now
        } else if (entry.asked.is_some() && !again) || entry.probation {
            Next::Nothing
        } else if policy::wants(entry.member.spec.restart(), &cause) {
            past.quick_ends = policy::quick_ends(past.quick_ends, entry.began.elapsed());
            Next::Later(policy::interval(past.quick_ends, random()))
        } else {
            Next::Nothing
        };
        let (delay, wait, state) = match &next {
            Next::Nothing => {
                drop(table);
                return self.let_go(id, slot, last);
            }
            Next::Now => (Duration::ZERO, Wait::Asked, proto::WorkerState::Starting),
            Next::Later(interval) => (interval.delay, Wait::Policy, interval.state()),
        };
        record.past.last_exit = Some(cause);
        let at = SystemTime::now() + delay;
        record.past.next_start_unix_nanos = Some(unix_nanos(at));
        self.set_waiting(&mut table, id, slot, state, last);
        drop(table);
        if let Next::Later(interval) = next {
            self.tell_wait(id, slot, interval);
        }
        self.spawn(wait_for_start(self.clone(), id.clone(), slot, delay, wait));
        self.save_aside(id);
    }

    /// Takes from an entry, whose record says when it starts next, what belonged to its run.
    fn set_waiting(
        &self,
        table: &mut super::Table,
        id: &WorkerId,
        slot: Slot,
        state: proto::WorkerState,
        last: Standing,
    ) {
        let Some(entry) = table.entry(id, slot) else { return };
        let Some(record) = entry.record.as_mut() else { return };
        record.process = None;
        record.cgroup = None;
        record.was_ready = false;
        record.first_exit = None;
        record.oom_told = 0;
        if state != proto::WorkerState::Starting {
            record.asked = None;
            entry.asked = None;
        }
        let spec = self.spec(record, None, entry.member.spec.origin());
        entry.member = Arc::new(Member { spec, state, footing: None, ..(*entry.member).clone() });
        entry.names = Names::recorded(&record.model_names, record.model_given);
        entry.pidfd = None;
        entry.cgroup = None;
        entry.oom_before = 0;
        entry.unhealthy = false;
        entry.unready_since = None;
        // Two who asked for the last start at the same time have left a call behind, which is not for this wait.
        entry.wake = Arc::default();
        entry.standing.send_modify(|standing| *standing = Standing { run: standing.run, ..last });
        self.publish(table);
    }

    fn tell_wait(&self, id: &WorkerId, slot: Slot, interval: Interval) {
        let (policy, ends) = {
            let mut table = self.table();
            let Some(entry) = table.entry(id, slot) else { return };
            (policy::name(entry.policy()), entry.record.as_ref().map_or(0, |record| record.past.quick_ends))
        };
        let seconds = interval.delay.as_secs_f64();
        let (kind, message) = if interval.crash_loop {
            warn!(worker = %id, ends, "worker ends again and again soon after its start");
            let words = format!(
                "ended {ends} times in a row soon after its start; it is started again in {seconds:.0} s, and no sooner until it stays"
            );
            (proto::LifeEventKind::CrashLoop, words)
        } else {
            info!(worker = %id, seconds, "worker is started again later");
            let words = format!("started again in {seconds:.1} s, as its restart policy {policy} says");
            (proto::LifeEventKind::Backoff, words)
        };
        self.journal.add(id, News { kind, message, ..News::default() });
    }

    /// Writes down what the table has about a worker. Blocks.
    pub fn save(&self, id: &WorkerId) {
        let latest = || self.table().live.get(id).and_then(|entry| entry.record.clone());
        if let Err(error) = self.records.write_latest(latest) {
            warn!(worker = %id, %error, "record not written anew");
        }
    }

    /// The same beside the caller.
    pub fn save_aside(self: &Arc<Self>, id: &WorkerId) {
        let (inner, id) = (self.clone(), id.clone());
        self.spawn(async move {
            // Its error would be a panic, which is told where it happens.
            let _ = tokio::task::spawn_blocking(move || inner.save(&id)).await;
        });
    }
}

/// Waits, unless it is woken before, and starts the worker again, unless it is gone by then.
pub async fn wait_for_start(inner: Arc<Inner>, id: WorkerId, slot: Slot, delay: Duration, wait: Wait) {
    let Some(wake) = inner.table().entry(&id, slot).map(|entry| entry.wake.clone()) else { return };
    tokio::select! {
        () = inner.stopping.cancelled() => return,
        () = tokio::time::sleep(delay) => {}
        () = wake.notified() => {}
    }
    // Boxed, because a failed start comes back here.
    Box::pin(start_again(&inner, &id, slot, wait)).await;
}

async fn start_again(inner: &Arc<Inner>, id: &WorkerId, slot: Slot, wait: Wait) {
    let Some(Turn { past, held, by }) = set_starting(inner, id, slot, wait) else { return };
    let words = match (&by, wait) {
        (Some(by), _) => format!("started again, asked by {by}"),
        (None, Wait::Reboot) => "started again after the machine was started anew".to_owned(),
        (None, Wait::Policy | Wait::Asked) => format!("started again by its restart policy ({})", past.restarts),
    };
    let kind = if by.is_some() { proto::LifeEventKind::Started } else { proto::LifeEventKind::Restarted };
    tokio::select! {
        // The next hive goes on here.
        () = inner.stopping.cancelled() => return,
        () = inner.until_released(id, held, Instant::now()) => {}
    }
    let launching = async {
        let request = request(inner, id).await?;
        let plan = Plan::new(&request, &inner.config)?;
        blocking(inner, id, request, plan, past).await
    };
    match launching.await {
        Ok(launched) => {
            enter(inner, id, launched, Beginning { kind, words, probation: false });
        }
        // The next hive goes on here, too.
        Err(_) if inner.stopping.is_cancelled() => inner.not_launched(id),
        Err(error) => {
            inner.not_launched(id);
            not_started(inner, id, slot, error);
        }
    }
}

/// What a worker takes from its wait into its start.
struct Turn {
    past: Past,
    /// Its processes that held GPU memory.
    held: BTreeSet<u32>,
    /// Who asked for this start.
    by: Option<String>,
}

/// From waiting to starting; `None` when it is gone, or was asked to end.
fn set_starting(inner: &Inner, id: &WorkerId, slot: Slot, wait: Wait) -> Option<Turn> {
    let mut table = inner.table();
    let entry = table.entry(id, slot).filter(|entry| entry.member.footing.is_none())?;
    if let Some(asked) = entry.asked.as_ref().filter(|asked| !asked.again) {
        let cause = leave::stopped(asked.by.clone());
        drop(table);
        inner.let_go(id, slot, Standing { ended: Some(cause), ..Standing::default() });
        return None;
    }
    let by = entry.asked.take().map(|asked| asked.by);
    let record = entry.record.as_mut()?;
    let past = &mut record.past;
    past.next_start_unix_nanos = None;
    if by.is_some() {
        // Whoever asks has mended it, or wants to see it fail: its ends are counted anew.
        past.quick_ends = 0;
    } else if wait != Wait::Asked {
        past.restarts = past.restarts.saturating_add(1);
    }
    let past = past.clone();
    let spec = inner.spec(record, None, entry.member.spec.origin());
    let state = proto::WorkerState::Starting;
    entry.member = Arc::new(Member { spec, state, ..(*entry.member).clone() });
    let held = std::mem::take(&mut entry.gpu_holders);
    inner.publish(&table);
    Some(Turn { past, held, by })
}

/// What the worker was started with.
async fn request(inner: &Arc<Inner>, id: &WorkerId) -> Result<proto::StartWorkerRequest, StartError> {
    let (other, name) = (inner.clone(), id.clone());
    let read = tokio::task::spawn_blocking(move || other.records.request(&name)).await.unwrap_or_else(|error| {
        // The reader broke down, which is told where it happens.
        Err(io::Error::other(error))
    });
    let step = "read what it was started with:";
    match read {
        Ok(Some(request)) => Ok(request),
        Ok(None) => {
            let source = io::Error::from_raw_os_error(libc::ENOENT);
            Err(StartError::Failed { step, path: id.to_string(), source })
        }
        Err(source) => Err(StartError::Failed { step, path: id.to_string(), source }),
    }
}

/// A start that failed counts as an end, unless it was given up because somebody asked for the end.
fn not_started(inner: &Arc<Inner>, id: &WorkerId, slot: Slot, error: StartError) {
    let by = {
        let mut table = inner.table();
        table.entry(id, slot).and_then(|entry| entry.asked.as_ref().map(|asked| asked.by.clone()))
    };
    if let Some(by) = by {
        let cause = leave::stopped(by);
        return inner.let_go(id, slot, Standing { ended: Some(cause), ..Standing::default() });
    }
    tell_failure(inner, id, &error);
    let cause = proto::ExitCause { reason: proto::ExitReason::StartFailure.into(), ..Default::default() };
    inner.after_end(id, slot, cause, Some(Arc::new(error)));
}

/// In 0..1, spread over processes and tries; nothing secret.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}
