//! The services. Each answers from `fleet/` and makes the only `tonic::Status` there are.

pub mod bounded;
pub mod fleet;
pub mod invalid;
pub mod push;
pub mod scheduler;
pub mod telemetry;
pub mod watch;
mod watcher;

use crate::Config;
use crate::fleet::Fleet;
use crate::tunnel::Tunnels;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

/// Questions larger than this, in bytes, are refused. Only telemetry needs more.
pub const REQUEST_BYTES: usize = 64 * 1024;

/// What all services share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What is known.
    pub fleet: Arc<Fleet>,
    /// The ways to the hives.
    pub tunnels: Arc<Tunnels>,
    /// What this queen was told from outside.
    pub config: Arc<Config>,
    /// Cancelled when the queen stops: every stream ends then.
    pub stopping: CancellationToken,
    /// The next bookmark without its revision, encoded once for all watchers.
    pub bookmarks: Receiver<Bytes>,
    /// As many places as there may be watches.
    pub places: Arc<Semaphore>,
    /// Watches that were cut because their reader did not read.
    pub cut: Arc<AtomicU64>,
}
