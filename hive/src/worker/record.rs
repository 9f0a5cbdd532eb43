//! The intent records: what a new hive needs to find the workers of an earlier one. Written and synced before a
//! start, completed after it, removed after the end. Values of environment variables are never stored.

use super::cgroup::Cgroup;
use common::WorkerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::warn;

/// Records that cannot be read are kept under this ending, for people.
const UNREADABLE: &str = "unreadable";

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
    /// CPU and memory limit that were asked for, as they were written.
    pub limits: (String, String),
    /// Step of the ladder, as the wire numbers it.
    pub level: i32,
    /// File → text.
    pub applied: BTreeMap<String, String>,
    /// Sentences.
    pub not_applied: Vec<String>,
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
        UNIX_EPOCH.checked_add(Duration::from_nanos(self.started_unix_nanos)).unwrap_or(UNIX_EPOCH)
    }

    /// From a wall-clock time.
    pub fn new(pid: i32, start_ticks: u64, started: SystemTime) -> Self {
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { pid, start_ticks, started_unix_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }
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
}

impl Records {
    /// Opens or makes `<state>/workers`.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let root = state_dir.join("workers");
        make_private(&root)?;
        Ok(Self { root })
    }

    /// Writes a record, in whole or not at all, and syncs it.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let directory = self.root.join(&record.group);
        make_private(&directory)?;
        let name = format!("{}.json", record.instance);
        let draft = directory.join(format!(".{name}"));
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, directory.join(name))?;
        File::open(&directory)?.sync_all()
    }

    /// Removes a worker's record. Gone already is fine.
    pub fn remove(&self, id: &WorkerId) -> io::Result<()> {
        let directory = self.root.join(id.group());
        match fs::remove_file(directory.join(format!("{}.json", id.instance()))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Others of the group may still have theirs.
        let _ = fs::remove_dir(&directory);
        Ok(())
    }

    /// Every record. One that cannot be read is set aside with a warning; half-written drafts are dropped.
    pub fn load(&self) -> Vec<(WorkerId, Record)> {
        let mut found = Vec::new();
        for group in entries(&self.root) {
            for path in entries(&group) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                if name.starts_with('.') {
                    let _ = fs::remove_file(&path);
                } else if name.ends_with(".json") {
                    match read(&path) {
                        Ok(record) => found.push(record),
                        Err(error) => {
                            warn!(path = %path.display(), %error, "record set aside: not readable");
                            let _ = fs::rename(&path, path.with_extension(UNREADABLE));
                        }
                    }
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

fn read(path: &Path) -> io::Result<(WorkerId, Record)> {
    let record: Record = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    let id = record.id().map_err(io::Error::other)?;
    // A copy under another name would be the same worker twice.
    if !path.ends_with(Path::new(id.group()).join(format!("{}.json", id.instance()))) {
        return Err(io::Error::other(format!("it is the record of {id}")));
    }
    Ok((id, record))
}

fn entries(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).map(|found| found.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// A directory that only its owner may look into.
pub fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    pub fn record(instance: &str) -> Record {
        Record {
            group: "llm".into(),
            instance: instance.into(),
            boot_id: "boot".into(),
            process: Some(Process { pid: 12, start_ticks: 34, started_unix_nanos: 56 }),
            cgroup: Some(Home { path: "/x/llm/1".into(), inode: 7 }),
            command: vec!["sleep".into()],
            command_digest: "0".into(),
            model_names: vec!["m".into()],
            model_given: true,
            endpoint: Some(("http".into(), "h".into(), 1)),
            gpus: vec!["0".into()],
            labels: BTreeMap::from([("a".into(), "b".into())]),
            limits: ("200%".into(), String::new()),
            level: 2,
            applied: BTreeMap::new(),
            not_applied: vec!["memory".into()],
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        records.write(&record("1")).unwrap();
        records.write(&record("2")).unwrap();
        let loaded = records.load();
        assert_eq!(loaded.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(), ["llm/1", "llm/2"]);
        assert_eq!(loaded[0].1, record("1"));
        let mode = fs::metadata(state.path().join("workers/llm/1.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (id, _) in &loaded {
            records.remove(id).unwrap();
            records.remove(id).unwrap();
        }
        assert!(records.load().is_empty());
    }

    #[test]
    fn an_unreadable_record_hides_no_other() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        records.write(&record("1")).unwrap();
        fs::write(state.path().join("workers/llm/2.json"), "{").unwrap();
        fs::write(state.path().join("workers/llm/.3.json"), "{").unwrap();
        fs::copy(state.path().join("workers/llm/1.json"), state.path().join("workers/llm/4.json")).unwrap();
        assert_eq!(records.load().len(), 1);
        assert!(state.path().join("workers/llm/2.unreadable").exists());
        assert!(!state.path().join("workers/llm/.3.json").exists());
    }
}
