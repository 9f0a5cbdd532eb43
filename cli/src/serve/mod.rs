//! Runs a part of rbee until a signal ends it. Only here do the real clock, paths and environment come in.

pub mod agent;
mod demo_fleet;
mod hive;
mod queen;
pub mod settings;
mod up;

pub use hive::{gpu_probe, run as hive};
pub use queen::run as queen;
pub use up::run as up;

use crate::failure::Failure;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

/// As many open files as the hard limit allows: every hive, watcher and caller has a connection.
pub fn raise_open_files() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// Cancelled by SIGINT or SIGTERM.
pub fn stop_signal() -> Result<CancellationToken, Failure> {
    common::stop::on_signal().map_err(|error| Failure::failed("failed to listen for signals", &error))
}
