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

/// File descriptors that are no connections: listeners, logs, what is read for a moment.
const OWN_FILES: u64 = 64;

/// As many open files as the hard limit allows: each connection is one, and so many are meant.
pub fn raise_open_files(connections: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(hard) if hard < connections.saturating_add(OWN_FILES) => {
            warn!(open_files = hard, connections, "the limit on open files is below the bound on connections");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "the limit on open files stays as it is"),
    }
}

/// Cancelled by SIGINT or SIGTERM.
pub fn stop_signal() -> Result<CancellationToken, Failure> {
    common::stop::on_signal().map_err(|error| Failure::failed("failed to listen for signals", &error))
}
