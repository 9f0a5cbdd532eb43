//! Keeps workers alive: starts them in cgroups, follows their lives, stops them, finds them again after a restart of
//! the hive. It knows nothing of samples and queens; what it tells is a [`Roster`](crate::roster::Roster) and a
//! [`Journal`].

mod adopt;
pub mod cgroup;
pub mod command;
mod drain;
mod flood;
pub mod journal;
mod life;
pub mod limits;
mod lock;
pub mod logs;
mod mend;
pub mod model;
pub mod observe;
pub mod procfs;
pub mod record;
mod spawn;
mod sys;
#[cfg(test)]
mod testing;
pub mod vram;

pub use journal::Journal;
pub use life::{Claim, Life, LifeConfig, OpenError, RestartError, StartError, Started, StopError};
pub use lock::{LockError, holder_of as lock_holder};
pub use sys::remember_open_files;
