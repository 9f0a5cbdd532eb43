//! Reading a log that others still write to, from the end or for ever, also over the places where it began anew.

use super::{Mark, TURN, kept, mark};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

/// The most that is read at once, in bytes.
pub const CHUNK_MAX: usize = 64 * 1024;
/// How often a follower looks for more.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// Reads a worker's log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    at: proto::LogPosition,
}

impl Reader {
    /// From the beginning, or `tail` lines before the end, be they in what is kept of the log before. ENOENT: this worker
    /// never had a log.
    pub fn open(path: &Path, tail: Option<u32>) -> io::Result<Self> {
        // Not while it begins anew: what is counted from its end would be gone by then.
        let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        let file = File::open(path)?;
        let at = match tail {
            Some(lines) => from_end(path, &file, lines)?,
            None => proto::LogPosition { file: mark(path).file, offset: 0 },
        };
        Ok(Self { path: path.to_owned(), at })
    }

    /// From a place that an earlier reader came to. What is no longer kept is left out. ENOENT: this worker never had
    /// a log.
    pub fn after(path: &Path, at: proto::LogPosition) -> io::Result<Self> {
        File::open(path)?;
        Ok(Self { path: path.to_owned(), at })
    }

    /// Whether it has read up to a place, or beyond.
    pub fn has_reached(&self, place: proto::LogPosition) -> bool {
        (self.at.file, self.at.offset) >= (place.file, place.offset)
    }

    /// The place after what was read last.
    pub fn position(&self) -> proto::LogPosition {
        self.at
    }

    /// The next bytes, at most [`CHUNK_MAX`]; `None`: nothing more at the moment.
    pub fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        let Mark { file, kept_from } = mark(&self.path);
        if self.at.file.checked_add(1) == Some(file) {
            self.at.offset = self.at.offset.max(kept_from);
            let chunk = match File::open(kept(&self.path)) {
                Ok(rest) => chunk(&rest, self.at.offset - kept_from)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            if !chunk.is_empty() {
                return Ok(Some(self.took(chunk)));
            }
        }
        if self.at.file != file {
            self.at = proto::LogPosition { file, offset: 0 };
        }
        let log = File::open(&self.path)?;
        // Cut short by somebody else.
        if log.metadata()?.len() < self.at.offset {
            self.at.offset = 0;
        }
        let chunk = chunk(&log, self.at.offset)?;
        Ok(if chunk.is_empty() { None } else { Some(self.took(chunk)) })
    }

    fn took(&mut self, chunk: Vec<u8>) -> Vec<u8> {
        self.at.offset += chunk.len() as u64;
        chunk
    }
}

fn chunk(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK_MAX];
    let length = file.read_at(&mut chunk, at)?;
    chunk.truncate(length);
    Ok(chunk)
}

/// What was written since `from`: the last `lines` of it, at most `bytes` long. A log that began anew meanwhile is read
/// on from what is kept of the one before.
pub fn tail_since(path: &Path, from: proto::LogPosition, lines: usize, bytes: u64) -> String {
    let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    let Mark { file, kept_from } = mark(path);
    let present = last_bytes(path, if from.file == file { from.offset } else { 0 }, bytes);
    let room = bytes.saturating_sub(present.len() as u64);
    let before = match file.checked_sub(1) {
        Some(before) if from.file == before => last_bytes(&kept(path), from.offset.saturating_sub(kept_from), room),
        Some(before) if from.file < before => last_bytes(&kept(path), 0, room),
        _ => Vec::new(),
    };
    let whole = [before, present].concat();
    let text = String::from_utf8_lossy(&whole);
    let kept: Vec<&str> = text.lines().rev().take(lines).collect();
    kept.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The end of a file from `from` on, at most `bytes` of it; nothing of one that cannot be read.
fn last_bytes(path: &Path, from: u64, bytes: u64) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let end = file.metadata()?.len();
        let start = from.min(end).max(end.saturating_sub(bytes));
        let mut found = vec![0; usize::try_from(end - start).unwrap_or_default()];
        let length = file.read_at(&mut found, start)?;
        found.truncate(length);
        Ok(found)
    };
    read().unwrap_or_default()
}

/// Where the last `lines` lines begin: of a log that began anew a moment ago, in what is kept of the one before.
fn from_end(path: &Path, log: &File, lines: u32) -> io::Result<proto::LogPosition> {
    let Mark { file, kept_from } = mark(path);
    let (offset, missing) = before_end(log, lines)?;
    let here = proto::LogPosition { file, offset };
    // What was set aside whole is another worker's.
    let kept = if offset > 0 || lines == 0 || kept_from == 0 { None } else { File::open(kept(path)).ok() };
    let Some(kept) = kept else { return Ok(here) };
    // A line may have begun there and ended here.
    let cut = log.metadata()?.len() > 0 && !ends_with_line(&kept)?;
    let wanted = missing.saturating_add(cut.into());
    if wanted == 0 {
        return Ok(here);
    }
    let (offset, _) = before_end(&kept, wanted)?;
    Ok(proto::LogPosition { file: file.saturating_sub(1), offset: kept_from + offset })
}

fn ends_with_line(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last == [b'\n'])
}

/// Where the last `lines` lines of a file begin, and how many of them it has not; a line without its end counts.
fn before_end(file: &File, lines: u32) -> io::Result<(u64, u32)> {
    let mut at = file.metadata()?.len();
    if lines == 0 || at == 0 {
        return Ok((at, lines));
    }
    let mut wanted = u64::from(lines) + u64::from(ends_with_line(file)?);
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
                    return Ok((start + u64::try_from(index).unwrap_or_default() + 1, 0));
                }
            }
        }
        at = start;
    }
    // The first line begins without another one's end.
    Ok((0, u32::try_from(wanted - 1).unwrap_or(lines)))
}

