//! The end of a run: its cause, its story, and the removal of what was made for it. Whether it was the last one is
//! `restart`'s matter.

use super::entry::{Entry, Standing};
use super::{Inner, outside};
use crate::roster::Slot;
use crate::worker::journal::News;
use crate::worker::sys::Ended;
use common::WorkerId;
use std::sync::Arc;
use tracing::{info, warn};

impl Inner {
    /// Tells how a run ended of which nothing is left but these processes, and lets the worker go or start again.
    pub fn see_out(self: &Arc<Self>, id: &WorkerId, slot: Slot, ended: Ended, left: &[i32]) {
        let (cause, cgroup, pid) = {
            let mut table = self.table();
            let Some(entry) = table.entry(id, slot) else { return };
            (cause(entry, ended), entry.cgroup.clone(), entry.member.pid().unwrap_or_default())
        };
        if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.is_same())
            && let Err(error) = cgroup.remove()
        {
            warn!(worker = %id, %error, path = %cgroup.path.display(), "cgroup not removed");
        }
        let message = sentence(&cause) + &outside::words(left);
        info!(worker = %id, pid, "worker gone: {message}");
        let news = News {
            kind: proto::LifeEventKind::Exited,
            pid,
            message: format!("ended: {message}"),
            exit: Some(cause.clone()),
            ..News::default()
        };
        // Told before its record goes: a hive that is killed in between tells it twice rather than never.
        self.journal.add(id, news);
        self.after_end(id, slot, cause, None);
    }

    /// Takes a worker out of everything, for good.
    pub fn let_go(&self, id: &WorkerId, slot: Slot, last: Standing) {
        {
            let mut table = self.table();
            let Some(entry) = table.entry(id, slot) else { return };
            // From here on nobody writes it anew.
            entry.record = None;
            // Everybody sees it go before the disk has forgotten it.
            entry.leaving = true;
            self.publish(&table);
        }
        if let Err(error) = self.records.remove(id) {
            warn!(worker = %id, %error, "record not removed");
        }
        let mut table = self.table();
        if table.entry(id, slot).is_none() {
            return;
        }
        let Some(entry) = table.live.remove(id) else { return };
        drop(table);
        entry.standing.send_modify(|standing| {
            *standing = Standing { run: standing.run, gone: true, readiness: proto::Readiness::Unspecified, ..last }
        });
    }
}

fn cause(entry: &Entry, ended: Ended) -> proto::ExitCause {
    let mut cause = plain(ended);
    let oom_kills = entry.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills()).unwrap_or_default();
    if let Some(asked) = &entry.asked {
        cause.reason = proto::ExitReason::Stopped.into();
        cause.stopped_by.clone_from(&asked.by);
    } else if entry.unhealthy {
        cause.reason = proto::ExitReason::HealthTimeout.into();
    } else if oom_kills > entry.oom_before && ended != Ended::Code(0) {
        // A kill that it did not outlive: of its first process, or of one that it could not go on without.
        cause.reason = proto::ExitReason::MemoryLimit.into();
    }
    cause
}

/// The cause as far as the process itself tells.
pub fn plain(ended: Ended) -> proto::ExitCause {
    let (reason, code, signal) = match ended {
        Ended::Code(code) => (proto::ExitReason::Code, Some(code), None),
        Ended::Signal(signal) => (proto::ExitReason::Signal, None, Some(signal)),
        Ended::Unknown => (proto::ExitReason::Unknown, None, None),
    };
    proto::ExitCause { reason: reason.into(), code, signal, stopped_by: String::new() }
}

/// The end of a worker that had no process when somebody asked for it.
pub fn stopped(by: String) -> proto::ExitCause {
    proto::ExitCause { reason: proto::ExitReason::Stopped.into(), stopped_by: by, ..Default::default() }
}

/// A cause as people say it.
pub fn sentence(cause: &proto::ExitCause) -> String {
    let how = match (cause.code, cause.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("", |known| known.as_str());
            format!("signal {signal} {name}").trim_end().to_owned()
        }
        _ => "nobody could tell how".to_owned(),
    };
    let told = cause.code.is_some() || cause.signal.is_some();
    match cause.reason() {
        proto::ExitReason::Stopped if !told => format!("stopped by {}", cause.stopped_by),
        proto::ExitReason::MemoryLimit => format!("killed at its memory limit ({how})"),
        proto::ExitReason::HealthTimeout => format!("killed because it had not been healthy for too long ({how})"),
        proto::ExitReason::Stopped => format!("stopped by {} ({how})", cause.stopped_by),
        _ => how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Member;
    use crate::worker::cgroup::Cgroup;

    #[test]
    fn l9_each_cause_reads_as_a_sentence() {
        assert_eq!(sentence(&plain(Ended::Code(3))), "exit code 3");
        assert_eq!(sentence(&plain(Ended::Signal(9))), "signal 9 SIGKILL");
        assert_eq!(sentence(&plain(Ended::Signal(64))), "signal 64");
        assert_eq!(sentence(&plain(Ended::Unknown)), "nobody could tell how");
        let mut cause = plain(Ended::Signal(15));
        cause.reason = proto::ExitReason::Stopped.into();
        cause.stopped_by = "rbee".into();
        assert_eq!(sentence(&cause), "stopped by rbee (signal 15 SIGTERM)");
        cause.signal = None;
        assert_eq!(sentence(&cause), "stopped by rbee");
    }

    #[test]
    fn l9_only_a_kill_that_was_not_outlived_is_a_cause() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("memory.events"), "oom 1\noom_kill 1\noom_group_kill 0\n").unwrap();
        let member = Member {
            slot: 1,
            id: WorkerId::new("llm", "1").unwrap(),
            spec: proto::WorkerSpec::default(),
            state: proto::WorkerState::Running,
            footing: None,
        };
        let mut entry = Entry { cgroup: Some(Cgroup::open(top.path()).unwrap()), ..Entry::new(member) };
        for (ended, reason) in [
            (Ended::Signal(9), proto::ExitReason::MemoryLimit),
            // Its child was killed, and it did not go on without it.
            (Ended::Code(1), proto::ExitReason::MemoryLimit),
            (Ended::Unknown, proto::ExitReason::MemoryLimit),
            (Ended::Code(0), proto::ExitReason::Code),
        ] {
            assert_eq!(cause(&entry, ended).reason(), reason, "{ended:?}");
        }
        // It was told as an event, and outlived.
        entry.oom_before = 1;
        assert_eq!(cause(&entry, Ended::Signal(9)).reason(), proto::ExitReason::Signal);
    }
}
