//! GPUs, looked at by a helper process outside the tick.

#[cfg(test)]
mod fake;
mod feed;
mod helper;
mod nvml;
mod probe;
mod round;
mod smi;

pub use feed::{GpuConfig, feed};
pub use probe::{ProbeArgs, ProbeError, probe};
pub use round::{Device, GpuRound, Outcome, Process};
