//! The few system calls that no crate wraps: starting a process inside its cgroup, and pidfds. The only unsafe code
//! of this wing.
#![allow(unsafe_code)]

mod pidfd;
mod start;

pub use pidfd::{Ended, ended, has_ended, open, reap, send, told_exit};
pub use start::{Child, Exec, Fault, Place, Step, remember_open_files, start};
