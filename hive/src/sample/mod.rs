//! Measures workers.

pub mod gpu;
