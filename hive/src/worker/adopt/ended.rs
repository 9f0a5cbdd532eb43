//! Recorded workers that live no more when a hive begins: their ends are told, and some of them are started again.

use crate::roster::Member;
use crate::worker::cgroup::Cgroup;
use crate::worker::journal::News;
use crate::worker::life::{self, Entry, Inner, Names, Wait};
use crate::worker::procfs;
use crate::worker::record::{Past, Record, from_unix_nanos, unix_nanos};
use common::WorkerId;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// What becomes of such a worker.
enum Fate {
    Closed,
    /// Started again, by its policy or because somebody asked for it before.
    Again(Duration, Wait),
}

/// Tells the end of a worker that nobody saw, removes what is left of it, and lets it go or wait for its next start.
pub fn follow_up(inner: &Arc<Inner>, id: &WorkerId, record: Record) {
    let rebooted = record.boot_id != inner.boot_id;
    let oom = clear(id, &record, rebooted);
    let exit = cause(&record, oom);
    let fate = fate(&record, &exit, rebooted);
    let waited = record.past.next_start_unix_nanos.is_some();
    // How the last run ended of a worker that waited is told already.
    if !waited {
        tell_end(inner, id, &record, &exit, rebooted);
    }
    match fate {
        Fate::Closed => {
            if waited {
                tell_given_up(inner, id, &record, rebooted);
            }
            inner.ledger.ended(id);
            if let Err(error) = inner.records.remove(id) {
                warn!(worker = %id, %error, "record of an ended worker not removed");
            }
        }
        Fate::Again(delay, wait) => {
            let last_exit = if waited { record.past.last_exit.clone() } else { Some(exit) };
            goes_on(inner, id, Record { past: Past { last_exit, ..record.past.clone() }, ..record }, delay, wait);
        }
    }
}

/// Removes its cgroup; whether the kernel had killed in it.
fn clear(id: &WorkerId, record: &Record, rebooted: bool) -> bool {
    let cgroup = record
        .cgroup
        .as_ref()
        .map(|home| Cgroup { path: home.path.clone(), inode: home.inode })
        .filter(|cgroup| !rebooted && cgroup.is_same());
    let oom = cgroup.as_ref().and_then(Cgroup::oom_kills).is_some_and(|count| count > record.oom_told);
    if let Some(cgroup) = cgroup
        && let Err(error) = cgroup.remove()
    {
        warn!(worker = %id, %error, "cgroup of an ended worker not removed");
    }
    oom
}

fn cause(record: &Record, oom: bool) -> proto::ExitCause {
    let (reason, stopped_by) = match &record.asked {
        Some(asked) => (proto::ExitReason::Stopped, asked.by.clone()),
        None if oom => (proto::ExitReason::MemoryLimit, String::new()),
        None => (proto::ExitReason::Unknown, String::new()),
    };
    proto::ExitCause { reason: reason.into(), stopped_by, ..Default::default() }
}

fn fate(record: &Record, exit: &proto::ExitCause, rebooted: bool) -> Fate {
    let policy = proto::RestartPolicy::try_from(record.restart).unwrap_or_default();
    let always = policy == proto::RestartPolicy::Always;
    match &record.asked {
        Some(asked) if asked.again && !rebooted => return Fate::Again(Duration::ZERO, Wait::Asked),
        Some(asked) if !asked.again => return Fate::Closed,
        _ => {}
    }
    // Its first start was never answered: whoever asked for it knows nothing of it.
    if record.past.runs == 0 {
        return Fate::Closed;
    }
    if rebooted {
        return if always { Fate::Again(Duration::ZERO, Wait::Reboot) } else { Fate::Closed };
    }
    if let Some(nanos) = record.past.next_start_unix_nanos {
        // A clock that was set back does not make it wait longer.
        let left = from_unix_nanos(nanos).duration_since(SystemTime::now()).unwrap_or_default();
        return Fate::Again(left.min(life::policy::longest()), Wait::Policy);
    }
    if life::policy::wants(policy, exit) {
        return Fate::Again(life::policy::interval(record.past.quick_ends + 1, 0.5).delay, Wait::Policy);
    }
    Fate::Closed
}

