//! Logs of workers that have ended are kept for whoever asks why, but not for ever.

use common::WorkerId;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Of so many ended workers the logs are kept, those that wrote last.
pub const ENDED_KEPT: usize = 256;

/// Removes the logs of all but the last `kept` ended workers. `lives` tells who has not ended. What cannot be read or
/// removed stays.
pub fn sweep(state_dir: &Path, kept: usize, lives: impl Fn(&WorkerId) -> bool) {
    let mut ended: Vec<(SystemTime, PathBuf)> = Vec::new();
    for group in entries(&state_dir.join("logs")) {
        for log in entries(&group) {
            let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
            let Some(instance) = name(&log).and_then(|name| Some(name.strip_suffix(".log")?.to_owned())) else {
                continue;
            };
            let Some(id) = name(&group).and_then(|group| WorkerId::new(&group, &instance).ok()) else { continue };
            if !lives(&id) {
                let written = fs::metadata(&log).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                ended.push((written, log));
            }
        }
    }
    ended.sort_unstable_by(|a, b| b.cmp(a));
    for (_, log) in ended.iter().skip(kept) {
        for ending in ["log.1", "log.at", "log"] {
            let _ = fs::remove_file(log.with_extension(ending));
        }
        // Only a group without other logs goes.
        let _ = log.parent().map(fs::remove_dir);
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::logs::{open, path};
    use std::time::Duration;

    #[test]
    fn the_logs_of_workers_that_ended_long_ago_go() {
        let state = tempfile::tempdir().unwrap();
        let ids: Vec<WorkerId> = ["a", "b.1", "c", "d"].map(|name| WorkerId::new("llm", name).unwrap()).into();
        for (age, id) in ids.iter().enumerate() {
            let place = path(state.path(), id);
            let (file, _) = open(&place).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(100 - age as u64)).unwrap();
            fs::write(place.with_extension("log.1"), "old").unwrap();
        }
        sweep(state.path(), 1, |id| *id == ids[3]);
        let left: Vec<bool> = ids.iter().map(|id| path(state.path(), id).exists()).collect();
        assert_eq!(left, [true, false, false, true], "the newest ended one, and the one that lives");
        assert!(!path(state.path(), &ids[1]).with_extension("log.1").exists());
        sweep(state.path(), 0, |_| false);
        assert!(!state.path().join("logs/llm").exists());
    }
}
