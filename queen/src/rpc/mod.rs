//! The services. Each answers from `fleet/` and makes the only `tonic::Status` there are.

pub mod attach;
pub mod bounded;
pub mod browsers;
mod finding;
pub mod first;
pub mod fleet;
pub mod forward;
pub mod invalid;
pub mod owner;
pub mod push;
pub mod scheduler;
pub mod telemetry;
pub mod watch;

use crate::Config;
use crate::bound::Bound;
use crate::fleet::Fleet;
use crate::metrics::Counts;
use crate::reserve::Reserving;
use crate::tunnel::Tunnels;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

/// What all services share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What is known.
    pub fleet: Arc<Fleet>,
    /// The ways to the hives.
    pub tunnels: Arc<Tunnels>,
    /// What is held, and what is about to be.
    pub reserving: Arc<Reserving>,
    /// What this queen was told from outside.
    pub config: Arc<Config>,
    /// Cancelled when the queen stops: every stream ends then.
    pub stopping: CancellationToken,
    /// The next bookmark without its revision, encoded once for all watchers.
    pub bookmarks: Receiver<Bytes>,
    /// As many places as there may be watches.
    pub places: Arc<Bound>,
    /// Where those who watch sit.
    pub seats: Arc<watch::Seats>,
    /// Watches that were cut because their reader did not read.
    pub cut: Arc<AtomicU64>,
    /// What telemetry brought.
    pub counts: Arc<Counts>,
}
