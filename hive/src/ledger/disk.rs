//! The ledger's file: a head, then one line for each change, each with a checksum, synced before anybody is answered.
//! Written anew, and put in place in whole, when it has grown and after every failure.

use super::ask::WISHES_MAX;
use super::book::Ledger;
use super::grant::Change;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::warn;

/// After so many changes the file is written anew.
const LINES_MAX: usize = 1024;
/// A file that was damaged may have lost this many tokens, one for each wish of each change: they are left out.
const TOKENS_LOST: u64 = (LINES_MAX * WISHES_MAX) as u64;
/// The form of the file. The first one, which had no keys, is read as well; who knows only that one grants nothing.
const VERSION: u32 = 2;
/// A checksum has so many hexadecimal digits, and a blank follows it.
const SUM_DIGITS: usize = 16;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// In which boot of the machine it was written: times are counted from there.
    boot_id: String,
    /// The newest token that had been given by then.
    last_token: u64,
}

/// The file, as long as it can be written.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    boot_id: String,
    /// `None`: what it holds is not known for sure, and it is written anew before it is trusted.
    file: Option<File>,
    lines: usize,
    /// It could not be read: nothing is written over it.
    unreadable: bool,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be written.
    #[error("write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// It could not be read, and is left as it is.
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf),
}

impl Disk {
    /// Reads `<state>/ledger` and writes it anew. Grants of another boot are over, their tokens are not forgotten. One
    /// that cannot be read is told of and left alone; then nothing can be written.
    pub fn open(state_dir: &Path, boot_id: &str) -> (Self, Ledger) {
        let path = state_dir.join("ledger");
        let mut disk = Self { path, boot_id: boot_id.to_owned(), file: None, lines: 0, unreadable: false };
        let ledger = match fs::read(&disk.path) {
            Ok(bytes) => disk.load(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(error) => {
                warn!(path = %disk.path.display(), %error, "the ledger cannot be read: nothing is granted");
                disk.unreadable = true;
                Ledger::default()
            }
        };
        if !disk.unreadable
            && let Err(error) = disk.rewrite(&ledger)
        {
            warn!(path = %disk.path.display(), %error, "the ledger cannot be written: nothing is granted until it can");
        }
        (disk, ledger)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn load(&mut self, bytes: &[u8]) -> Ledger {
        let (lines, mut whole) = lines(bytes);
        let head = lines.first().and_then(|line| serde_json::from_slice::<Head>(line).ok());
        let Some(head) = head.filter(|head| (1..=VERSION).contains(&head.version)) else {
            warn!(path = %self.path.display(), "the ledger's head cannot be read: nothing is granted");
            self.unreadable = true;
            return Ledger::default();
        };
        let mut ledger = Ledger::default();
        ledger.skip_to(head.last_token);
        for line in &lines[1..] {
            let Ok(change) = serde_json::from_slice::<Change>(line) else {
                whole = false;
                break;
            };
            ledger.apply(&change);
        }
        let last_token = if whole { ledger.last_token() } else { ledger.last_token().saturating_add(TOKENS_LOST) };
        if !whole {
            warn!(path = %self.path.display(), "the ledger's end is damaged: what was written last is not granted");
        }
        if head.boot_id != self.boot_id {
            ledger.reboot();
        }
        ledger.skip_to(last_token);
        ledger
    }

    /// Writes a change down and syncs it. `after` tells the ledger as it is with this change, for a file that has to be
    /// written anew.
    pub fn write(&mut self, change: &Change, after: impl FnOnce() -> Ledger) -> Result<(), DiskError> {
        if self.unreadable {
            return Err(DiskError::Unreadable(self.path.clone()));
        }
        let written = match self.file.take() {
            Some(file) if self.lines < LINES_MAX => self.append(file, change),
            _ => self.rewrite(&after()),
        };
        written.map_err(|error| DiskError::Write(self.path.clone(), error))
    }

    fn append(&mut self, mut file: File, change: &Change) -> io::Result<()> {
        file.write_all(&line(change)?)?;
        file.sync_data()?;
        self.lines += 1;
        self.file = Some(file);
        Ok(())
    }

    fn rewrite(&mut self, ledger: &Ledger) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let head = Head { version: VERSION, boot_id: self.boot_id.clone(), last_token: ledger.last_token() };
        let mut bytes = line(&head)?;
        let (set, aborted) = (ledger.grants().cloned().collect(), ledger.aborted().cloned().collect());
        let all = Change { set, ended: Vec::new(), aborted };
        if !all.is_empty() {
            bytes.extend(line(&all)?);
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        // The new name is only on disk with its directory.
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        self.lines = 1;
        self.file = Some(file);
        Ok(())
    }

    /// From now on the disk is full.
    #[cfg(test)]
    pub fn fill(&mut self) {
        self.file = Some(OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
    }
}

/// One line: checksum, blank, JSON.
fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    Ok(format!("{:016x} {text}\n", sum(text.as_bytes())).into_bytes())
}

/// The JSON of every line up to the first that is damaged, and whether there is none.
fn lines(bytes: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let Some(text) = checked(&rest[..end]) else { return (found, false) };
        found.push(text);
        rest = &rest[end + 1..];
    }
    (found, rest.is_empty())
}

fn checked(line: &[u8]) -> Option<&[u8]> {
    let (digits, text) = line.split_at_checked(SUM_DIGITS)?;
    let text = text.strip_prefix(b" ")?;
    let told = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (told == sum(text)).then_some(text)
}

/// FNV-1a: finds lines that were not written to their end. Nobody forges them, who could not write the file too.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
