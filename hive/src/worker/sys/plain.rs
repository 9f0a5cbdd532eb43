//! Stands in for pidfds and clone3 where there are none. A child is named by a pipe that becomes readable at its end; one
//! thread per child waits for it, so there are as many as workers. Tried only under Linux, with `--cfg rbee_plain`.

mod begin;

use super::parts::Ended;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use begin::start;

/// How often a process is looked at that is not our child: nothing tells of its end.
const STRANGER_POLL: Duration = Duration::from_millis(100);

/// A process that somebody holds a descriptor of.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// Whether its pid stays its own until we reap it.
    child: bool,
    /// Of another's process: its session when it was opened, as far as that is told.
    session: Option<Pid>,
    ended: OnceLock<Ended>,
}

/// Every signal is sent, and every child reaped, under the lock on this: so no pid is signalled that was reaped.
#[derive(Debug)]
struct Registry {
    /// By descriptor. It stays when that is closed, until the same number is given out again, which bounds them.
    held: BTreeMap<RawFd, Arc<Process>>,
    /// Our children that are not reaped, by pid, each with a descriptor to copy.
    children: BTreeMap<i32, (Arc<Process>, PipeReader)>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { held: BTreeMap::new(), children: BTreeMap::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn of(&self, descriptor: BorrowedFd<'_>) -> io::Result<Arc<Process>> {
        self.held.get(&descriptor.as_raw_fd()).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn hold(&mut self, descriptor: OwnedFd, process: Arc<Process>) -> OwnedFd {
        self.held.insert(descriptor.as_raw_fd(), process);
        descriptor
    }
}

/// A descriptor of a process. ESRCH: there is no such process. Our own child is named for good. Another's process is
/// only a number, which its successor may bear by the time it is used: weaker than a pidfd.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let mut registry = registry();
    if let Some((process, reader)) = registry.children.get(&pid) {
        let (process, copy) = (process.clone(), reader.try_clone()?);
        return Ok(registry.hold(copy.into(), process));
    }
    let number = Pid::from_raw(pid);
    if kill(number, None) == Err(Errno::ESRCH) {
        return Err(Errno::ESRCH.into());
    }
    let session = getsid(Some(number)).ok();
    // Only its number is used.
    let (token, _) = io::pipe()?;
    let process = Arc::new(Process { pid, child: false, session, ended: OnceLock::new() });
    Ok(registry.hold(token.into(), process))
}

/// Sends a signal to this process. ESRCH: it has ended. Exactly this one if it is our child; another's is at least of
/// the session it was opened in.
pub fn send(descriptor: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let registry = registry();
    let process = registry.of(descriptor)?;
    let number = Pid::from_raw(process.pid);
    if process.ended.get().is_some() || (!process.child && getsid(Some(number)).ok() != process.session) {
        return Err(Errno::ESRCH.into());
    }
    // Still under the lock, so our child cannot be reaped in between.
    Ok(kill(number, signal)?)
}

/// Waits until the process has ended. Errors when the runtime cannot wait for it.
pub async fn ended(descriptor: Arc<OwnedFd>) -> io::Result<()> {
    let process = registry().of(descriptor.as_fd())?;
    if process.child {
        // SAFETY: the shared descriptor is owned and never replaced, so it stays open and the same until it is dropped.
        let waiting = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        return waiting.readable().await.map(|_| ());
    }
    while !process.has_ended() {
        tokio::time::sleep(STRANGER_POLL).await;
    }
    Ok(())
}

/// Whether the process has ended.
pub fn has_ended(descriptor: BorrowedFd<'_>) -> bool {
    let process = registry().of(descriptor);
    // What was never opened here cannot be waited for.
    process.map_or(true, |process| process.has_ended())
}

impl Process {
    fn has_ended(&self) -> bool {
        if !self.child && kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH) {
            self.ended.get_or_init(|| Ended::Unknown);
        }
        self.ended.get().is_some()
    }
}

/// How our own child ended. `Ok(None)`: it still runs. ECHILD: it is not our child.
pub fn reap(descriptor: &OwnedFd) -> io::Result<Option<Ended>> {
    let process = registry().of(descriptor.as_fd())?;
    if process.child { Ok(process.ended.get().copied()) } else { Err(Errno::ECHILD.into()) }
}

/// Nobody tells how a process ended that is not our child.
pub fn told_exit(_: &OwnedFd) -> Option<Ended> {
    None
}

/// Waits for our child, takes down how it ended, reaps it and tells. For the one thread that belongs to it.
fn see_out(process: &Process, mut end: PipeWriter) {
    wait_unreaped(process.pid);
    let mut registry = registry();
    process.ended.get_or_init(|| reaped(process.pid));
    registry.children.remove(&process.pid);
    drop(registry);
    // Nobody may be left who listens.
    let _ = end.write_all(b"0");
}

fn wait_unreaped(pid: i32) {
    let Ok(id) = libc::id_t::try_from(pid) else { return };
    loop {
        // SAFETY: all zeroes is a valid siginfo, and the call writes nothing else.
        let done = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOWAIT)
        };
        // Any other error: what follows meets it too.
        if done == 0 || Errno::last() != Errno::EINTR {
            return;
        }
    }
}

fn reaped(pid: i32) -> Ended {
    let mut status = 0;
    loop {
        // SAFETY: the call writes one integer.
        let done = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        match done {
            _ if done == pid => return Ended::from_status(status),
            _ if Errno::last() == Errno::EINTR => {}
            _ => return Ended::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
