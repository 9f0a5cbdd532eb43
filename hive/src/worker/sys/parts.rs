//! What both ways of starting a process have in common: the words they speak in.

use super::hung::Patience;
use nix::sys::resource::Resource;
use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// Soft and hard limit on open files that workers get, see [`remember_open_files`].
static OPEN_FILES: OnceLock<(libc::rlim_t, libc::rlim_t)> = OnceLock::new();

/// Where the child is put.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(any(not(target_os = "linux"), rbee_plain), allow(dead_code, reason = "a plain start enters no cgroup"))]
pub enum Place<'a> {
    /// Cloned into this cgroup directory.
    Cgroup(BorrowedFd<'a>),
    /// Writes itself into this open `cgroup.procs` before exec.
    Join(BorrowedFd<'a>),
    /// Stays where the hive is.
    Nowhere,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making the process.
    Clone = 1,
    /// Making its session.
    Session = 2,
    /// Writing itself into the cgroup.
    Join = 3,
    /// Wiring its input and output.
    Streams = 4,
    /// Entering its working directory.
    Directory = 5,
    /// Executing the program.
    Exec = 6,
    /// Writing down who it is, before it executes anything.
    Record = 7,
    /// Taking on its niceness.
    Nice = 8,
    /// Keeping to its CPUs.
    Affinity = 9,
    /// Taking on one of its resource limits.
    Resource = 10,
    /// Becoming its user.
    Account = 11,
    /// Giving up new privileges.
    Privileges = 12,
}

impl Step {
    /// What a child that failed calls its step.
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            2 => Self::Session,
            3 => Self::Join,
            4 => Self::Streams,
            5 => Self::Directory,
            6 => Self::Exec,
            7 => Self::Record,
            8 => Self::Nice,
            9 => Self::Affinity,
            10 => Self::Resource,
            11 => Self::Account,
            12 => Self::Privileges,
            _ => Self::Clone,
        }
    }
}

/// A step that failed: a start of which nothing is left, or a limit that the child goes on without.
#[derive(Debug)]
pub struct Fault {
    /// At which step.
    pub step: Step,
    /// Of several alike, such as resource limits, which.
    pub item: usize,
    /// Why.
    pub source: io::Error,
}

impl Fault {
    /// Of a step that there is only one of.
    pub fn at(step: Step) -> impl Fn(io::Error) -> Self {
        move |source| Self { step, item: 0, source }
    }
}

/// Takes down the pid of a child that waits to execute its program, and the limits that it could not take on.
pub type Written<'a> = dyn FnMut(i32, &[Fault]) -> io::Result<()> + 'a;

/// What is to be executed.
#[derive(Debug)]
pub struct Exec {
    /// Path of the program.
    pub program: CString,
    /// Its arguments, itself first.
    pub arguments: Vec<CString>,
    /// `KEY=value` each.
    pub environment: Vec<CString>,
    /// Where its output goes, opened for appending.
    pub log: OwnedFd,
    /// Where its input comes from: `/dev/null`.
    pub null: OwnedFd,
    /// As whom, and where.
    pub down: Down,
    /// How long it may take to begin.
    pub patience: Patience,
}

/// As whom a program runs, and where: the steps down from the hive.
#[derive(Debug, Clone, Default)]
pub struct Down {
    /// Who it runs as; `None`: as the hive does.
    pub account: Option<Account>,
    /// Where it works; `None`: where the hive does.
    pub directory: Option<CString>,
    /// It and its children gain nothing from setuid programs.
    pub no_new_privileges: bool,
}

/// A user of this machine, with the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: libc::uid_t,
    /// Id of the primary group.
    pub gid: libc::gid_t,
    /// Ids of all groups.
    pub groups: Vec<libc::gid_t>,
}

/// What each process limits itself to before it executes the program; its children inherit that.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Niceness.
    pub nice: Option<i32>,
    /// A bit for each CPU that it keeps to; `None`: all.
    pub affinity: Option<Vec<libc::c_ulong>>,
    /// Resource, soft and hard limit.
    pub resources: Vec<(Resource, libc::rlim_t, libc::rlim_t)>,
    /// Without all of that it is not started.
    pub strict: bool,
}

impl Tuning {
    /// The bits of an affinity.
    pub fn mask(cpus: impl Iterator<Item = u32>) -> Vec<libc::c_ulong> {
        let mut words = Vec::new();
        for cpu in cpus {
            let word = (cpu / libc::c_ulong::BITS) as usize;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (cpu % libc::c_ulong::BITS);
        }
        words
    }
}

/// A process past its exec. It is our child: whoever holds the pidfd reaps it.
#[derive(Debug)]
pub struct Child {
    /// Its pid.
    pub pid: i32,
    /// Names it for good.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody could tell.
    Unknown,
}

impl Ended {
    /// From a wait status, as wait(2) gives it.
    pub fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// Remembers the limit on open files that workers are to get: the one the hive itself was started with. Whoever
/// raises the hive's own limit calls this first; later calls change nothing.
pub fn remember_open_files() {
    OPEN_FILES.get_or_init(|| {
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .unwrap_or((libc::RLIM_INFINITY, libc::RLIM_INFINITY))
    });
}

/// The limit that was remembered.
pub(super) fn open_files() -> Option<libc::rlimit> {
    OPEN_FILES.get().map(|(soft, hard)| libc::rlimit { rlim_cur: *soft, rlim_max: *hard })
}
