//! What a hive must have before it reads anything: its state directory, to itself.

use super::{LifeConfig, OpenError};
use crate::worker::cgroup::check_slice;
use crate::worker::lock::StateLock;
use crate::worker::record;

/// A state directory that no other hive can open as long as this lives.
#[derive(Debug)]
pub struct Claim {
    _lock: StateLock,
}

impl Claim {
    /// Makes the state directory where it is missing, and locks it. Nothing in it is read or changed.
    pub async fn take(config: &LifeConfig) -> Result<Self, OpenError> {
        check_slice(&config.slice)?;
        let failed = |source| OpenError::State { path: config.state_dir.clone(), source };
        record::make_private(&config.state_dir).map_err(failed)?;
        let lock = StateLock::take(&config.state_dir, &config.hive, &config.proc_root).await?;
        Ok(Self { _lock: lock })
    }
}
