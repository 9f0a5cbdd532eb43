//! Who owns a slice: one lock in the state directory, and one on the slice's cgroup directory where there is one; who
//! owns the state directory is `state`'s matter. The file holds "PID START_TICKS" of the owner, so that others can judge whether the slice has a live one.

mod state;

pub use state::StateLock;

use super::mend::mend;
use super::procfs;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// How long a lock that another hive holds is asked for again: the time that a stopping hive may need.
const PATIENCE: Duration = Duration::from_secs(1);
/// From one try to the next.
const RETRY: Duration = Duration::from_millis(50);

/// Why a slice could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another hive lives on it.
    #[error("lock slice {slice}: another hive holds it, {}; stop that hive or use another --slice and --state-dir", holder(.pid))]
    Held {
        /// The slice.
        slice: String,
        /// The other hive's process, if it could be told.
        pid: Option<i32>,
    },
    /// Another hive lives in the state directory.
    #[error(
        "lock state directory {}: hive {hive} holds it, {}; stop that hive or use another --state-dir",
        .state_dir.display(), holder(.pid)
    )]
    Owned {
        /// The state directory.
        state_dir: PathBuf,
        /// The other hive's name, as far as it could be told.
        hive: String,
        /// Its process, if it could be told.
        pid: Option<i32>,
    },
    /// The state directory cannot be locked at all.
    #[error("lock the state directory by {}{}", .path.display(), mend(.source))]
    State {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The lock cannot be taken at all.
    #[error("lock slice at {}{}", .path.display(), mend(.source))]
    Failed {
        /// What was to be locked.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: &Option<i32>) -> String {
    pid.map_or_else(|| "of unknown pid".to_owned(), |pid| format!("pid {pid}"))
}

/// Both locks; given back when dropped, or by the kernel when the hive dies.
#[derive(Debug)]
pub struct SliceLock {
    _file: Flock<File>,
    directory: Option<Flock<File>>,
}

impl SliceLock {
    /// Takes `<state>/<slice>.lock`, asking again for about a second.
    pub async fn take(state_dir: &Path, slice: &str, proc_root: &Path) -> Result<Self, LockError> {
        let path = state_dir.join(format!("{slice}.lock"));
        let at = |source: io::Error| LockError::Failed { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        let mut held = patiently(file).await.map_err(at)?.map_err(|_| LockError::Held {
            slice: slice.to_owned(),
            pid: fs::read_to_string(&path).ok().and_then(|text| text.split_whitespace().next()?.parse().ok()),
        })?;
        note_owner(&mut held, &path, proc_root, "");
        Ok(Self { _file: held, directory: None })
    }

    /// Takes the slice's cgroup directory too. `Ok(false)`: it was removed meanwhile and must be made again.
    pub async fn take_directory(&mut self, root: &Path, slice: &str, proc_root: &Path) -> Result<bool, LockError> {
        let at = |source: io::Error| LockError::Failed { path: root.to_owned(), source };
        let file = File::open(root).map_err(at)?;
        let inode = file.metadata().map_err(at)?.ino();
        match patiently(file).await.map_err(at)? {
            Ok(held) => {
                let same = fs::metadata(root).is_ok_and(|found| found.ino() == inode);
                self.directory = same.then_some(held);
                Ok(same)
            }
            Err(_) => Err(LockError::Held { slice: slice.to_owned(), pid: holder_of(proc_root, inode) }),
        }
    }
}

/// Writes down who holds a lock. It is held all the same on a disk that does not take that.
fn note_owner(held: &mut Flock<File>, path: &Path, proc_root: &Path, more: &str) {
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let ticks = procfs::stat(proc_root, pid).map_or(0, |own| own.start_ticks);
    let text = format!("{pid} {ticks}{more}\n");
    // Over what is there: a full disk has room for that, and for nothing that was cut off before.
    let written = held.write_all_at(text.as_bytes(), 0).and_then(|()| held.set_len(text.len() as u64));
    if let Err(error) = written {
        warn!(path = %path.display(), %error, "the lock is held, but its file does not name this hive");
    }
}

/// `Ok(Err)`: somebody else holds it.
async fn patiently(mut file: File) -> io::Result<Result<Flock<File>, File>> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Ok(held)),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(Err(file));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The process that holds a flock on this inode, from `/proc/locks`:
/// `1: FLOCK  ADVISORY  WRITE 1234 00:26:5678 0 EOF`.
pub fn holder_of(proc_root: &Path, inode: u64) -> Option<i32> {
    let text = fs::read_to_string(proc_root.join("locks")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.nth(1)? == "FLOCK").then_some(())?;
        let pid = fields.nth(2)?.parse().ok()?;
        let number: u64 = fields.next()?.rsplit(':').next()?.parse().ok()?;
        (number == inode && pid > 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_held_slice_is_refused_with_the_pid_of_its_hive() {
        let state = tempfile::tempdir().unwrap();
        let proc_root = Path::new("/proc");
        let mut first = SliceLock::take(state.path(), "a.slice", proc_root).await.unwrap();
        let own = std::process::id();
        let text = fs::read_to_string(state.path().join("a.slice.lock")).unwrap();
        let ticks = procfs::stat(proc_root, i32::try_from(own).unwrap()).unwrap().start_ticks;
        assert_eq!(text, format!("{own} {ticks}\n"));
        let error = SliceLock::take(state.path(), "a.slice", proc_root).await.unwrap_err();
        assert!(error.to_string().contains(&format!("pid {own}")), "{error}");

        let slice = tempfile::tempdir().unwrap();
        assert!(first.take_directory(slice.path(), "a.slice", proc_root).await.unwrap());
        let mut other = SliceLock::take(state.path(), "b.slice", proc_root).await.unwrap();
        let error = other.take_directory(slice.path(), "a.slice", proc_root).await.unwrap_err();
        assert!(error.to_string().contains(&format!("pid {own}")), "{error}");

        drop(first);
        SliceLock::take(state.path(), "a.slice", proc_root).await.unwrap();
    }
}
