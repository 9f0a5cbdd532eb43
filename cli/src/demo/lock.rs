//! Who owns a slice: its lock file holds "PID START_TICKS", and both must still be true of a process.

use std::path::Path;

/// Whether the process that the lock file names is alive.
pub fn is_owned(lock: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(lock) else { return false };
    names_a_live_owner(&text, |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
}

/// A pid alone could by now be another process; with its start time it cannot. A zombie owns nothing.
fn names_a_live_owner(lock: &str, stat: impl Fn(u32) -> Option<String>) -> bool {
    let mut words = lock.split_whitespace();
    let pid = words.next().and_then(|word| word.parse::<u32>().ok());
    let started = words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(pid), Some(started)) = (pid, started) else { return false };
    let Some(stat) = stat(pid) else { return false };
    state_and_start(&stat).is_some_and(|(state, start)| start == started && !matches!(state, "Z" | "X"))
}

/// Fields 3 and 22 of `/proc/PID/stat`. The second field may itself hold blanks and brackets.
fn state_and_start(stat: &str) -> Option<(&str, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1 1 1 1";

    #[test]
    fn an_owner_is_a_pid_with_its_start_time() {
        let live = |pid: u32| (pid == 7).then(|| STAT.to_owned());
        assert!(names_a_live_owner("7 4711\n", live));
        assert!(!names_a_live_owner("7 4712\n", live), "the pid is another process now");
        assert!(!names_a_live_owner("8 4711\n", live));
        assert!(!names_a_live_owner("7 4711", |_| Some(STAT.replace(" S ", " Z "))));
        for bad in ["", "7", "x y", "-7 4711"] {
            assert!(!names_a_live_owner(bad, live), "{bad:?}");
        }
    }

    #[test]
    fn this_process_owns_a_lock_that_names_it() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (_, start) = state_and_start(&stat).unwrap();
        let lock = std::env::temp_dir().join(format!("rbee-lock-{}", std::process::id()));
        std::fs::write(&lock, format!("{} {start}\n", std::process::id())).unwrap();
        assert!(is_owned(&lock));
        std::fs::remove_file(&lock).unwrap();
        assert!(!is_owned(&lock));
    }
}
