//! Runs a part of rbee until a signal ends it. Only here do the real clock, paths and environment come in.

pub mod agent;
mod demo_fleet;
mod hive;
pub mod queen;
pub mod settings;
mod up;

pub use hive::{gpu_probe, run as hive};
pub use up::run as up;

use crate::failure::Failure;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// File descriptors that are no connections: listeners, logs, what is read for a moment. Where few files may be open, half
/// of them.
const OWN_FILES: u64 = 64;

/// As many open files as the hard limit allows. Answers how many connections those are, each being one.
pub fn raise_open_files() -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limits.and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    let allowed = raised.unwrap_or_else(|error| {
        warn!(%error, "the limit on open files stays as it is");
        limits.map_or(0, |(soft, _)| soft)
    });
    allowed - OWN_FILES.min(allowed / 2)
}

/// The same for so many connections that are meant.
pub fn raise_open_files_for(connections: u64) {
    let allowed = raise_open_files();
    if allowed < connections {
        warn!(allowed, connections, "the limit on open files is below what is meant");
    }
}

/// Cancelled by SIGINT or SIGTERM.
pub fn stop_signal() -> Result<CancellationToken, Failure> {
    common::stop::on_signal().map_err(|error| Failure::failed("failed to listen for signals", &error))
}
