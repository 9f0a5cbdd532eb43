//! One worker's cgroup: make, limit, look, kill, remove. Which hierarchy it lives in is `ground`'s matter.

mod ground;
mod limit;

pub use ground::{CONTROLLERS, Ground, SliceError, cgroup2_mount, check_slice, enable, own_cgroup};
pub use limit::Outcome;

use crate::worker::sys;
use common::WorkerId;
use nix::sys::signal::Signal;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How often a directory is made anew when the emptied group above it vanishes meanwhile.
const MAKE_ATTEMPTS: u32 = 5;
/// Deeper trees are not walked.
const DEPTH_MAX: u32 = 16;

/// A worker's cgroup directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// The directory.
    pub path: PathBuf,
    /// Its inode: a remade directory has another one.
    pub inode: u64,
}

/// Whether an error says that something is gone, which is news and not a failure.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH))
}

impl Cgroup {
    /// Makes `<root>/<group>/<instance>`, fresh. A leftover of the same name that is empty is removed first;
    /// EEXIST when processes live in it. Controllers are passed on as far as they can be.
    pub fn make(root: &Path, id: &WorkerId) -> io::Result<Self> {
        let group = root.join(id.group());
        let path = group.join(id.instance());
        let mut attempt = 0;
        loop {
            attempt += 1;
            if let Err(error) = fs::create_dir_all(&group) {
                if attempt >= MAKE_ATTEMPTS || !is_gone(&error) {
                    return Err(error);
                }
                continue;
            }
            for controller in CONTROLLERS {
                // What cannot be passed on is missed where its file is looked for.
                let _ = enable(&group, controller);
            }
            match fs::create_dir(&path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let old = Self::open(&path)?;
                    if old.populated()? {
                        return Err(io::Error::from_raw_os_error(libc::EEXIST));
                    }
                    // A directory of plain files, as tests make one, stays.
                    if old.remove_tree().is_err() {
                        break;
                    }
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
            if attempt >= MAKE_ATTEMPTS {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
        }
        Self::open(&path)
    }

    /// An existing one.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: fs::metadata(path)?.ino() })
    }

    /// Whether the directory is still the one that was made, not another of the same name. One that cannot be looked at
    /// is not known to be.
    pub fn is_same(&self) -> bool {
        self.same().unwrap_or(false)
    }

    /// The same, with the error when it cannot be looked at.
    pub fn same(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(found) => Ok(found.ino() == self.inode),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The directory itself, to clone into.
    pub fn directory(&self) -> io::Result<OwnedFd> {
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        Ok(OpenOptions::new().read(true).custom_flags(flags).open(&self.path)?.into())
    }

    /// Its `cgroup.procs`, open for writing.
    pub fn procs(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// Whether a process lives in it or below it. A directory that is gone is empty.
    pub fn populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.path.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            // Gone altogether, or a directory without the kernel's files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(!self.listed()?.is_empty()),
            Err(error) => Err(error),
        }
    }

    /// The processes in it and below it; what vanishes meanwhile, or cannot be read, is left out.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        walk(&self.path, 0, &mut |directory| found.extend(pids(directory).unwrap_or_default()));
        found
    }

