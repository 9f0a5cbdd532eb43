//! What a child tells the hive between clone and exec: four numbers at a time, through a pipe that exec closes.

use super::parts::{Fault, Step};
use std::io::{self, Read};
use std::os::fd::RawFd;

/// It ends at this step.
const FAILED: i32 = 0;
/// It goes on without this.
const REFUSED: i32 = 1;
/// It has done all it can do before it waits for its turn; the step is its pid.
const SETTLED: i32 = 2;
/// It is about to take this step.
const AT: i32 = 3;
const BYTES: usize = 16;

/// One thing that a child tells.
#[derive(Debug)]
pub enum Word {
    /// It ends.
    Failed(Fault),
    /// It goes on.
    Refused(Fault),
    /// It is about to take this step.
    At(Step),
    /// It waits; its pid.
    #[cfg_attr(all(target_os = "linux", not(rbee_plain)), allow(dead_code, reason = "clone3 has told it already"))]
    Settled(i32),
}

/// The next word; `None` when exec, or the child's end, has closed the pipe.
pub fn receive(pipe: &mut impl Read) -> Option<Word> {
    let mut bytes = [0u8; BYTES];
    // A pipe that cannot be read says as little as one that is closed.
    pipe.read_exact(&mut bytes).ok()?;
    let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (kind, step, item, errno) = (number(0), number(4), number(8), number(12));
    let fault = || Fault {
        step: Step::from_number(step),
        item: usize::try_from(item).unwrap_or_default(),
        source: io::Error::from_raw_os_error(errno),
    };
    Some(match kind {
        SETTLED => Word::Settled(step),
        REFUSED => Word::Refused(fault()),
        AT => Word::At(Step::from_number(step)),
        _ => Word::Failed(fault()),
    })
}

/// Tells that it ends, with errno as it is.
///
/// # Safety
/// Only in a child, on an open pipe. Allocates nothing.
pub unsafe fn failed(pipe: RawFd, step: Step, item: usize) {
    // SAFETY: as this function's own.
    unsafe { send(pipe, [FAILED, step as i32, item as i32, last_errno()]) }
}

/// Tells that it goes on without this, with errno as it is.
///
/// # Safety
/// As [`failed`].
pub unsafe fn refused(pipe: RawFd, step: Step, item: usize) {
    // SAFETY: as this function's own.
    unsafe { send(pipe, [REFUSED, step as i32, item as i32, last_errno()]) }
}

/// Tells which step comes next, in case it never ends.
///
/// # Safety
/// As [`failed`].
#[cfg_attr(any(not(target_os = "linux"), rbee_plain), allow(dead_code, reason = "nothing there could end the child"))]
pub unsafe fn at(pipe: RawFd, step: Step) {
    // SAFETY: as this function's own.
    unsafe { send(pipe, [AT, step as i32, 0, 0]) }
}

/// Tells that it waits.
///
/// # Safety
/// As [`failed`].
pub unsafe fn settled(pipe: RawFd) {
    // SAFETY: as this function's own; `getpid` cannot fail.
    unsafe { send(pipe, [SETTLED, libc::getpid(), 0, 0]) }
}

fn last_errno() -> i32 {
    nix::errno::Errno::last_raw()
}

unsafe fn send(pipe: RawFd, word: [i32; 4]) {
    // SAFETY: sixteen bytes of our own stack; a pipe takes so few at once.
    unsafe { libc::write(pipe, word.as_ptr().cast(), BYTES) };
}
