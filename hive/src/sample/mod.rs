//! Measures workers.

pub mod gpu;

use std::sync::Arc;
use std::time::Instant;

/// What is known of the GPUs.
#[derive(Debug, Clone)]
pub struct GpuView {
    /// The latest round.
    pub round: Arc<gpu::GpuRound>,
    /// When the driver last answered; `None` when it never has.
    pub answered: Option<Instant>,
}
