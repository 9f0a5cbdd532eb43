//! Starts a program inside a cgroup from its first instruction. Between clone and exec the child only makes system
//! calls on what was allocated before; the step that fails comes back through a close-on-exec pipe. It executes
//! nothing before it has been written down, and dies with a hive that is killed until then.

use super::hung::{self, Wait};
use super::parts::{Child, Exec, Fault, Place, Step, Tuning, Written, open_files, remember_open_files};
use super::word::{self, Word};
use super::{pidfd, settle};
use std::ffi::{CString, c_char};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What a child exits with that never got past exec; nobody but this file sees it.
const NEVER_STARTED: i32 = 127;
/// The highest signal number on Linux.
const SIGNAL_MAX: i32 = 64;

/// Everything that the child touches, allocated before it exists.
struct Ready<'a> {
    program: *const c_char,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    null: RawFd,
    log: RawFd,
    join: Option<RawFd>,
    pipe: RawFd,
    /// Says by one byte that it is written down.
    gate: RawFd,
    /// The other end of it, which the child gives up, so that it sees the hive give it up too.
    opener: RawFd,
    /// The hive.
    parent: i32,
    open_files: Option<libc::rlimit>,
    calm_oom: bool,
    /// Keeps what the pointers point to, too.
    exec: &'a Exec,
    tuning: &'a Tuning,
}

/// Starts the program. Blocks until it is past exec, has failed, or has taken too long. Errors name the step; the child is
/// reaped then, but for one that cannot even be killed.
/// `written` is told the pid before anything is executed; on its error, and when this thread ends in it, nothing is.
pub fn start(exec: &Exec, tuning: &Tuning, place: Place<'_>, written: &mut Written<'_>) -> Result<Child, Fault> {
    let at_clone = Fault::at(Step::Clone);
    let (mut reader, writer) = pipe().map_err(&at_clone)?;
    let (gate, opener) = pipe().map_err(&at_clone)?;
    let ends = (gate.as_raw_fd(), opener.as_raw_fd());
    let ready = Ready::new(exec, tuning, place, writer.as_raw_fd(), ends).map_err(&at_clone)?;
    let child = cloned(&ready, place).map_err(&at_clone)?;
    drop((writer, gate));
    let began = begin(&child, &mut reader, opener, &mut Wait::new(&exec.patience), written);
    if began.is_err() {
        hung::end(&child);
    }
    began.map(|()| child)
}

/// From clone to exec.
fn begin(
    child: &Child,
    reader: &mut File,
    opener: OwnedFd,
    waiting: &mut Wait<'_>,
    written: &mut Written<'_>,
) -> Result<(), Fault> {
    let mut refused = Vec::new();
    loop {
        match waiting.word(reader)? {
            Some(Word::Refused(fault)) => refused.push(fault),
            Some(Word::Failed(fault)) => return Err(fault),
            // Closed without a word: killed in its cgroup, perhaps. Its end is told like any other.
            Some(Word::Settled(_) | Word::At(_)) | None => break,
        }
    }
    let settled = Instant::now();
    written(child.pid, &refused).map_err(Fault::at(Step::Record))?;
    waiting.goes_on(Step::Exec, settled.elapsed());
    // A child that was killed meanwhile has closed its end.
    let _ = File::from(opener).write_all(b"1");
    match waiting.word(reader)? {
        Some(Word::Failed(fault)) => Err(fault),
        // Closed without a word: exec closed it.
        _ => Ok(()),
    }
}

impl<'a> Ready<'a> {
    fn new(
        exec: &'a Exec,
        tuning: &'a Tuning,
        place: Place<'_>,
        pipe: RawFd,
        (gate, opener): (RawFd, RawFd),
    ) -> io::Result<Self> {
        let pointers = |texts: &[CString]| -> Vec<*const c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        remember_open_files();
        Ok(Self {
            program: exec.program.as_ptr(),
            arguments: pointers(&exec.arguments),
            environment: pointers(&exec.environment),
            null: exec.null.as_raw_fd(),
            log: exec.log.as_raw_fd(),
            join: if let Place::Join(procs) = place { Some(procs.as_raw_fd()) } else { None },
            pipe,
            gate,
            opener,
            parent: i32::try_from(std::process::id()).map_err(io::Error::other)?,
            open_files: open_files(),
            calm_oom: std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|text| text.starts_with('-')),
            exec,
            tuning,
        })
    }
}

fn pipe() -> io::Result<(File, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two descriptors into the array that is handed over.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were made by the call above, and nobody else has seen their numbers.
    unsafe { Ok((File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))) }
}

/// Clones with every signal blocked, so that no handler of the hive ever runs in the child: the runtime's would
/// write into the hive's own wake-up pipe.
fn cloned(ready: &Ready<'_>, place: Place<'_>) -> io::Result<Child> {
    // SAFETY: both sets are plain memory that the calls initialise; the mask is the calling thread's own.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    let child = clone3(ready, place);
    let child = match child.as_ref().map_err(io::Error::raw_os_error) {
        // A sandbox that knows no clone3 still knows fork.
        Err(Some(libc::ENOSYS | libc::EPERM)) if !matches!(place, Place::Cgroup(_)) => fork(ready),
        _ => child,
    };
    // SAFETY: restores what was saved above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    child
}