#[cfg(test)]
mod tests {
    use super::super::{KEEP_MAX, end, open, path, rotate, set_aside};
    use super::*;
    use common::WorkerId;
    use std::fs;
    use std::io::Write;

    fn rest(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            assert!(chunk.len() <= CHUNK_MAX);
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    fn at(file: u64, offset: u64) -> proto::LogPosition {
        proto::LogPosition { file, offset }
    }

    #[test]
    fn last_words_are_found_although_the_log_began_anew() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let (mut file, _) = open(&path).unwrap();
        file.set_len(KEEP_MAX - 10).unwrap();
        let from = end(&path);
        file.write_all(b"the first words\nthe reason\n").unwrap();
        rotate(&path, 1024).unwrap();
        assert_eq!(tail_since(&path, from, 9, 100), "the first words\nthe reason");
        file.write_all(b"bye\n").unwrap();
        assert_eq!(tail_since(&path, from, 2, 100), "the reason\nbye");
        assert_eq!(tail_since(&path, from, 9, 8), "son\nbye");
        assert_eq!(tail_since(&path, end(&path), 9, 100), "");
    }

    #[test]
    fn another_worker_of_the_same_name_begins_with_an_empty_log() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        open(&path).unwrap().0.write_all(b"a secret\n").unwrap();
        set_aside(&path).unwrap();
        let (mut file, from) = open(&path).unwrap();
        assert_eq!(from, at(2, 0));
        file.write_all(b"mine\n").unwrap();
        assert_eq!(all(&path, None), "mine\n");
        assert_eq!(all(&path, Some(9)), "mine\n");
    }

    fn all(path: &Path, tail: Option<u32>) -> String {
        rest(&mut Reader::open(path, tail).unwrap())
    }

    #[test]
    fn a_follower_goes_on_where_the_log_began_anew() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let (mut file, _) = open(&path).unwrap();
        file.set_len(KEEP_MAX).unwrap();
        let mut reader = Reader::open(&path, Some(0)).unwrap();
        assert_eq!(reader.next_chunk().unwrap(), None);
        let place = reader.position();
        assert_eq!(place, proto::LogPosition { file: 1, offset: KEEP_MAX });
        file.write_all(b"before\n").unwrap();
        rotate(&path, 1024).unwrap();
        file.write_all(b"after\n").unwrap();
        assert_eq!(rest(&mut reader), "before\nafter\n");
        // Another reader, of the next hive, has only the place.
        assert_eq!(rest(&mut Reader::after(&path, place).unwrap()), "before\nafter\n");
        assert_eq!(rest(&mut Reader::after(&path, reader.position()).unwrap()), "");
        // What is no longer kept is left out.
        let mut early = Reader::after(&path, proto::LogPosition { file: 1, offset: 0 }).unwrap();
        assert_eq!(rest(&mut early).trim_start_matches('\0'), "before\nafter\n");
        let mut other = Reader::after(&path, proto::LogPosition { file: 9, offset: 5 }).unwrap();
        assert_eq!(rest(&mut other), "after\n");
    }

    #[test]
    fn the_last_lines_are_found_although_the_log_began_anew() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let (mut file, _) = open(&path).unwrap();
        file.set_len(KEEP_MAX).unwrap();
        file.write_all(b"\na\nb\n").unwrap();
        rotate(&path, 1024).unwrap();
        assert_eq!(all(&path, Some(0)), "");
        assert_eq!(all(&path, Some(1)), "b\n", "nothing has been written since");
        file.write_all(b"c\nd\n").unwrap();
        for (lines, wanted) in [(1, "d\n"), (2, "c\nd\n"), (3, "b\nc\nd\n"), (4, "a\nb\nc\nd\n")] {
            assert_eq!(all(&path, Some(lines)), wanted);
        }
        assert!(all(&path, Some(99)).ends_with("\na\nb\nc\nd\n"));
        assert_eq!(all(&path, None), "c\nd\n");
    }

    #[test]
    fn a_line_that_was_cut_where_the_log_began_anew_is_one_line() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x.log");
        let (mut file, _) = open(&path).unwrap();
        file.set_len(KEEP_MAX).unwrap();
        file.write_all(b"\na\nbegun ").unwrap();
        rotate(&path, 1024).unwrap();
        assert_eq!(all(&path, Some(1)), "begun ");
        file.write_all(b"and ended\nc\n").unwrap();
        for (lines, wanted) in [(1, "c\n"), (2, "begun and ended\nc\n"), (3, "a\nbegun and ended\nc\n")] {
            assert_eq!(all(&path, Some(lines)), wanted);
        }
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let state = tempfile::tempdir().unwrap();
        let path = path(state.path(), &WorkerId::new("llm", "1").unwrap());
        let (mut file, length) = open(&path).unwrap();
        assert_eq!(length, at(1, 0));
        assert_eq!(all(&path, Some(3)), "");
        file.write_all(b"a\nb\nc\n").unwrap();
        assert_eq!(all(&path, None), "a\nb\nc\n");
        assert_eq!(all(&path, Some(0)), "");
        assert_eq!(all(&path, Some(1)), "c\n");
        assert_eq!(all(&path, Some(9)), "a\nb\nc\n");
        file.write_all(b"half").unwrap();
        assert_eq!(all(&path, Some(2)), "c\nhalf");
        assert_eq!(open(&path).unwrap().1, at(1, 10));
        assert_eq!(tail_since(&path, at(1, 4), 9, 100), "c\nhalf");
        assert_eq!(tail_since(&path, at(1, 0), 1, 100), "half");
        assert_eq!(tail_since(&path, at(1, 0), 9, 2), "lf");
        assert_eq!(tail_since(&path, at(1, 99), 9, 9), "");
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
