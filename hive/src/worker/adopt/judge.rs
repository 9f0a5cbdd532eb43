//! Whether a recorded worker still lives. Only the kernel's word that it is gone is its end: a hive that cannot read
//! declares nothing ended, tries again for a while, and then does not begin.

use crate::worker::cgroup::{Cgroup, is_gone};
use crate::worker::life::{self, LifeConfig};
use crate::worker::mend::mend;
use crate::worker::record::{Process, Record, Records};
use crate::worker::{procfs, sys};
use common::WorkerId;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tracing::warn;

/// How long what cannot be read is tried again. Adoption as a whole may take 3 s.
const PATIENCE: Duration = Duration::from_secs(2);
/// From one try to the next.
const RETRY: Duration = Duration::from_millis(100);

/// That it cannot be told whether a worker lives.
#[derive(Debug, thiserror::Error)]
#[error("tell whether {what} still lives{}; nothing was declared ended, and all that runs goes on", mend(.source))]
pub struct Unread {
    /// A worker, or the file of one.
    what: String,
    /// Why it cannot be read.
    #[source]
    source: io::Error,
}

/// A recorded worker, and what is left of it.
#[derive(Debug)]
pub struct Judged {
    pub id: WorkerId,
    pub record: Record,
    /// `None`: it has ended.
    pub traces: Option<Traces>,
}

/// What is left of a recorded worker.
#[derive(Debug)]
pub struct Traces {
    pub process: Process,
    /// `None`: its first process is gone, others in its cgroup live.
    pub pidfd: Option<OwnedFd>,
    pub cgroup: Option<Cgroup>,
}

/// Looks for every recorded worker, again and again until all could be looked for. Changes nothing.
pub async fn judge(config: &LifeConfig, boot_id: &str, records: &Records) -> Result<Vec<Judged>, Unread> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match judge_once(config, boot_id, records) {
            Ok(judged) => return Ok(judged),
            Err(unread) if tokio::time::Instant::now() >= deadline => return Err(unread),
            Err(Unread { what, source }) => {
                warn!(%what, error = %source, "not readable, tried again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn judge_once(config: &LifeConfig, boot_id: &str, records: &Records) -> Result<Vec<Judged>, Unread> {
    let read = records.read_all().map_err(|(path, source)| Unread { what: path.display().to_string(), source })?;
    let judged = read.into_iter().map(|(id, record)| match alive(config, boot_id, &id, &record) {
        Ok(traces) => Ok(Judged { id, record, traces }),
        Err(source) => Err(Unread { what: id.to_string(), source }),
    });
    judged.collect()
}

fn alive(config: &LifeConfig, boot_id: &str, id: &WorkerId, record: &Record) -> io::Result<Option<Traces>> {
    if record.boot_id != boot_id {
        return Ok(None);
    }
    let root = &config.proc_root;
    let home = record.cgroup.as_ref().map(|home| Cgroup { path: home.path.clone(), inode: home.inode });
    let cgroup = match home {
        Some(home) if home.same()? && home.populated()? => Some(home),
        _ => None,
    };
    let pidfd = match record.process.filter(|process| process.start_ticks > 0) {
        Some(process) => identified(root, process.pid, process.start_ticks)?,
        None => None,
    };
    Ok(match (&cgroup, &pidfd, record.process) {
        // Its first process is gone and it has no cgroup: it may still be its session.
        (None, None, Some(process)) if record.cgroup.is_none() => {
            let goes_on = remains(config, id, process)?;
            goes_on.then_some(Traces { process, pidfd: None, cgroup: None })
        }
        (None, None, _) => None,
        (_, _, Some(process)) => Some(Traces { process, pidfd, cgroup }),
        // The hive was killed between the start and its record: the oldest process is the first one.
        (Some(found), _, None) => match oldest(root, found)? {
            Some(process) => {
                let pidfd = identified(root, process.pid, process.start_ticks)?;
                Some(Traces { process, pidfd, cgroup })
            }
            None => None,
        },
        (None, Some(_), None) => None,
    })
}

/// Whether processes of this worker go on in its session. A session of that number could by now be somebody else's, so
/// one of them must bear the worker's name.
fn remains(config: &LifeConfig, id: &WorkerId, process: Process) -> io::Result<bool> {
    let root = &config.proc_root;
    let mark = life::mark(config, id);
    for pid in life::session(root, process.pid, process.start_ticks)? {
        if procfs::told_environment(root, pid)?.iter().any(|variable| *variable == mark.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A pidfd of exactly this process: its start time is looked at after opening, so a reused pid is not taken for it.
pub fn identified(root: &Path, pid: i32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    match sys::open(pid) {
        Ok(pidfd) => Ok(procfs::lives(root, pid, start_ticks)?.then_some(pidfd)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The process in it that was started first; `None` when there is none that can be named.
pub fn oldest(root: &Path, cgroup: &Cgroup) -> io::Result<Option<Process>> {
    let mut found: Option<(u64, i32)> = None;
    for pid in cgroup.listed()? {
        match procfs::stat(root, pid) {
            Ok(stat) => found = Some(found.map_or((stat.start_ticks, pid), |first| first.min((stat.start_ticks, pid)))),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.map(|(start_ticks, pid)| {
        let started = procfs::start_time(start_ticks).unwrap_or_else(SystemTime::now);
        Process::new(pid, start_ticks, started)
    }))
}
