//! Reading the records back. A disk or a hive that cannot read is no news of any worker: it is an error, and every record
//! stays as it is.

use super::{REQUEST, Record, Records};
use crate::worker::cgroup::is_gone;
use common::WorkerId;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tracing::warn;

/// Records that say nothing are kept under this ending, for people.
const UNREADABLE: &str = "unreadable";

impl Records {
    /// Every record. One whose text is none is set aside with a warning; half-written drafts are dropped, and so are
    /// requests without a record.
    ///
    /// # Errors
    /// When a file or a directory cannot be read, with its path.
    pub fn read_all(&self) -> Result<Vec<(WorkerId, Record)>, (PathBuf, io::Error)> {
        let mut found = Vec::new();
        for group in entries(&self.root)? {
            for path in entries(&group)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                if name.starts_with('.') {
                    let _ = fs::remove_file(&path);
                } else if name.ends_with(&format!(".{REQUEST}")) {
                    let there =
                        |ending| path.with_extension(ending).try_exists().map_err(|error| (path.clone(), error));
                    if !there("json")? && !there(UNREADABLE)? {
                        let _ = fs::remove_file(&path);
                    }
                } else if name.ends_with(".json") {
                    found.extend(record(&path)?);
                }
            }
        }
        found.sort_by(|a: &(WorkerId, Record), b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The same, where nothing fails.
    #[cfg(test)]
    pub fn load(&self) -> Vec<(WorkerId, Record)> {
        self.read_all().unwrap()
    }
}

/// One record; `None` when it is gone, or has been set aside.
fn record(path: &Path) -> Result<Option<(WorkerId, Record)>, (PathBuf, io::Error)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err((path.to_owned(), error)),
    };
    match understood(path, &bytes) {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            warn!(path = %path.display(), %error, "record set aside: not readable");
            let _ = fs::rename(path, path.with_extension(UNREADABLE));
            Ok(None)
        }
    }
}

fn understood(path: &Path, bytes: &[u8]) -> io::Result<(WorkerId, Record)> {
    let record: Record = serde_json::from_slice(bytes).map_err(io::Error::other)?;
    let id = record.id().map_err(io::Error::other)?;
    // A copy under another name would be the same worker twice.
    if !path.ends_with(Path::new(id.group()).join(format!("{}.json", id.instance()))) {
        return Err(io::Error::other(format!("it is the record of {id}")));
    }
    Ok((id, record))
}

/// What is in a directory; nothing when it is gone, or is none.
fn entries(path: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let read = || fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect();
    match read() {
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err((path.to_owned(), error)),
        Ok(found) => Ok(found),
    }
}
