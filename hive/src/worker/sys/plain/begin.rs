//! Starts a program with the standard library. Before it is executed, the child tells its pid and waits at a gate until it
//! has been written down; the gate breaks with a hive that is killed, and then nothing is executed.

use super::super::hung::Wait;
use super::super::parts::{Child, Down, Exec, Fault, Place, Step, Tuning, Written, open_files, remember_open_files};
use super::super::settle;
use super::super::word::{self, Word};
use super::{Process, registry, see_out};
use std::ffi::{CString, OsStr};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

/// Stack of a thread that starts one child and waits for it, in bytes.
const STACK_BYTES: usize = 256 * 1024;
/// Descriptors below this are kept from the worker. The standard library's and the runtime's are anyway.
const INHERITED_MAX: RawFd = 1024;
/// The signals that every Unix has.
const SIGNAL_MAX: i32 = 31;
/// What the child may go on with.
const GO: u8 = b'1';
/// What it ends at.
const REFUSED: u8 = b'0';

/// What the child needs between fork and exec, allocated before.
struct Ready {
    down: Down,
    tuning: Tuning,
    /// Takes what it tells.
    tell: RawFd,
    gate: RawFd,
    /// The other end of the gate, which the child gives up, so that it sees the hive give it up too.
    opener: RawFd,
    open_files: Option<libc::rlimit>,
}

/// The ends that belong to the thread of a child.
struct Ends {
    tell: PipeWriter,
    gate: PipeReader,
    /// Named to others.
    descriptor: OwnedFd,
    /// Copied from for whoever opens the child by its pid.
    end: PipeReader,
    /// Told at its end.
    ended: PipeWriter,
}

/// Starts the program. Blocks until it is past exec or has failed. Errors name the step; the child is reaped then.
/// `written` is told the pid before anything is executed; on its error nothing is. There are no cgroups here: every
/// place but `Nowhere` is refused with ENOSYS. A child that does not come as far as that in time is left, and executes
/// nothing; exec itself is waited for, because nothing names a child for certain here before it.
pub fn start(exec: &Exec, tuning: &Tuning, place: Place<'_>, written: &mut Written<'_>) -> Result<Child, Fault> {
    let missing = || io::Error::from_raw_os_error(libc::ENOSYS);
    match place {
        Place::Cgroup(_) => return Err(Fault::at(Step::Clone)(missing())),
        Place::Join(_) => return Err(Fault::at(Step::Join)(missing())),
        Place::Nowhere => {}
    }
    let (mut told, mut opener, answer) = begun(exec, tuning).map_err(Fault::at(Step::Clone))?;
    let (mut refused, mut failed, mut pid) = (Vec::new(), None, None);
    let mut waiting = Wait::new(&exec.patience);
    // End of file before it waits: it failed before it could say anything.
    while let (None, None) = (&failed, pid) {
        match waiting.word(&mut told)? {
            Some(Word::Refused(fault)) => refused.push(fault),
            Some(Word::Failed(fault)) => failed = Some(fault),
            Some(Word::Settled(number)) => pid = Some(number),
            Some(Word::At(_)) => {}
            None => break,
        }
    }
    let refusal = pid.and_then(|pid| written(pid, &refused).err());
    // A child that failed has closed its end.
    let _ = opener.write_all(&[if refusal.is_some() { REFUSED } else { GO }]);
    drop(opener);
    let started = answer.recv().unwrap_or_else(|_| Err(io::Error::other("the thread of the child ended")));
    match (started, refusal, failed) {
        (_, Some(source), _) => Err(Fault::at(Step::Record)(source)),
        (_, None, Some(fault)) => Err(fault),
        (Ok(child), None, None) => Ok(child),
        (Err(source), None, None) => Err(Fault::at(if pid.is_some() { Step::Exec } else { Step::Clone })(source)),
    }
}

type Begun = (PipeReader, PipeWriter, Receiver<io::Result<Child>>);

