//! The words that the wings share about GPUs: one round over all of them, which the GPU helper process also speaks, as
//! one line of JSON.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// What [`Device::error`] says of a GPU that has fallen off the bus.
pub const LOST: &str = "GPU is lost";

/// What is known of the GPUs.
#[derive(Debug, Clone, Default)]
pub struct GpuView {
    /// The latest round.
    pub round: Arc<GpuRound>,
    /// When the driver last answered; `None` when it never has.
    pub answered: Option<Instant>,
}

/// One look at all GPUs of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuRound {
    /// How the look went.
    pub outcome: Outcome,
    /// Version of the driver.
    pub driver_version: Option<String>,
    /// Every GPU, in the driver's order.
    pub devices: Vec<Device>,
    /// Every process that the driver names, once per GPU.
    pub processes: Vec<Process>,
    /// What the drivers reported since the round before.
    pub events: Vec<GpuEvent>,
    /// A sentence for each thing that this machine's drivers cannot tell, such as memory before version 510.
    #[serde(default)]
    pub notes: Vec<String>,
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

/// Whose driver it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vendor {
    /// NVIDIA, asked through NVML or nvidia-smi.
    #[default]
    Nvidia,
    /// AMD, read from sysfs and fdinfo.
    Amd,
    /// Intel, read from sysfs and fdinfo.
    Intel,
}

/// One GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The driver's UUID, "GPU-…" or "MIG-…"; "PCI-0000:03:00.0" where the driver has none.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Whose driver it is.
    pub vendor: Vendor,
    /// Of a slice of a GPU (MIG): the UUID of that one.
    pub parent_uuid: Option<String>,
    /// Bytes; `None` when the driver would not say.
    pub memory_total_bytes: Option<u64>,
    /// Bytes in use by anybody; `None` on a GPU in slices (MIG), whose slices tell theirs: nothing can be placed on it.
    pub memory_used_bytes: Option<u64>,
    /// Percent, 0 to 100, of the whole device.
    pub util_pct: Option<f64>,
    /// Degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Watts drawn now.
    pub power_watts: Option<f64>,
    /// Watts it is held to.
    pub power_limit_watts: Option<f64>,
    /// Errors that could not be corrected, since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Whether this GPU can tell use per process; false under MIG.
    pub per_process: bool,
    /// What the driver refused for this GPU, if anything: "GPU is lost".
    pub error: Option<String>,
}

/// One process on one GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id as this machine's process table has it; 0 where the driver's number cannot be mapped to it.
    pub pid: u32,
    /// Index into the round's devices.
    pub device: usize,
    /// Bytes; `None` where the driver says "not available".
    pub vram_bytes: Option<u64>,
    /// Percent, 0 to 100; `None` where it cannot be told.
    pub util_pct: Option<f64>,
    /// Its program, as far as it can be seen.
    pub name: Option<String>,
}

/// Something that a driver reported, or that was noticed about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuEvent {
    /// Which GPU; empty when it is about the driver as a whole.
    pub uuid: String,
    /// What.
    pub kind: GpuEventKind,
    /// One sentence.
    pub message: String,
}

/// Kinds of [`GpuEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuEventKind {
    /// An error of the device, such as an XID.
    Error,
    /// It has fallen off the bus, or is not listed any more.
    Lost,
    /// The driver has not answered for 10 s.
    Stalled,
    /// It answers again, or is back.
    Recovered,
}

/// What the processes that the driver names hold of the GPU at this position, in bytes; `None` when it names some and
/// tells of none of them how much.
pub fn observed(round: &GpuRound, at: usize) -> Option<u64> {
    let mut on_it = round.processes.iter().filter(|process| process.device == at).peekable();
    if on_it.peek().is_none() {
        return Some(0);
    }
    on_it.filter_map(|process| process.vram_bytes).reduce(u64::saturating_add)
}
