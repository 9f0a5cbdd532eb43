//! What a hive serves, wherever it is called from: one list for its unix socket and for the tunnels to the queens.

use super::{grants, workers};
use crate::templates::Templates;
use crate::worker::Life;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// From where a call comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// From this machine, over the unix socket: whoever may open that owns the hive.
    Local,
    /// From a queen: whoever may ask her, anywhere.
    Network,
}

/// Answers DescribeHive.
pub type Describe = dyn Fn() -> proto::DescribeHiveResponse + Send + Sync;

/// What the services answer from. Clones share it.
#[derive(Clone)]
pub struct Services {
    /// The workers.
    pub life: Life,
    /// What can be started by name.
    pub templates: Arc<Templates>,
    /// What this hive is.
    pub about: Arc<Describe>,
    /// Every stream ends when it is cancelled.
    pub stopping: CancellationToken,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Services {
    /// All of them, for callers of one kind.
    pub fn routes(&self, caller: Caller) -> Routes {
        let life = self.life.clone();
        let grants = grants::service(self.life.clone(), move || life.draining());
        Routes::new(workers::service(self.clone(), caller)).add_service(grants)
    }
}
