//! Finding workers that this hive did not start: those of an earlier hive, from their records, and those that nobody
//! recorded, from their cgroups. The latter are reported and never signalled unasked.

mod ended;
mod judge;

pub use judge::{Judged, Unread, judge};

use super::cgroup::{self, Cgroup};
use super::journal::News;
use super::life::{Entry, Inner, Names};
use super::record::{Process, Record};
use super::{command, life, model, procfs};
use crate::roster::{Footing, Member};
use common::WorkerId;
use judge::Traces;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// How often the slice is searched for cgroups that nobody recorded.
const RESCAN_INTERVAL: Duration = Duration::from_secs(2);

/// Takes over every recorded worker that still lives and tells of those that do not; then looks for others.
pub fn adopt(inner: &Arc<Inner>, judged: Vec<Judged>) {
    for Judged { id, record, traces } in judged {
        match traces {
            Some(traces) => take_over(inner, &id, &record, traces),
            None => ended::follow_up(inner, &id, record),
        }
    }
    find(inner);
    sweep(inner);
}

/// Removes the cgroups of starts that never came to a process: the last child of a killed hive may leave its own only
/// after the next hive has looked.
pub fn sweep(inner: &Inner) {
    let Some(root) = &inner.ground.root else { return };
    for (id, cgroup) in cgroup::enumerate(root) {
        // Held meanwhile: a start takes its name before it makes its cgroup.
        let table = inner.table();
        if table.knows(&id) || cgroup.populated().unwrap_or(true) {
            continue;
        }
        if let Err(error) = cgroup.remove() {
            warn!(worker = %id, %error, "empty cgroup not removed");
        }
    }
}

/// Looks for unrecorded workers, and for those who hold GPU memory, for as long as the hive runs.
pub async fn rescan(inner: Arc<Inner>) {
    let mut interval = tokio::time::interval(RESCAN_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = interval.tick() => {
                find(&inner);
                sweep(&inner);
                inner.remember_gpu_holders();
            }
        }
    }
}

fn take_over(inner: &Arc<Inner>, id: &WorkerId, record: &Record, traces: Traces) {
    let Traces { process, pidfd, cgroup } = traces;
    let record = Record { process: Some(process), ..record.clone() };
    let home = cgroup.as_ref().map(super::record::Home::from);
    let asked = record.asked.clone();
    let member = Member {
        slot: 0,
        id: id.clone(),
        spec: inner.spec(&record, Some(process), proto::Origin::Adopted),
        state: if asked.is_some() { proto::WorkerState::Stopping } else { proto::WorkerState::Running },
        footing: Some(life::footing(process, home.as_ref())),
    };
    let now = Instant::now();
    let began = procfs::age(process.start_ticks).and_then(|age| now.checked_sub(age)).unwrap_or(now);
    let entry = Entry {
        names: Names::recorded(&record.model_names, record.model_given),
        endpoint_given: record.endpoint.is_some(),
        pidfd: pidfd.map(Arc::new),
        oom_before: record.oom_told,
        record: Some(record),
        cgroup,
        asked: asked.clone(),
        began,
        ..Entry::new(member)
    };
    admit(inner, entry);
    info!(worker = %id, pid = process.pid, "worker adopted");
    let message = "taken over from an earlier run of this hive".to_owned();
    inner.journal.add(id, News { kind: proto::LifeEventKind::Adopted, pid: process.pid, message, ..News::default() });
    if let Some(asked) = asked {
        let grace = Duration::from_millis(asked.grace_millis);
        inner.spawn(life::go_on_stopping(inner.clone(), id.clone(), grace));
    }
}

/// Reports populated cgroups that nobody recorded.
fn find(inner: &Arc<Inner>) {
    let Some(root) = &inner.ground.root else { return };
    for (id, cgroup) in cgroup::enumerate(root) {
        if inner.table().knows(&id) || !cgroup.populated().unwrap_or(false) {
            continue;
        }
        // What cannot be read now is found at the next look.
        let root = &inner.config.proc_root;
        let Ok(Some(process)) = judge::oldest(root, &cgroup) else { continue };
        let Ok(pidfd) = judge::identified(root, process.pid, process.start_ticks) else { continue };
        let entry = found_entry(inner, &id, process, pidfd, cgroup);
        if !admit_unknown(inner, entry) {
            continue;
        }
        warn!(worker = %id, pid = process.pid, "found processes in our slice that nobody recorded");
        let message = "found in our slice, started by somebody else; it is left alone".to_owned();
        inner
            .journal
            .add(&id, News { kind: proto::LifeEventKind::Found, pid: process.pid, message, ..News::default() });
    }
}

fn found_entry(inner: &Inner, id: &WorkerId, process: Process, pidfd: Option<OwnedFd>, cgroup: Cgroup) -> Entry {
    let arguments = command::escaped(&procfs::command(&inner.config.proc_root, process.pid));
    let model_names = model::names(&arguments, None);
    let spec = proto::WorkerSpec {
        hive: inner.config.hive.to_string(),
        group: id.group().to_owned(),
        instance: id.instance().to_owned(),
        pid: u32::try_from(process.pid).unwrap_or_default(),
        start_time: Some(common::timestamp(process.started())),
        origin: proto::Origin::Found.into(),
        command: command::shown(&arguments),
        model: model_names.first().cloned(),
        model_names,
        placement: Some(proto::Placement {
            level: inner.ground.level.into(),
            cgroup: cgroup.path.display().to_string(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let footing = Footing {
        pid: process.pid,
        start_ticks: process.start_ticks,
        cgroup: Some(cgroup.path.clone()),
        cgroup_inode: Some(cgroup.inode),
    };
    let state = proto::WorkerState::Running;
    let member = Member { slot: 0, id: id.clone(), spec, state, footing: Some(footing) };
    Entry {
        names: Names::recorded(&member.spec.model_names, false),
        pidfd: pidfd.map(Arc::new),
        oom_before: cgroup.oom_kills().unwrap_or_default(),
        cgroup: Some(cgroup),
        ..Entry::new(member)
    }
}

fn admit(inner: &Arc<Inner>, entry: Entry) {
    admit_unknown(inner, entry);
}

/// Gives the entry its slot and begins to watch it; `false` when its name has come into use meanwhile.
fn admit_unknown(inner: &Arc<Inner>, mut entry: Entry) -> bool {
    let mut table = inner.table();
    let id = entry.member.id.clone();
    let gone = entry.cgroup.as_ref().is_some_and(|cgroup| !cgroup.is_same());
    if table.knows(&id) || gone {
        return false;
    }
    let slot = table.next_slot();
    let lives = entry.member.footing.is_some();
    entry.member = Arc::new(Member { slot, ..(*entry.member).clone() });
    inner.admit(&mut table, entry);
    drop(table);
    if lives {
        inner.spawn(life::watch_worker(inner.clone(), id, slot));
    }
    true
}