fn clone3(ready: &Ready<'_>, place: Place<'_>) -> io::Result<Child> {
    let mut fd: RawFd = -1;
    // SAFETY: all zeroes is the documented "nothing" for every field.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_PIDFD;
    arguments.pidfd = (&raw mut fd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Place::Cgroup(directory) = place {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(directory.as_raw_fd()).unwrap_or_default();
    }
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory, and goes straight into
    // `run`, which allocates nothing, takes no lock and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        0 => run(ready),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => {
            let pid = i32::try_from(pid).map_err(io::Error::other)?;
            // SAFETY: CLONE_PIDFD made this descriptor for us.
            Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(fd) } })
        }
    }
}

fn fork(ready: &Ready<'_>) -> io::Result<Child> {
    // A kernel without pidfds must be known before there is a child to lose.
    pidfd::open(i32::try_from(std::process::id()).map_err(io::Error::other)?)?;
    // SAFETY: as for clone3.
    match unsafe { libc::fork() } {
        0 => run(ready),
        pid if pid < 0 => Err(io::Error::last_os_error()),
        // Nobody has reaped our child, so the pid is still its own.
        pid => Ok(Child { pid, pidfd: pidfd::open(pid)? }),
    }
}

/// The child's whole life before exec.
fn run(ready: &Ready<'_>) -> ! {
    let (step, item) = prepare(ready);
    // SAFETY: errno is this process's own; the pipe is open; `_exit` runs nothing of the hive's.
    unsafe {
        word::failed(ready.pipe, step, item);
        libc::_exit(NEVER_STARTED)
    }
}

/// Returns only when a step has failed, with errno set: which, and which of several alike.
fn prepare(ready: &Ready<'_>) -> (Step, usize) {
    // SAFETY: async-signal-safe calls only, on descriptors and memory that `ready` keeps alive.
    unsafe {
        end_with_the_hive(ready);
        word::at(ready.pipe, Step::Session);
        if libc::setsid() < 0 {
            return (Step::Session, 0);
        }
        if let Some(procs) = ready.join {
            word::at(ready.pipe, Step::Join);
            if libc::write(procs, c"0".as_ptr().cast(), 1) != 1 {
                return (Step::Join, 0);
            }
            word::at(ready.pipe, Step::Streams);
        }
        for (from, to) in [(ready.null, 0), (ready.log, 1), (ready.log, 2)] {
            if libc::dup2(from, to) < 0 {
                return (Step::Streams, 0);
            }
        }
        // While it still may: another user could not.
        restore(ready);
        if let Err(failed) = settle::tune(ready.tuning, ready.pipe) {
            return failed;
        }
        word::at(ready.pipe, Step::Directory);
        if let Err(step) = settle::step_down(&ready.exec.down) {
            return (step, 0);
        }
        // A change of user takes the tie to the hive away.
        end_with_the_hive(ready);
        libc::close(ready.opener);
        word::settled(ready.pipe);
        let mut word = 0u8;
        if libc::read(ready.gate, (&raw mut word).cast(), 1) != 1 {
            return (Step::Record, 0);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        hear();
        libc::execve(ready.program, ready.arguments.as_ptr(), ready.environment.as_ptr());
    }
    (Step::Exec, 0)
}

/// Ends with the thread that made it, which waits for it until exec; with a dead hive it is another's already.
///
/// # Safety
/// Only in the child.
unsafe fn end_with_the_hive(ready: &Ready<'_>) {
    // SAFETY: async-signal-safe calls only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != ready.parent {
            libc::_exit(NEVER_STARTED);
        }
    }
}

/// Undoes what the hive did to itself: open-file limit, oom score, open files. Nothing here can fail in a way that a
/// worker would mind.
///
/// # Safety
/// Only in the child.
unsafe fn restore(ready: &Ready<'_>) {
    // SAFETY: async-signal-safe calls only; see `prepare`.
    unsafe {
        if let Some(limit) = ready.open_files {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        if ready.calm_oom {
            let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file >= 0 {
                libc::write(file, c"0".as_ptr().cast(), 1);
            }
        }
        // Every other descriptor closes at exec, the pipe included: that is the parent's sign of success.
        libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
    }
}

/// Signals as a program expects them: none blocked, none handled, none ignored.
///
/// # Safety
/// Only in the child.
unsafe fn hear() {
    // SAFETY: async-signal-safe calls on memory of their own.
    unsafe {
        let mut standard: libc::sigaction = std::mem::zeroed();
        standard.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=SIGNAL_MAX {
            libc::sigaction(signal, &raw const standard, std::ptr::null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests;