    /// The same, or the error when one of its directories cannot be read.
    pub fn listed(&self) -> io::Result<Vec<i32>> {
        let (mut found, mut failed) = (Vec::new(), None);
        let mut waiting = vec![(self.path.clone(), 0)];
        while let Some((directory, depth)) = waiting.pop() {
            match pids(&directory) {
                Ok(pids) => found.extend(pids),
                Err(error) if is_gone(&error) => {}
                Err(error) => failed = Some(error),
            }
            if depth < DEPTH_MAX {
                match below(&directory) {
                    Ok(more) => waiting.extend(more.into_iter().map(|path| (path, depth + 1))),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(found), Err)
    }

    /// How often the kernel killed in it because of its memory limit; `None` without the controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join("memory.events")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
    }

    /// Sends a signal to each process by a pidfd that was checked to be inside. Returns how many were reached.
    pub fn signal(&self, signal: Signal) -> usize {
        let opened: Vec<(i32, OwnedFd)> =
            self.processes().into_iter().filter_map(|pid| Some((pid, sys::open(pid).ok()?))).collect();
        // Listed again after opening: a pid that went to somebody else meanwhile is no longer in here.
        let inside = self.processes();
        opened
            .iter()
            .filter(|(pid, _)| inside.contains(pid))
            .filter(|(_, pidfd)| sys::send(pidfd.as_fd(), signal).is_ok())
            .count()
    }

    /// Kills everything in it: by `cgroup.kill`, else one by one. The caller repeats it until it is empty.
    pub fn kill(&self) {
        if write(&self.path.join("cgroup.kill"), "1").is_err() {
            self.signal(Signal::SIGKILL);
        }
    }

    /// Removes it, what it made below itself, and its group when that is empty now. Gone already is fine.
    pub fn remove(&self) -> io::Result<()> {
        self.remove_tree()?;
        if let Some(group) = self.path.parent() {
            // Other workers of the group may live on.
            let _ = fs::remove_dir(group);
        }
        Ok(())
    }

    fn remove_tree(&self) -> io::Result<()> {
        let mut directories = Vec::new();
        walk(&self.path, 0, &mut |directory| directories.push(directory.to_owned()));
        for directory in directories.iter().rev() {
            match fs::remove_dir(directory) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Every worker's cgroup below a slice: the directories two levels down whose names can be worker names.
pub fn enumerate(root: &Path) -> Vec<(WorkerId, Cgroup)> {
    let mut found = Vec::new();
    for group in directories(root) {
        for instance in directories(&group) {
            let names = (group.file_name().and_then(|n| n.to_str()), instance.file_name().and_then(|n| n.to_str()));
            let (Some(first), Some(second)) = names else { continue };
            if let (Ok(id), Ok(cgroup)) = (WorkerId::new(first, second), Cgroup::open(&instance)) {
                found.push((id, cgroup));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Writes to a file that must exist already: the kernel makes these, we never do.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// The processes in one directory. Zero stands for one of another pid namespace, which cannot be named from here.
fn pids(directory: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(directory.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect())
}

fn directories(path: &Path) -> Vec<PathBuf> {
    below(path).unwrap_or_default()
}

fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path)?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

/// Visits a directory before those below it.
fn walk(path: &Path, depth: u32, visit: &mut dyn FnMut(&Path)) {
    visit(path);
    if depth < DEPTH_MAX {
        for directory in directories(path) {
            walk(&directory, depth + 1, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(instance: &str) -> WorkerId {
        WorkerId::new("llm", instance).unwrap()
    }

    #[test]
    fn enumerate_walks_cgroup_tree() {
        let root = tempfile::tempdir().unwrap();
        for path in ["llm/8080/sub", "llm/9090", "embed/1", "Not-A-Name/1", ".probe"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        fs::write(root.path().join("llm/cgroup.procs"), "").unwrap();
        fs::write(root.path().join("llm/8080/cgroup.procs"), "12\n13\n0\n").unwrap();
        fs::write(root.path().join("llm/8080/sub/cgroup.procs"), "14\n").unwrap();
        let found = enumerate(root.path());
        let names: Vec<String> = found.iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(names, ["embed/1", "llm/8080", "llm/9090"]);
        assert_eq!(found[1].1.processes(), [12, 13, 14]);
        assert!(found[1].1.populated().unwrap());
        assert!(!found[2].1.populated().unwrap());
    }

    #[test]
    fn a_remade_directory_is_not_the_same() {
        let root = tempfile::tempdir().unwrap();
        let first = Cgroup::make(root.path(), &id("1")).unwrap();
        assert!(first.is_same());
        // Held by its inode number's neighbour, so that the file system cannot hand the number out again at once.
        fs::rename(&first.path, root.path().join("kept")).unwrap();
        let second = Cgroup::make(root.path(), &id("1")).unwrap();
        assert!(second.is_same() && !first.is_same());
        second.remove().unwrap();
        second.remove().unwrap();
        assert!(!root.path().join("llm").exists());
    }

    #[test]
    fn a_populated_leftover_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let old = Cgroup::make(root.path(), &id("1")).unwrap();
        fs::write(old.path.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert_eq!(Cgroup::make(root.path(), &id("1")).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    }
}
