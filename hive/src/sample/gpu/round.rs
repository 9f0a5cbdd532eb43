//! What the GPU helper process tells the hive: one round over all GPUs, as one line of JSON.

use serde::{Deserialize, Serialize};

/// One look at all GPUs of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuRound {
    /// How the look went.
    pub outcome: Outcome,
    /// Every GPU, in the driver's order.
    pub devices: Vec<Device>,
    /// Every process that the driver names, once per GPU.
    pub processes: Vec<Process>,
}

/// How a look at the GPUs went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Nobody has answered yet.
    #[default]
    Pending,
    /// The driver answered.
    Answered,
    /// There is no driver or no GPU on this machine.
    NoGpu,
    /// The driver answered with an error; says which.
    Failed(String),
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The driver's UUID, "GPU-…".
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Bytes; `None` when the driver would not say.
    pub memory_total_bytes: Option<u64>,
    /// Bytes in use by anybody.
    pub memory_used_bytes: Option<u64>,
    /// Percent, 0 to 100, of the whole device.
    pub util_pct: Option<f64>,
    /// Whether this GPU can tell use per process; false under MIG.
    pub per_process: bool,
    /// What the driver refused for this GPU, if anything: "GPU is lost".
    pub error: Option<String>,
}

/// One process on one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id as the driver gives it.
    pub pid: u32,
    /// Index into the round's devices.
    pub device: usize,
    /// Bytes; `None` where the driver says "not available".
    pub vram_bytes: Option<u64>,
    /// Percent, 0 to 100; `None` where it cannot be told.
    pub util_pct: Option<f64>,
}
