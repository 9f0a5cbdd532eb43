//! The few system calls that no crate wraps: starting a process inside its cgroup, and pidfds. Where there are neither,
//! `plain.rs` stands in for both. The only unsafe code of this wing.
#![allow(unsafe_code)]

mod hung;
mod parts;
#[cfg(all(target_os = "linux", not(rbee_plain)))]
mod pidfd;
#[cfg(any(not(target_os = "linux"), rbee_plain))]
mod plain;
#[cfg(target_os = "linux")]
mod polled;
mod settle;
#[cfg(all(target_os = "linux", not(rbee_plain)))]
mod start;
mod word;

pub use hung::Patience;
pub use parts::{Account, Child, Down, Ended, Exec, Fault, Place, Step, Tuning, Written, remember_open_files};
#[cfg(all(target_os = "linux", not(rbee_plain)))]
pub use pidfd::{ended, has_ended, open, reap, send, told_exit};
#[cfg(any(not(target_os = "linux"), rbee_plain))]
pub use plain::{ended, has_ended, open, reap, send, start, told_exit};
#[cfg(target_os = "linux")]
pub use polled::polled;
pub use settle::KEEPS_TO_CPUS;
#[cfg(all(target_os = "linux", not(rbee_plain)))]
pub use start::start;
