//! Who owns a state directory: one hive, whatever its slice. Taken before anything in it is read.

use super::{LockError, note_owner, patiently};
use common::HiveId;
use nix::fcntl::Flock;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

/// The lock's name. It holds "PID START_TICKS HIVE" of the owner.
const FILE: &str = "hive.lock";

/// No owner writes more, in bytes.
const TEXT_MAX: u64 = 256;

/// Given back when dropped, or by the kernel when the hive dies.
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
}

impl StateLock {
    /// Takes `<state>/hive.lock`, asking again for about a second.
    pub async fn take(state_dir: &Path, hive: &HiveId, proc_root: &Path) -> Result<Self, LockError> {
        let path = state_dir.join(FILE);
        let at = |source| LockError::State { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at)?;
        let Ok(mut held) = patiently(file).await.map_err(at)? else {
            let text = owner(&path);
            let mut words = text.split_whitespace();
            let pid = words.next().and_then(|word| word.parse().ok());
            let hive = words.nth(1).unwrap_or_default().to_owned();
            return Err(LockError::Owned { state_dir: state_dir.to_owned(), hive, pid });
        };
        note_owner(&mut held, &path, proc_root, &format!(" {hive}"));
        Ok(Self { _file: held })
    }
}

/// What the owner has written down.
fn owner(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(TEXT_MAX).read_to_string(&mut text));
    read.map(|_| text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn an_owned_state_directory_is_refused_with_name_and_pid() {
        let state = tempfile::tempdir().unwrap();
        let take =
            async |name: &str| StateLock::take(state.path(), &HiveId::parse(name).unwrap(), Path::new("/proc")).await;
        let first = take("box").await.unwrap();
        let error = take("other").await.unwrap_err().to_string();
        assert!(error.contains(&format!("hive box holds it, pid {}", std::process::id())), "{error}");
        drop(first);
        take("a-name-of-another-length").await.unwrap();
        let text = fs::read_to_string(state.path().join(FILE)).unwrap();
        assert!(text.ends_with(" a-name-of-another-length\n") && text.lines().count() == 1, "{text}");
    }

    #[tokio::test]
    async fn q6_a_full_disk_keeps_nobody_from_the_lock() {
        let state = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", state.path().join(FILE)).unwrap();
        StateLock::take(state.path(), &HiveId::parse("box").unwrap(), Path::new("/proc")).await.unwrap();
    }
}