/// Has a thread fork. All that can run out is had before there is a child to lose.
fn begun(exec: &Exec, tuning: &Tuning) -> io::Result<Begun> {
    remember_open_files();
    let (told, tell) = io::pipe()?;
    let (gate, opener) = io::pipe()?;
    let (end, ended) = io::pipe()?;
    let ready = Ready {
        down: exec.down.clone(),
        tuning: tuning.clone(),
        tell: tell.as_raw_fd(),
        gate: gate.as_raw_fd(),
        opener: opener.as_raw_fd(),
        open_files: open_files(),
    };
    let ends = Ends { tell, gate, descriptor: end.try_clone()?.into(), end, ended };
    let command = command(exec, ready)?;
    let (answers, answer) = sync_channel(1);
    let thread = std::thread::Builder::new().name("worker".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || follow(command, ends, &answers))?;
    Ok((told, opener, answer))
}

fn command(exec: &Exec, ready: Ready) -> io::Result<Command> {
    let text = |text: &CString| OsStr::from_bytes(text.as_bytes()).to_owned();
    let mut command = Command::new(text(&exec.program));
    let mut arguments = exec.arguments.iter().map(text);
    if let Some(itself) = arguments.next() {
        command.arg0(itself);
    }
    command.args(arguments).env_clear();
    for variable in &exec.environment {
        let bytes = variable.as_bytes();
        if let Some(equals) = bytes.iter().position(|byte| *byte == b'=') {
            command.env(OsStr::from_bytes(&bytes[..equals]), OsStr::from_bytes(&bytes[equals + 1..]));
        }
    }
    command.stdin(exec.null.try_clone()?).stdout(exec.log.try_clone()?).stderr(exec.log.try_clone()?);
    // SAFETY: `prepare` makes async-signal-safe calls only, on descriptors that the starter keeps open until exec.
    unsafe { command.pre_exec(move || prepare(&ready)) };
    Ok(command)
}

/// The life of a child's thread.
fn follow(mut command: Command, ends: Ends, answers: &SyncSender<io::Result<Child>>) {
    let Ends { tell, gate, descriptor, end, ended } = ends;
    let spawned = command.spawn().and_then(|child| i32::try_from(child.id()).map_err(io::Error::other));
    // The starter is to see the end of what a failed child said.
    drop((tell, gate, command));
    let pid = match spawned {
        Ok(pid) => pid,
        Err(error) => {
            // Without a starter there is nobody to tell.
            let _ = answers.send(Err(error));
            return;
        }
    };
    let process = Arc::new(Process { pid, child: true, session: None, ended: OnceLock::new() });
    let mut registry = registry();
    let pidfd = registry.hold(descriptor, process.clone());
    registry.children.insert(pid, (process.clone(), end));
    drop(registry);
    let _ = answers.send(Ok(Child { pid, pidfd }));
    see_out(&process, ended);
}

/// In the child, before exec. Allocates nothing.
fn prepare(ready: &Ready) -> io::Result<()> {
    // SAFETY: async-signal-safe calls only, on memory and descriptors that were there before the fork.
    unsafe {
        let mut standard: libc::sigaction = std::mem::zeroed();
        standard.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=SIGNAL_MAX {
            libc::sigaction(signal, &raw const standard, std::ptr::null_mut());
        }
        if libc::setsid() < 0 {
            return Err(failed(ready, Step::Session, 0));
        }
        if let Some(limit) = &ready.open_files {
            libc::setrlimit(libc::RLIMIT_NOFILE, limit);
        }
        for descriptor in 3..INHERITED_MAX {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        if let Err((step, item)) = settle::tune(&ready.tuning, ready.tell) {
            return Err(failed(ready, step, item));
        }
        if let Err(step) = settle::step_down(&ready.down) {
            return Err(failed(ready, step, 0));
        }
        libc::close(ready.opener);
        word::settled(ready.tell);
        let mut word = REFUSED;
        if libc::read(ready.gate, (&raw mut word).cast(), 1) != 1 || word != GO {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
    }
    Ok(())
}

/// What errno says, after the step was told.
fn failed(ready: &Ready, step: Step, item: usize) -> io::Error {
    let error = io::Error::last_os_error();
    // SAFETY: the pipe is open until exec.
    unsafe { word::failed(ready.tell, step, item) };
    error
}
