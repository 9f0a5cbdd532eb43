//! What the tests of this wing share: a slice of their own, and the certain end of what they started.

use super::cgroup::Ground;
use super::spawn::Spawned;
use super::sys::{self, Down, Exec};
use common::WorkerId;
use nix::sys::signal::Signal;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything here may take.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(5);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A slice name that no other test has.
pub fn slice_name() -> String {
    format!("t{}-{}.slice", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A slice in the real hierarchy, if this machine has one; removed at the end.
pub struct Slice {
    pub ground: Ground,
}

impl Slice {
    pub fn real() -> Self {
        Self { ground: Ground::discover(&slice_name(), None, Path::new("/proc")) }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if let Some(root) = &self.ground.root {
            let _ = std::fs::remove_dir(root);
        }
    }
}

pub fn id(instance: &str) -> WorkerId {
    WorkerId::new("llm", instance).unwrap()
}

/// A program from PATH with its output thrown away.
pub fn exec(program: &str, arguments: &[&str]) -> Exec {
    let text = |text: &str| CString::new(text).unwrap();
    let places = std::env::var("PATH").unwrap();
    let mut found = places.split(':').map(|place| format!("{place}/{program}"));
    let path = found.find(|path| Path::new(path).exists()).unwrap_or_else(|| program.to_owned());
    Exec {
        program: text(&path),
        arguments: std::iter::once(program).chain(arguments.iter().copied()).map(text).collect(),
        environment: Vec::new(),
        log: File::options().append(true).open("/dev/null").unwrap().into(),
        null: File::open("/dev/null").unwrap().into(),
        down: Down::default(),
        patience: sys::Patience::default(),
    }
}

/// Looks until it is true, or fails.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Kills and reaps, then removes the cgroup.
pub fn end(spawned: &Spawned) {
    let _ = sys::send(spawned.child.pidfd.as_fd(), Signal::SIGKILL);
    until("the child is reaped", || !matches!(sys::reap(&spawned.child.pidfd), Ok(None)));
    if let Some(cgroup) = &spawned.site.cgroup {
        let _ = cgroup.remove();
    }
}
