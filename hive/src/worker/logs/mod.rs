//! Workers' output: where it is written, and how a log that grew too large begins anew. A place in a log is named by
//! which one it is, counted from 1 and up by one each time that it begins anew, and by an offset in it.

mod read;
mod sweep;

pub use read::{CHUNK_MAX, FOLLOW_INTERVAL, Reader, tail_since};
pub use sweep::{ENDED_KEPT, sweep};

use common::WorkerId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// The end of a log that is larger becomes `.log.1`, in place of an older one, and at most so much of it; in bytes.
pub const KEEP_MAX: u64 = 64 * 1024 * 1024;

/// Held for writing while a log begins anew: a reader sees it before or after, not in between.
static TURN: RwLock<()> = RwLock::new(());

/// Which log the present one is; beside it on disk, as `.log.at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Counts from 1.
    file: u64,
    /// Where in the log before it what is kept of that, in `.log.1`, begins.
    kept_from: u64,
}

/// `<state>/logs/<group>/<instance>.log`.
pub fn path(state_dir: &Path, id: &WorkerId) -> PathBuf {
    state_dir.join("logs").join(id.group()).join(format!("{}.log", id.instance()))
}

/// Opens a worker's log for its output; what is in it stays. Returns its end too.
pub fn open(path: &Path) -> io::Result<(File, proto::LogPosition)> {
    if let Some(directory) = path.parent() {
        super::record::make_private(directory)?;
    }
    if fs::metadata(path).is_ok_and(|found| found.len() > KEEP_MAX) {
        set_aside(path)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let end = proto::LogPosition { file: mark(path).file, offset: file.metadata()?.len() };
    Ok((file, end))
}

/// What an earlier worker of this name wrote becomes `.log.1`: it is not the output of the one that begins now. Nobody
/// may be writing to it.
pub fn set_aside(path: &Path) -> io::Result<()> {
    if fs::metadata(path).map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    let _turn = write_turn();
    fs::rename(path, kept(path))?;
    Mark { file: mark(path).file + 1, kept_from: 0 }.write(path);
    Ok(())
}

/// Where a log ends now; the beginning of the first where there is none.
pub fn end(path: &Path) -> proto::LogPosition {
    let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    proto::LogPosition { file: mark(path).file, offset: fs::metadata(path).map_or(0, |found| found.len()) }
}

/// Begins a log of more than [`KEEP_MAX`] anew, and keeps at most `keep` bytes of its end. Its worker keeps the same
/// file open and goes on at the new end; what it writes during the copy may be lost. The copy is bounded: a worker that
/// writes faster than is read would else never be caught up with. Returns how many bytes were thrown away.
pub fn rotate(path: &Path, keep: u64) -> io::Result<Option<u64>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= KEEP_MAX {
        return Ok(None);
    }
    let draft = path.with_extension("log.new");
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let from = length.saturating_sub(keep);
    file.seek(SeekFrom::Start(from))?;
    let copied = io::copy(&mut Read::by_ref(&mut file).take(keep), &mut copy);
    let _turn = write_turn();
    // A full disk must not keep the log itself from being cut; nothing of it is kept then.
    let kept_from = match copied.and_then(|_| fs::rename(&draft, kept(path))) {
        Ok(()) => from,
        Err(_) => {
            let _ = fs::remove_file(&draft);
            let _ = fs::remove_file(kept(path));
            length
        }
    };
    file.set_len(0)?;
    Mark { file: mark(path).file + 1, kept_from }.write(path);
    Ok(Some(kept_from))
}

fn kept(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn write_turn() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// Which log this is; one without a mark is the first.
fn mark(path: &Path) -> Mark {
    let text = fs::read(path.with_extension("log.at")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Mark { file: 1, kept_from: 0 })
}

impl Mark {
    /// On a disk that refuses it, readers see by its length that the log began anew.
    fn write(&self, path: &Path) {
        let (draft, place) = (path.with_extension("log.at.new"), path.with_extension("log.at"));
        let text = serde_json::to_vec(self).unwrap_or_default();
        if fs::write(&draft, text).and_then(|()| fs::rename(&draft, place)).is_err() {
            let _ = fs::remove_file(draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_grew_too_large_begins_anew_under_its_writer() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let (mut file, _) = open(&path).unwrap();
        file.set_len(KEEP_MAX).unwrap();
        assert_eq!(rotate(&path, KEEP_MAX).unwrap(), None);
        file.write_all(b"old\n").unwrap();
        assert_eq!(rotate(&path, KEEP_MAX).unwrap(), Some(4));
        file.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert!(fs::read(kept(&path)).unwrap().ends_with(b"\0old\n"));
        assert_eq!(mark(&path), Mark { file: 2, kept_from: 4 });
        file.set_len(3 * KEEP_MAX).unwrap();
        assert_eq!(rotate(&path, 1024).unwrap(), Some(3 * KEEP_MAX - 1024));
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(fs::metadata(kept(&path)).unwrap().len(), 1024);
        file.set_len(KEEP_MAX + 1).unwrap();
        assert_eq!(open(&path).unwrap().1, proto::LogPosition { file: 4, offset: 0 });
        assert_eq!(mark(&path), Mark { file: 4, kept_from: 0 });
    }
}
