//! Patience with a child between clone and exec: how long its next word is waited for, and what becomes of it after
//! that. A frozen cgroup, or a disk of the network that does not answer, can hold it for ever.

use super::parts::{Fault, Step};
use super::word::{self, Word};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a child may take from clone until exec, the hive's own part not counted. Less than what clients wait for an
/// answer, so that they hear which step it was.
const BEGIN_LIMIT: Duration = Duration::from_secs(8);
/// How often it is looked whether somebody has given the start up meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// How long a killed child is waited for. One in a driver's hands is left: it has no program, and goes when it can.
#[cfg(all(target_os = "linux", not(rbee_plain)))]
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// How long a start may take.
#[derive(Debug, Clone)]
pub struct Patience {
    /// From clone until exec.
    pub limit: Duration,
    /// Somebody does not want it any more.
    pub given_up: CancellationToken,
}

impl Default for Patience {
    fn default() -> Self {
        Self { limit: BEGIN_LIMIT, given_up: CancellationToken::new() }
    }
}

/// One wait for a child.
pub struct Wait<'a> {
    patience: &'a Patience,
    deadline: Instant,
    /// Where the child is, as far as it has told.
    step: Step,
}

impl<'a> Wait<'a> {
    /// Begins at clone.
    pub fn new(patience: &'a Patience) -> Self {
        Self { patience, deadline: Instant::now() + patience.limit, step: Step::Clone }
    }

    /// The child goes on with this step; for so long it had been waiting for the hive.
    pub fn goes_on(&mut self, step: Step, waited: Duration) {
        self.step = step;
        self.deadline += waited;
    }

    /// Its next word; `None` when exec, or its end, has closed the pipe. A fault: it is not waited for any longer.
    pub fn word(&mut self, pipe: &mut (impl Read + AsFd)) -> Result<Option<Word>, Fault> {
        loop {
            if !readable(pipe, LOOK.min(self.deadline.saturating_duration_since(Instant::now()))) {
                let source = if self.patience.given_up.is_cancelled() {
                    io::Error::new(io::ErrorKind::Interrupted, "given up before it began")
                } else if Instant::now() >= self.deadline {
                    let words = format!(
                        "not done within {} s, and given up: is its cgroup frozen, or does a disk not answer?",
                        self.patience.limit.as_secs_f64()
                    );
                    io::Error::new(io::ErrorKind::TimedOut, words)
                } else {
                    continue;
                };
                return Err(Fault::at(self.step)(source));
            }
            match word::receive(pipe) {
                Some(Word::At(step)) => self.step = step,
                told => return Ok(told),
            }
        }
    }
}

impl Fault {
    /// Whether the child was given up, and might have gone on: no other way is to be tried then.
    pub fn gave_up(&self) -> bool {
        self.source.raw_os_error().is_none()
            && matches!(self.source.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
    }
}

fn readable(pipe: &impl AsFd, length: Duration) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    // A part of a millisecond is a whole one: never a wait of none, again and again.
    let millis = u16::try_from(length.as_millis() + 1).unwrap_or(u16::MAX);
    let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::from(millis)), Ok(count) if count > 0)
}

/// Kills a child that has not executed anything, and reaps it if it ends soon.
#[cfg(all(target_os = "linux", not(rbee_plain)))]
pub fn end(child: &super::parts::Child) {
    use super::pidfd;
    let _ = pidfd::send(child.pidfd.as_fd(), nix::sys::signal::Signal::SIGKILL);
    // A pidfd is readable at the end of its process.
    if readable(&child.pidfd, REAP_LIMIT) {
        let _ = pidfd::reap(&child.pidfd);
    } else {
        tracing::warn!(pid = child.pid, "a child that was given up before exec does not end");
    }
}
