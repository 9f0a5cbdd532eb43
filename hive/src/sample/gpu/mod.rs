//! GPUs, looked at by a helper process outside the tick.

mod round;

pub use round::{Device, GpuRound, Outcome, Process};
