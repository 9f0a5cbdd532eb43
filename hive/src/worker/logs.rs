//! Workers' output: where it is written, and how it is read back, from the end or for ever.

use common::WorkerId;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most that is read at once, in bytes.
pub const CHUNK_MAX: usize = 64 * 1024;
/// How often a follower looks for more.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// The end of a log that is larger becomes `.log.1`, in place of an older one, and at most so much of it; in bytes.
const KEEP_MAX: u64 = 64 * 1024 * 1024;

/// `<state>/logs/<group>/<instance>.log`.
pub fn path(state_dir: &Path, id: &WorkerId) -> PathBuf {
    state_dir.join("logs").join(id.group()).join(format!("{}.log", id.instance()))
}

/// Opens a worker's log for its output; what is in it stays. Returns its length too.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent() {
        super::record::make_private(directory)?;
    }
    if fs::metadata(path).is_ok_and(|found| found.len() > KEEP_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Keeps the end of a log that has grown too large and begins it anew. Its worker keeps the same file open and goes on
/// at the new end; what it writes during the copy may be lost. The copy is bounded: a worker that writes faster than
/// is read would else never be caught up with.
pub fn rotate(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length <= KEEP_MAX {
        return Ok(());
    }
    let kept = path.with_extension("log.1");
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(kept)?;
    file.seek(SeekFrom::Start(length - KEEP_MAX))?;
    // A full disk must not keep the log itself from being cut.
    let copied = io::copy(&mut Read::by_ref(&mut file).take(KEEP_MAX), &mut copy);
    file.set_len(0)?;
    copied.map(|_| ())
}

/// Reads a log that others still write to.
#[derive(Debug)]
pub struct Reader {
    file: File,
    at: u64,
}

impl Reader {
    /// From the beginning, or `tail` lines before the end. ENOENT: this worker never had a log.
    pub fn open(path: &Path, tail: Option<u32>) -> io::Result<Self> {
        let file = File::open(path)?;
        let at = match tail {
            Some(lines) => before_end(&file, lines)?,
            None => 0,
        };
        Ok(Self { file, at })
    }

    /// The next bytes, at most [`CHUNK_MAX`]; `None`: nothing more at the moment. A file that was cut short is read
    /// from its beginning.
    pub fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.file.metadata()?.len() < self.at {
            self.at = 0;
        }
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut chunk = vec![0; CHUNK_MAX];
        let length = self.file.read(&mut chunk)?;
        chunk.truncate(length);
        self.at += u64::try_from(length).unwrap_or_default();
        Ok((length > 0).then_some(chunk))
    }
}

/// What was written since `from`: the last `lines` of it, at most `bytes` long.
pub fn tail_since(path: &Path, from: u64, lines: usize, bytes: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        let start = from.min(end).max(end.saturating_sub(bytes));
        let mut found = vec![0; usize::try_from(end - start).unwrap_or_default()];
        file.read_exact_at(&mut found, start)?;
        Ok(found)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let kept: Vec<&str> = text.lines().rev().take(lines).collect();
    kept.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Where the last `lines` lines begin; a line without its end counts.
fn before_end(file: &File, lines: u32) -> io::Result<u64> {
    let mut at = file.metadata()?.len();
    if lines == 0 || at == 0 {
        return Ok(at);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, at - 1)?;
    let mut wanted = u64::from(lines) + u64::from(last[0] == b'\n');
    let mut block = vec![0; CHUNK_MAX];
    while at > 0 {
        let length = at.min(CHUNK_MAX as u64);
        let start = at - length;
        let part = &mut block[..usize::try_from(length).unwrap_or(CHUNK_MAX)];
        file.read_exact_at(part, start)?;
        for (index, byte) in part.iter().enumerate().rev() {
            if *byte == b'\n' {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(start + u64::try_from(index).unwrap_or_default() + 1);
                }
            }
        }
        at = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(path: &Path, tail: Option<u32>) -> String {
        let mut reader = Reader::open(path, tail).unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            assert!(chunk.len() <= CHUNK_MAX);
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let state = tempfile::tempdir().unwrap();
        let path = path(state.path(), &WorkerId::new("llm", "1").unwrap());
        let (mut file, length) = open(&path).unwrap();
        assert_eq!(length, 0);
        assert_eq!(all(&path, Some(3)), "");
        file.write_all(b"a\nb\nc\n").unwrap();
        assert_eq!(all(&path, None), "a\nb\nc\n");
        assert_eq!(all(&path, Some(0)), "");
        assert_eq!(all(&path, Some(1)), "c\n");
        assert_eq!(all(&path, Some(9)), "a\nb\nc\n");
        file.write_all(b"half").unwrap();
        assert_eq!(all(&path, Some(2)), "c\nhalf");
        assert_eq!(open(&path).unwrap().1, 10);
        assert_eq!(tail_since(&path, 4, 9, 100), "c\nhalf");
        assert_eq!(tail_since(&path, 0, 1, 100), "half");
        assert_eq!(tail_since(&path, 0, 9, 2), "lf");
        assert_eq!(tail_since(&path, 99, 9, 9), "");
    }

    #[test]
    fn a_log_that_grew_too_large_begins_anew_under_its_writer() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let (mut file, _) = open(&path).unwrap();
        file.set_len(KEEP_MAX).unwrap();
        rotate(&path).unwrap();
        file.write_all(b"old\n").unwrap();
        rotate(&path).unwrap();
        file.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        let kept = state.path().join("x.log.1");
        assert!(all(&kept, Some(1)).ends_with("\0old\n"));
        file.set_len(3 * KEEP_MAX).unwrap();
        rotate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(fs::metadata(&kept).unwrap().len(), KEEP_MAX);
    }

    #[test]
    fn a_long_log_comes_in_bounded_chunks_and_a_cut_one_begins_anew() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let text: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, &text).unwrap();
        assert_eq!(all(&path, None), text);
        assert!(all(&path, Some(20_000)).starts_with("line 20000\n"));
        let mut reader = Reader::open(&path, Some(0)).unwrap();
        assert_eq!(reader.next_chunk().unwrap(), None);
        fs::write(&path, "new\n").unwrap();
        assert_eq!(reader.next_chunk().unwrap(), Some(b"new\n".to_vec()));
    }
}
