//! Process file descriptors: a name for a process that cannot come to mean another one.

use super::parts::Ended;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `_IOWR(0xFF, 11, struct pidfd_info)` with the first version's 64 bytes (linux/pidfd.h).
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (64 << 16) | (0xFF << 8) | 11;
/// "The exit code is known": the process has been reaped (Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// Opens a pidfd. ESRCH: there is no such process. The caller checks that it is the one that was meant.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has seen its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to exactly this process. ESRCH: it has been reaped.
pub fn send(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call; a null siginfo means an ordinary signal.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until the process has ended, reaped or not. Errors when the runtime cannot wait for it.
pub async fn ended(pidfd: Arc<OwnedFd>) -> io::Result<()> {
    // SAFETY: the shared descriptor is owned and never replaced, so it stays open and the same until it is dropped.
    let waiting = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
    waiting.readable().await.map(|_| ())
}

/// Whether the process has ended, reaped or not.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(pidfd, PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(count) if count > 0)
}

/// Reaps our own child. `Ok(None)`: it still runs. ECHILD: it is not our child.
pub fn reap(pidfd: &OwnedFd) -> io::Result<Option<Ended>> {
    match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, code)) => Ok(Some(Ended::Code(code))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Ended::Signal(signal as i32))),
        Ok(_) => Ok(None),
        // A real-time signal: it has been reaped, nix only has no name for it.
        Err(Errno::EINVAL) => Ok(Some(Ended::Unknown)),
        Err(error) => Err(error.into()),
    }
}

/// What the kernel tells about the end of a process that is not our child; `None` while it is not reaped, and for
/// ever on a kernel that does not tell.
pub fn told_exit(pidfd: &OwnedFd) -> Option<Ended> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's size field says 64 bytes, which is the size of `info`; the kernel writes no further.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if done < 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    Some(Ended::from_status(info.exit_code))
}
