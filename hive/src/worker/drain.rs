//! Whether this hive takes further starts. Kept in a file, so that a restart of the hive does not forget it; the file
//! says who asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The file's name in the state directory.
const FILE: &str = "draining";

/// The switch.
#[derive(Debug)]
pub struct Drain {
    path: PathBuf,
    on: watch::Sender<bool>,
    /// Held while the file is written: the newest wish is then what stays.
    turn: Mutex<()>,
}

impl Drain {
    /// As the last hive of this state directory left it.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let on = watch::Sender::new(path.exists());
        Self { path, on, turn: Mutex::default() }
    }

    /// Whether it takes none.
    pub fn is_on(&self) -> bool {
        *self.on.borrow()
    }

    /// The same, now and later.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.on.subscribe()
    }

    /// Turns it; on disk before `turned` is called, and before this returns. Whether that changed anything.
    pub fn set(&self, on: bool, by: &str, turned: impl FnOnce()) -> io::Result<bool> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_on() == on {
            return Ok(false);
        }
        if on {
            self.write(by)?
        } else {
            self.remove()?
        }
        self.on.send_replace(on);
        turned();
        Ok(true)
    }

    fn write(&self, by: &str) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{by}")?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        self.sync_directory()
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_directory(),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_outlives_its_hive_and_says_who_asked() {
        let state = tempfile::tempdir().unwrap();
        let drain = Drain::open(state.path());
        assert!(!drain.is_on());
        let mut turned = 0;
        assert!(drain.set(true, "ann", || turned += 1).unwrap());
        assert!(!drain.set(true, "bob", || turned += 1).unwrap(), "it drains already");
        assert_eq!(fs::read_to_string(state.path().join(FILE)).unwrap(), "ann\n");
        let next = Drain::open(state.path());
        assert!(next.is_on());
        assert!(next.set(false, "ann", || turned += 1).unwrap());
        assert_eq!(turned, 2);
        assert!(!Drain::open(state.path()).is_on());
    }

    #[test]
    fn what_cannot_be_written_down_does_not_count() {
        let state = tempfile::tempdir().unwrap();
        let drain = Drain::open(&state.path().join("gone"));
        assert!(drain.set(true, "ann", || panic!("it was not turned")).is_err());
        assert!(!drain.is_on());
    }
}
