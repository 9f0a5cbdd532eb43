//! What procfs says about one process: the few fields that make up its identity.

use super::cgroup::is_gone;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `Z`, …
    pub state: u8,
    /// The process that started it, or that took it over.
    pub parent: i32,
    /// Its session: the pid of the session's leader.
    pub session: i32,
    /// Clock ticks from boot to its start: with the pid, an identity.
    pub start_ticks: u64,
}

impl Stat {
    /// Whether it only waits to be reaped.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads `<root>/<pid>/stat`. ENOENT and ESRCH mean that it is gone.
pub fn stat(root: &Path, pid: i32) -> io::Result<Stat> {
    let bytes = std::fs::read(root.join(pid.to_string()).join("stat"))?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stat of a process is not understood"))
}

/// Whether the process that had this pid and start time still runs.
pub fn runs(root: &Path, pid: i32, start_ticks: u64) -> bool {
    stat(root, pid).is_ok_and(|found| found.start_ticks == start_ticks && !found.is_dead())
}

/// The wait status of a process that has ended and is not reaped; `None` for any other, and where the kernel does not
/// tell it (proc(5): `exit_code` reads as zero for processes of other users).
pub fn wait_status(root: &Path, pid: i32, start_ticks: u64) -> Option<i32> {
    let directory = root.join(pid.to_string());
    let own = nix::unistd::geteuid();
    if !own.is_root() && std::fs::metadata(&directory).ok()?.uid() != own.as_raw() {
        return None;
    }
    let bytes = std::fs::read(directory.join("stat")).ok()?;
    parse(&bytes).filter(|found| found.start_ticks == start_ticks && found.is_dead())?;
    let last = bytes.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(last).ok()?.trim_end().parse().ok()
}

/// The same where it must be known: an error when it cannot be read.
pub fn lives(root: &Path, pid: i32, start_ticks: u64) -> io::Result<bool> {
    match stat(root, pid) {
        Ok(found) => Ok(found.start_ticks == start_ticks && !found.is_dead()),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Every live process of a session. Costs a walk over all processes.
///
/// # Errors
/// When they cannot be read, but for those that this hive may not look at (proc(5), hidepid): they are not its own.
pub fn read_session(root: &Path, leader: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match stat(root, pid) {
            Ok(stat) if stat.session == leader && !stat.is_dead() => found.push(pid),
            Ok(_) => {}
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The same, as far as it can be read.
#[cfg(test)]
pub fn session(root: &Path, leader: i32) -> Vec<i32> {
    read_session(root, leader).unwrap_or_default()
}

/// The kernel's id of this boot.
pub fn boot_id(root: &Path) -> io::Result<String> {
    match std::fs::read_to_string(root.join("sys/kernel/random/boot_id")) {
        Ok(text) => Ok(text.trim().to_owned()),
        #[cfg(any(not(target_os = "linux"), rbee_plain))]
        Err(error) if error.kind() == io::ErrorKind::NotFound => told_boot().ok_or(error),
        Err(error) => Err(error),
    }
}

/// The same from other kernels: an id, or when it booted, whatever its shape.
#[cfg(any(not(target_os = "linux"), rbee_plain))]
fn told_boot() -> Option<String> {
    ["kern.bootsessionuuid", "kern.boottime"].into_iter().find_map(|name| {
        let told = std::process::Command::new("sysctl").args(["-n", name]).output().ok()?;
        let text = String::from_utf8(told.stdout).ok()?;
        let words: Vec<&str> = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').collect();
        let id = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
        (told.status.success() && !id.is_empty()).then_some(id)
    })
}

/// When a process with these start ticks was started, on the wall clock; `None` without a clock to tell.
pub fn start_time(start_ticks: u64) -> Option<SystemTime> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten()?;
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?;
    let boot = since_boot()?;
    let nanos = (start_ticks % per_second) * 1_000_000_000 / per_second;
    let since_boot = Duration::from_secs(start_ticks / per_second) + Duration::from_nanos(nanos);
    SystemTime::now().checked_sub(boot.saturating_sub(since_boot))
}

/// How long ago a process with these start ticks was started; `None` without a clock to tell.
pub fn age(start_ticks: u64) -> Option<Duration> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten()?;
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0)?;
    let millis = start_ticks.checked_mul(1_000)? / per_second;
    Some(since_boot()?.saturating_sub(Duration::from_millis(millis)))
}

/// How long ago the machine was started, the time in which it slept included; `None` without a clock to tell.
#[cfg(target_os = "linux")]
pub fn since_boot() -> Option<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

/// Elsewhere it is the time without sleep.
#[cfg(not(target_os = "linux"))]
pub fn since_boot() -> Option<Duration> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok().map(Duration::from)
}

/// The environment that a process was executed with, one `KEY=value` each; empty where it may not be read.
pub fn environment(root: &Path, pid: i32) -> Vec<Vec<u8>> {
    told_environment(root, pid).unwrap_or_default()
}

/// The same where it must be known: empty when the process is gone or may not be looked at, and so is another user's.
pub fn told_environment(root: &Path, pid: i32) -> io::Result<Vec<Vec<u8>>> {
    match std::fs::read(root.join(pid.to_string()).join("environ")) {
        Ok(bytes) => Ok(bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()),
        Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A command line of one process, one argument each; empty for the kernel's own and the dead.
pub fn command(root: &Path, pid: i32) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(root.join(pid.to_string()).join("cmdline")).unwrap_or_default();
    let trimmed = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if trimmed.is_empty() { Vec::new() } else { trimmed.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect() }
}

/// The name of a program may hold anything, so fields are counted from the last `)`.
pub fn parse(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&bytes[end + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, parent, session, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_hold_brackets_and_blanks() {
        let line = b"12 (a) b (c) S 1 12 11 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 1 1\n";
        assert_eq!(parse(line), Some(Stat { state: b'S', parent: 1, session: 11, start_ticks: 98765 }));
        assert_eq!(parse(b"12 (a) S 1 2"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_process_runs_and_began_before_now() {
        let root = Path::new("/proc");
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = stat(root, pid).unwrap();
        assert!(runs(root, pid, own.start_ticks));
        assert!(!runs(root, pid, own.start_ticks + 1));
        let age = SystemTime::now().duration_since(start_time(own.start_ticks).unwrap()).unwrap();
        assert!(age < Duration::from_secs(24 * 3600), "{age:?}");
        assert!(super::age(own.start_ticks).unwrap().abs_diff(age) < Duration::from_secs(1));
        assert!(!command(root, pid).is_empty());
    }

    #[test]
    fn the_dead_tell_how_they_ended_until_they_are_reaped() {
        let root = Path::new("/proc");
        let mut child = std::process::Command::new("sh").args(["-c", "kill -9 $$"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_ticks = stat(root, pid).unwrap().start_ticks;
        crate::worker::testing::until("it is dead", || stat(root, pid).is_ok_and(|found| found.is_dead()));
        assert_eq!(wait_status(root, pid, start_ticks), Some(9));
        assert_eq!(wait_status(root, pid, start_ticks + 1), None);
        child.wait().unwrap();
        assert_eq!(wait_status(root, pid, start_ticks), None);
    }
}