/// Into the table as one that waits.
fn goes_on(inner: &Arc<Inner>, id: &WorkerId, mut record: Record, delay: Duration, wait: Wait) {
    let waited = record.past.next_start_unix_nanos.is_some();
    let past = &mut record.past;
    if wait == Wait::Policy && !waited {
        let ran = record.process.and_then(|process| procfs::age(process.start_ticks)).unwrap_or_default();
        past.quick_ends = life::policy::quick_ends(past.quick_ends, ran);
    } else if wait != Wait::Policy {
        past.quick_ends = 0;
    }
    past.next_start_unix_nanos = Some(unix_nanos(SystemTime::now() + delay));
    let crash_loop = life::policy::interval(past.quick_ends, 0.5).crash_loop;
    let state = if crash_loop { proto::WorkerState::CrashLoop } else { proto::WorkerState::Backoff };
    record.boot_id.clone_from(&inner.boot_id);
    (record.process, record.cgroup) = (None, None);
    let asked = record.asked.clone();
    let spec = inner.spec(&record, None, proto::Origin::Adopted);
    let entry = Entry {
        names: Names::recorded(&record.model_names, record.model_given),
        endpoint_given: record.endpoint.is_some(),
        asked,
        record: Some(record),
        ..Entry::new(Member { slot: 0, id: id.clone(), spec, state, footing: None })
    };
    if !super::admit_unknown(inner, entry) {
        return;
    }
    inner.save(id);
    let slot = inner.table().live.get(id).map_or(0, |entry| entry.member.slot);
    let seconds = delay.as_secs_f64();
    info!(worker = %id, seconds, "worker waits for its next start");
    let message = match wait {
        Wait::Reboot => "the machine was started anew: started again now, as its restart policy always says".to_owned(),
        Wait::Asked => "started again now, as an earlier run of this hive was asked to".to_owned(),
        Wait::Policy => format!("started again in {seconds:.1} s, by its restart policy"),
    };
    inner.journal.add(id, News { kind: proto::LifeEventKind::Backoff, message, ..News::default() });
    inner.spawn(life::wait_for_start(inner.clone(), id.clone(), slot, delay, wait));
}

fn tell_end(inner: &Inner, id: &WorkerId, record: &Record, exit: &proto::ExitCause, rebooted: bool) {
    let exit = Some(exit.clone());
    let Some(process) = record.process else {
        let message = "the hive ended while it was being started".to_owned();
        let kind = proto::LifeEventKind::StartFailed;
        inner.journal.add(id, News { kind, message, exit, ..News::default() });
        return;
    };
    let oom = exit.as_ref().is_some_and(|exit| exit.reason() == proto::ExitReason::MemoryLimit);
    let message = match (rebooted, oom, &record.asked) {
        (true, ..) => "ended while no hive ran: the machine was started anew".to_owned(),
        (false, false, _) if process.start_ticks == 0 => {
            "let go: when it was started could not be read, so it cannot be known again and may still run".to_owned()
        }
        (false, _, Some(asked)) => format!("ended while no hive ran, as {} had asked", asked.by),
        (false, true, None) => "ended while no hive ran: the kernel had killed in it at its memory limit".to_owned(),
        (false, false, None) => "ended while no hive ran".to_owned(),
    };
    info!(worker = %id, pid = process.pid, "worker {message}");
    let kind = proto::LifeEventKind::Exited;
    inner.journal.add(id, News { kind, pid: process.pid, message, exit, ..News::default() });
}

/// Tells that a worker which waited is not started again.
fn tell_given_up(inner: &Inner, id: &WorkerId, record: &Record, rebooted: bool) {
    let message = match &record.asked {
        Some(asked) => format!("not started again: {} had asked for its end", asked.by),
        None if rebooted => {
            "not started again: the machine was started anew, and its restart policy is not always".to_owned()
        }
        None => "not started again".to_owned(),
    };
    info!(worker = %id, "worker {message}");
    inner.journal.add(id, News { kind: proto::LifeEventKind::StartFailed, message, ..News::default() });
}
