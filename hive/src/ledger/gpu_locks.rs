//! Which hive of this machine may grant a GPU: the one that holds a lock on the GPU's file, in a directory that the hives
//! of all users share. Held from the first grant or promise until none is left; given back by the kernel when a hive dies.

use crate::worker::lock_holder;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So often a file that is removed while it is being locked is made again.
const ATTEMPTS: u32 = 3;

/// The locks that this hive holds.
#[derive(Debug)]
pub struct GpuLocks {
    directory: PathBuf,
    proc_root: PathBuf,
    held: Mutex<BTreeMap<String, Flock<File>>>,
}

impl GpuLocks {
    /// None yet.
    pub fn new(directory: &Path, proc_root: &Path) -> Self {
        Self { directory: directory.to_owned(), proc_root: proc_root.to_owned(), held: Mutex::default() }
    }

    /// Takes the lock of a GPU unless it is held already. Else a sentence that says who holds it, or why it cannot be
    /// had.
    pub fn take(&self, uuid: &str) -> Result<(), String> {
        let path = self.path(uuid);
        let mut held = self.held();
        // One whose file somebody has removed is a lock that nobody else sees.
        if held.get(uuid).is_some_and(|lock| is_at(lock, &path)) {
            return Ok(());
        }
        held.remove(uuid);
        let failed = |error: &io::Error| {
            let path = path.display();
            format!("whether another hive of this machine grants it cannot be told: lock {path}: {error}")
        };
        for _ in 0..ATTEMPTS {
            let file = open(&path).map_err(|error| failed(&error))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if is_at(&lock, &path) => {
                    held.insert(uuid.to_owned(), lock);
                    return Ok(());
                }
                Ok(_) => {}
                Err((file, nix::errno::Errno::EWOULDBLOCK)) => return Err(self.elsewhere(&file)),
                Err((_, errno)) => return Err(failed(&errno.into())),
            }
        }
        Err(failed(&io::Error::other("its file is removed again and again")))
    }

    /// Gives back the locks of all other GPUs.
    pub fn keep(&self, wanted: &BTreeSet<String>) {
        self.held().retain(|uuid, _| wanted.contains(uuid));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    fn elsewhere(&self, file: &File) -> String {
        let pid = file.metadata().ok().and_then(|found| lock_holder(&self.proc_root, found.ino()));
        let Some(pid) = pid else {
            return "another hive of this machine grants it, whose process cannot be seen from here".to_owned();
        };
        let place = self.proc_root.join(pid.to_string());
        let user = fs::metadata(&place).ok().map(|found| nix::unistd::Uid::from_raw(found.uid()));
        let name = user.map(|uid| match nix::unistd::User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            _ => uid.to_string(),
        });
        match name {
            Some(name) => format!("another hive of this machine grants it, process {pid} of user {name}"),
            None => format!("another hive of this machine grants it, process {pid}"),
        }
    }

    /// UUIDs are names of files but for what a driver could make up.
    fn path(&self, uuid: &str) -> PathBuf {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '_' };
        let name: String = uuid.chars().map(plain).collect();
        self.directory.join(format!("rbee-gpu-{name}.lock"))
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Flock<File>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the file, or makes it. In a directory for everybody the kernel lets nobody open another one's file for making
/// or writing (`fs.protected_regular`), and a lock needs neither.
fn open(path: &Path) -> io::Result<File> {
    let read = || OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    // For everybody to lock, whatever mask this hive was started with.
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(path);
    match made {
        Ok(file) => {
            nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o644))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(),
        Err(error) => Err(error),
    }
}

fn is_at(lock: &File, path: &Path) -> bool {
    let (Ok(own), Ok(found)) = (lock.metadata(), fs::symlink_metadata(path)) else { return false };
    own.ino() == found.ino() && own.dev() == found.dev()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(directory: &Path) -> GpuLocks {
        GpuLocks::new(directory, Path::new("/proc"))
    }

    #[test]
    fn g1_of_two_hives_one_grants_a_gpu_and_the_other_says_who() {
        let place = tempfile::tempdir().unwrap();
        let (first, second) = (locks(place.path()), locks(place.path()));
        assert_eq!((first.take("GPU-1"), first.take("GPU-1")), (Ok(()), Ok(())));
        let told = second.take("GPU-1").unwrap_err();
        assert!(told.contains(&format!("process {} of user ", std::process::id())), "{told}");
        assert_eq!(second.take("GPU-2"), Ok(()));
        first.keep(&BTreeSet::from(["GPU-2".to_owned()]));
        assert!(first.is_empty());
        assert_eq!(second.take("GPU-1"), Ok(()));
        assert!(first.take("GPU-2").is_err());
    }

    #[test]
    fn g1_a_lock_whose_file_was_removed_is_taken_anew() {
        let place = tempfile::tempdir().unwrap();
        let (first, second) = (locks(place.path()), locks(place.path()));
        first.take("GPU-1").unwrap();
        fs::remove_file(first.path("GPU-1")).unwrap();
        second.take("GPU-1").unwrap();
        assert!(first.take("GPU-1").is_err(), "the other one's is seen");
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let told = locks(Path::new("/nowhere/at/all")).take("GPU-1/../x").unwrap_err();
        assert!(told.contains("/nowhere/at/all/rbee-gpu-GPU-1____x.lock"), "{told}");
    }
}
