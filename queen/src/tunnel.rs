//! The ways to the hives: a channel to each, inside the connection that it dialled. Nothing here dials a hive.

use common::HiveId;
use tonic::transport::Channel;

/// Why a hive cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTunnel {
    /// No hive of this name has attached.
    #[error("hive {0} is not attached to this queen: it is unknown, unreachable or too old")]
    Absent(HiveId),
}

/// The tunnels that are open.
#[derive(Debug, Default)]
pub struct Tunnels {}

impl Tunnels {
    /// A channel on which `WorkerService` and `GrantService` of a hive answer. Its inner connection is made when a call
    /// first needs it.
    ///
    /// # Errors
    /// [`NoTunnel::Absent`] when the hive has not attached.
    pub fn channel(&self, hive: &HiveId) -> Result<Channel, NoTunnel> {
        Err(NoTunnel::Absent(hive.clone()))
    }
}
