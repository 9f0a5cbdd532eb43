//! The end of a first process that others of its worker outlive. A failure is told at once, and with a policy that starts
//! a worker again the rest is killed after a while, so that the policy can go on.

use super::entry::Entry;
use super::restart::policy;
use super::stop::{self, Target};
use super::{Inner, leave};
use crate::roster::{Member, Slot};
use crate::worker::journal::News;
use crate::worker::sys::Ended;
use common::WorkerId;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

/// A worker that is gone within this time after its first process went as a whole.
pub const SETTLES: Duration = Duration::from_millis(250);
/// How long the rest of a worker whose first process has failed may live, to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// The end of a first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// This hive waited for it.
    Seen(Ended),
    /// It was gone before this hive looked.
    Missed,
}

impl First {
    /// How it ended, as far as that is known.
    pub fn told(self) -> Ended {
        match self {
            Self::Seen(ended) => ended,
            Self::Missed => Ended::Unknown,
        }
    }
}

/// What others outlive, and what becomes of them.
enum Fate {
    /// It has gone into the background, or its end is asked for: no news.
    Quiet,
    /// They live on.
    Live,
    /// They are killed after [`GRACE`].
    Killed,
}

/// Tells that a first process is gone and others of its worker are not. How it ended, as far as any hive knows.
pub fn outlived(inner: &Arc<Inner>, id: &WorkerId, slot: Slot, first: First) -> Ended {
    let mut table = inner.table();
    let Some(entry) = table.entry(id, slot) else { return first.told() };
    let known = entry.record.as_ref().and_then(|record| record.first_exit.clone());
    let is_news = known.is_none();
    let ended = known.as_ref().map_or(first.told(), ended);
    let fate = fate(entry, first, ended);
    let cause = leave::plain(ended);
    if let Some(record) = entry.record.as_mut() {
        record.first_exit = Some(cause.clone());
    }
    let pid = entry.member.pid().unwrap_or_default();
    let spec = proto::WorkerSpec { pid: 0, ..entry.member.spec.clone() };
    let member = Member { spec, ..(*entry.member).clone() };
    entry.member = Arc::new(member);
    if matches!(fate, Fate::Killed) {
        entry.set_state(proto::WorkerState::Stopping);
    }
    let (run, policy) = (entry.standing.borrow().run, entry.policy());
    inner.publish(&table);
    drop(table);
    inner.save_aside(id);
    let rest = match fate {
        Fate::Quiet => return ended,
        Fate::Live if policy::name(policy) == "never" => "others of it live on, and it runs until they end".to_owned(),
        Fate::Live => "others of it live on: it may have gone into the background".to_owned(),
        Fate::Killed => {
            inner.spawn(kill_rest(inner.clone(), id.clone(), slot, run));
            let seconds = GRACE.as_secs();
            format!(
                "what is left of it is killed in {seconds} s, and its restart policy {} goes on",
                policy::name(policy)
            )
        }
    };
    if is_news {
        let how = match first {
            First::Seen(_) => leave::sentence(&cause),
            First::Missed => "while no hive ran".to_owned(),
        };
        let message = format!("its first process ended: {how}; {rest}");
        warn!(worker = %id, pid, "worker goes on: {message}");
        let kind = proto::LifeEventKind::FirstEnded;
        inner.journal.add(id, News { kind, pid, message, exit: Some(cause), ..News::default() });
    }
    ended
}

fn fate(entry: &Entry, first: First, ended: Ended) -> Fate {
    // What nobody here started has no first process that could be told from the others.
    if entry.record.is_none() || entry.asked.is_some() || entry.unhealthy || ended == Ended::Code(0) {
        return Fate::Quiet;
    }
    // One that nobody saw, and that was gone before, may have gone into the background long ago.
    let certain = matches!(first, First::Seen(_)) || ended != Ended::Unknown;
    let goes_on = policy::wants(entry.policy(), &leave::plain(ended));
    if certain && goes_on { Fate::Killed } else { Fate::Live }
}

/// As a process itself ended, back from what was told of it.
fn ended(cause: &proto::ExitCause) -> Ended {
    match (cause.code, cause.signal) {
        (Some(code), _) => Ended::Code(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Unknown,
    }
}

/// Kills what is left of this run, unless it has ended, or somebody has asked for its end, by then.
async fn kill_rest(inner: Arc<Inner>, id: WorkerId, slot: Slot, run: u32) {
    tokio::select! {
        // The next hive goes on here.
        () = inner.stopping.cancelled() => return,
        () = tokio::time::sleep(GRACE) => {}
    }
    let mut target = {
        let mut table = inner.table();
        let entry = table.entry(&id, slot).filter(|entry| entry.asked.is_none() && entry.member.footing.is_some());
        let Some(entry) = entry.filter(|entry| entry.standing.borrow().run == run) else { return };
        Target::of(&id, entry)
    };
    warn!(worker = %id, "what a failed first process has left is killed");
    let stopping = inner.stopping.clone();
    tokio::select! {
        () = stopping.cancelled() => {}
        ended = stop::end(&inner, &mut target, Duration::ZERO) => if let Err(error) = ended {
            warn!(worker = %id, %error, "the rest of a worker is not killed");
        },
    }
}
