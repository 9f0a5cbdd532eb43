//! What the hive keeps about one worker beside what it tells the world, and the table of all of them.

use super::launching::Launching;
use super::start::StartError;
use crate::roster::{Member, Slot};
use crate::worker::cgroup::Cgroup;
use crate::worker::observe::Sights;
use crate::worker::record::{Asked, Record};
use common::WorkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::sync::watch::Sender;

/// More names of one model than this are not kept.
const NAMES_MAX: usize = 8;
/// Longer names, in bytes, are not names: a worker's description has to fit on the wire.
const NAME_MAX: usize = 256;

/// Every worker, by name.
#[derive(Debug, Default)]
pub struct Table {
    last_slot: Slot,
    /// Those that live, and those that wait for their next start.
    pub live: BTreeMap<WorkerId, Entry>,
    /// Names that are being started for the first time.
    pub starting: BTreeSet<WorkerId>,
    /// The starts that are under way, first ones and others.
    pub launching: BTreeMap<WorkerId, Launching>,
    /// GPU memory promised to those that are being started or were started here: UUID and bytes.
    pub promised: BTreeMap<WorkerId, (String, u64)>,
    /// What is only looked at: apart from `live`, so that nothing here can signal or end it.
    pub observed: Sights,
}

/// One worker. Made by [`Entry::new`], with what differs set by update syntax.
#[derive(Debug)]
pub struct Entry {
    pub member: Arc<Member>,
    /// What is on disk about it; `None` when nobody here started it.
    pub record: Option<Record>,
    /// What its model is called, and by whom.
    pub names: Names,
    /// Its endpoint was named at the start: where it listens changes nothing.
    pub endpoint_given: bool,
    /// Its first process, as long as that lives.
    pub pidfd: Option<Arc<OwnedFd>>,
    pub cgroup: Option<Cgroup>,
    /// Memory-limit kills in its cgroup that have been told of, or were before it was ours to watch.
    pub oom_before: u64,
    /// Who asked for its end.
    pub asked: Option<Asked>,
    /// It is being killed because it was not healthy for too long.
    pub unhealthy: bool,
    /// Its caller waits for it to be ready: if it ends before that, it was not started at all.
    pub probation: bool,
    /// It has left the roster; what is on disk about it goes next, and then its name is free.
    pub leaving: bool,
    /// When its present run began, as far as this hive can tell.
    pub began: Instant,
    /// Since when it has not been ready, having been so before.
    pub unready_since: Option<Instant>,
    /// Processes of it that were seen to hold GPU memory.
    pub gpu_holders: BTreeSet<u32>,
    /// Ends its wait for the next start.
    pub wake: Arc<Notify>,
    /// For those who wait for something of it.
    pub standing: Sender<Standing>,
}

/// What those are told who wait for a worker.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Counts its runs in this hive.
    pub run: u32,
    /// How the present run ended, when it has.
    pub ended: Option<proto::ExitCause>,
    /// Why the last try to start it again failed, when it did.
    pub failure: Option<Arc<StartError>>,
    /// It is out of the table for good.
    pub gone: bool,
    /// Whether it can take requests; unspecified until somebody has told.
    pub readiness: proto::Readiness,
}

/// What the model of a worker is called, by source, the most trusted first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Given at its start.
    pub given: Option<String>,
    /// Told by its engine.
    pub engine: Vec<String>,
    /// Read off its command line.
    pub command: Vec<String>,
}

impl Names {
    /// As a record has them: the first one was given, if any was.
    pub fn recorded(names: &[String], given: bool) -> Self {
        let (first, rest) = if given { names.split_at(names.len().min(1)) } else { names.split_at(0) };
        Self { given: first.first().cloned(), engine: Vec::new(), command: rest.to_vec() }
    }

    /// All of them, the display name first.
    pub fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in self.given.iter().chain(&self.engine).chain(&self.command) {
            let fits = !name.is_empty() && name.len() <= NAME_MAX && all.len() < NAMES_MAX;
            if fits && !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }
}

impl Table {
    pub fn next_slot(&mut self) -> Slot {
        self.last_slot += 1;
        self.last_slot
    }

    pub fn knows(&self, id: &WorkerId) -> bool {
        self.live.contains_key(id) || self.starting.contains(id) || self.observed.knows(id)
    }

    /// The worker of this name, if it is still the one that had this slot.
    pub fn entry(&mut self, id: &WorkerId, slot: Slot) -> Option<&mut Entry> {
        self.live.get_mut(id).filter(|entry| entry.member.slot == slot)
    }
}

impl Entry {
    /// A worker of which nothing is known but what the world is told.
    pub fn new(member: Member) -> Self {
        Self {
            member: Arc::new(member),
            record: None,
            names: Names::default(),
            endpoint_given: false,
            pidfd: None,
            cgroup: None,
            oom_before: 0,
            asked: None,
            unhealthy: false,
            probation: false,
            leaving: false,
            began: Instant::now(),
            unready_since: None,
            gpu_holders: BTreeSet::new(),
            wake: Arc::default(),
            standing: Sender::default(),
        }
    }

    /// Where it is in its life.
    pub fn set_state(&mut self, state: proto::WorkerState) {
        if self.member.state != state {
            self.member = Arc::new(Member { state, ..(*self.member).clone() });
        }
    }

    /// Whether it has no process because it waits for its next start.
    pub fn waits(&self) -> bool {
        matches!(self.member.state, proto::WorkerState::Backoff | proto::WorkerState::CrashLoop)
    }

    /// What is done when it ends by itself.
    pub fn policy(&self) -> proto::RestartPolicy {
        self.member.spec.restart()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_trust() {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut names = Names::recorded(&text(&["given", "m.gguf"]), true);
        names.engine = text(&["served", "given", ""]);
        assert_eq!(names.all(), ["given", "served", "m.gguf"]);
        names.given = None;
        assert_eq!(names.all(), ["served", "given", "m.gguf"]);
        assert_eq!(Names::recorded(&text(&["m.gguf"]), false).given, None);
        assert_eq!(Names::recorded(&[], true).all(), Vec::<String>::new());
        names.engine = (0..99).map(|n| n.to_string()).collect();
        assert_eq!(names.all().len(), NAMES_MAX);
    }
}
