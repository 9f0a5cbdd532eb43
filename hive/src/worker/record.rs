//! The intent records: what a new hive needs to find the workers of an earlier one and to start them again. Written
//! and synced before a start, completed after it, removed after the end. Beside each record lies the request that the
//! worker was started with; it may hold secrets, so only the owner can read it.

mod load;
mod wire;

use super::cgroup::Cgroup;
use common::WorkerId;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The ending of what a worker was started with.
const REQUEST: &str = "request";

/// One worker, as it is on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// First part of its name.
    pub group: String,
    /// Second part.
    pub instance: String,
    /// In which boot of the machine it was started.
    pub boot_id: String,
    /// Its first process; absent until the start has succeeded.
    pub process: Option<Process>,
    /// Its cgroup, if it was to have one.
    pub cgroup: Option<Home>,
    /// The command line as it may be shown.
    pub command: Vec<String>,
    /// Fingerprint of the command line as it was given.
    pub command_digest: String,
    /// Every name of its model, the display name first.
    pub model_names: Vec<String>,
    /// Whether the model was named at the start, and not read off the command line.
    pub model_given: bool,
    /// Scheme, host and port, when they were given.
    pub endpoint: Option<(String, String, u32)>,
    /// GPUs it was given.
    pub gpus: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The limits that were asked for.
    #[serde(with = "wire::limits")]
    pub limits: proto::Limits,
    /// Step of the ladder, as the wire numbers it.
    pub level: i32,
    /// File → text.
    pub applied: BTreeMap<String, String>,
    /// Sentences.
    pub not_applied: Vec<String>,
    /// Its restart policy, as the wire numbers it.
    #[serde(default)]
    pub restart: i32,
    /// How its engine is found, as the wire numbers it.
    #[serde(default)]
    pub probe: i32,
    /// The user that it runs as; empty: the hive's.
    #[serde(default)]
    pub user: String,
    /// It is killed when it was ready and then not for this long.
    #[serde(default)]
    pub health_timeout_millis: Option<u64>,
    /// Its present run has been ready.
    #[serde(default)]
    pub was_ready: bool,
    /// How its first process ended, when others of it live on.
    #[serde(default, with = "wire::exit")]
    pub first_exit: Option<proto::ExitCause>,
    /// Kills at its memory limit that were told as events.
    #[serde(default)]
    pub oom_told: u64,
    /// Its runs before this one.
    #[serde(default)]
    pub past: Past,
    /// Who asked for its end, when somebody did.
    #[serde(default)]
    pub asked: Option<Asked>,
}

/// The earlier runs of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// How often its program was executed.
    pub runs: u32,
    /// How often its restart policy started it again.
    pub restarts: u32,
    /// How often in a row it ended soon after its start.
    pub quick_ends: u32,
    /// How it ended the last time.
    #[serde(default, with = "wire::exit")]
    pub last_exit: Option<proto::ExitCause>,
    /// It waits for its next start: when that is, in nanoseconds since 1970.
    pub next_start_unix_nanos: Option<u64>,
}

/// That somebody asked for the end of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who.
    pub by: String,
    /// From SIGTERM to SIGKILL.
    pub grace_millis: u64,
    /// Whether it is to be started again at once.
    pub again: bool,
}

/// A process as an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
    /// The same on the wall clock, in nanoseconds since 1970.
    pub started_unix_nanos: u64,
}

/// A cgroup as an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Its directory.
    pub path: PathBuf,
    /// That directory's inode.
    pub inode: u64,
}

impl From<&Cgroup> for Home {
    fn from(cgroup: &Cgroup) -> Self {
        Self { path: cgroup.path.clone(), inode: cgroup.inode }
    }
}

impl Process {
    /// When it was started.
    pub fn started(&self) -> SystemTime {
        from_unix_nanos(self.started_unix_nanos)
    }

    /// From a wall-clock time.
    pub fn new(pid: i32, start_ticks: u64, started: SystemTime) -> Self {
        Self { pid, start_ticks, started_unix_nanos: unix_nanos(started) }
    }
}

/// A wall-clock time as records have it.
pub fn unix_nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Back again.
pub fn from_unix_nanos(nanos: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).unwrap_or(UNIX_EPOCH)
}

impl Record {
    /// The worker's name. Errors when the file holds something that is none.
    pub fn id(&self) -> Result<WorkerId, common::NameError> {
        WorkerId::new(&self.group, &self.instance)
    }
}

/// The directory that the records are in.
#[derive(Debug)]
pub struct Records {
    root: PathBuf,
    /// Held while a worker's files are written: the newest state is then what stays.
    turn: Mutex<()>,
}

impl Records {
    /// Opens or makes `<state>/workers`.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let root = state_dir.join("workers");
        make_private(&root)?;
        Ok(Self { root, turn: Mutex::new(()) })
    }

    /// Writes a record, in whole or not at all, and syncs it.
    #[cfg(test)]
    pub fn write(&self, record: &Record) -> io::Result<()> {
        self.write_latest(|| Some(record.clone()))
    }

    /// Writes the record that `latest` gives once it is this writer's turn, in whole or not at all, and syncs it.
    /// `None`: nothing is to be written any more.
    pub fn write_latest(&self, latest: impl FnOnce() -> Option<Record>) -> io::Result<()> {
        let _turn = self.turn();
        let Some(record) = latest() else { return Ok(()) };
        let text = serde_json::to_vec_pretty(&record).map_err(io::Error::other)?;
        self.put(&record.group, &format!("{}.json", record.instance), &text)
    }

    /// Writes down what a worker is started with, in whole or not at all, and syncs it.
    pub fn write_request(&self, id: &WorkerId, request: &proto::StartWorkerRequest) -> io::Result<()> {
        let _turn = self.turn();
        self.put(id.group(), &format!("{}.{REQUEST}", id.instance()), &request.encode_to_vec())
    }

    /// What a worker was started with; `None` when that was not written down.
    pub fn request(&self, id: &WorkerId) -> io::Result<Option<proto::StartWorkerRequest>> {
        match fs::read(self.root.join(id.group()).join(format!("{}.{REQUEST}", id.instance()))) {
            Ok(bytes) => proto::StartWorkerRequest::decode(bytes.as_slice()).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, group: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
        let directory = self.root.join(group);
        make_private(&directory)?;
        let draft = directory.join(format!(".{name}"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let written = written.and_then(|()| fs::rename(&draft, directory.join(name)));
        written.inspect_err(|_| drop(fs::remove_file(&draft)))?;
        File::open(&directory)?.sync_all()
    }

    /// Removes what is written about a worker. Gone already is fine.
    pub fn remove(&self, id: &WorkerId) -> io::Result<()> {
        let _turn = self.turn();
        let directory = self.root.join(id.group());
        // The record first: a request without one is dropped by the next hive.
        for ending in ["json", REQUEST] {
            match fs::remove_file(directory.join(format!("{}.{ending}", id.instance()))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Others of the group may still have theirs.
        let _ = fs::remove_dir(&directory);
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory that only its owner may look into.
pub fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
pub(super) mod tests;
