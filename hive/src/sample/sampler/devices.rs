//! The machine's GPUs for the wire, and who holds their memory without being a worker. Numbers that are withdrawn or
//! cannot be true are absent; what a GPU *is* stays.

use super::super::gpu_share::{Trust, possible};
use crate::gpus::{Device, GpuRound, Process, Vendor, observed};
use std::cmp::Reverse;

/// So many foreign processes are named per GPU, those with the most memory; the others are in its used memory only.
pub const FOREIGN_MAX: usize = 16;

/// Whose processes are workers'. Reused from round to round.
#[derive(Debug, Default)]
pub struct Owned {
    /// Those of this round and of the one before, ascending: a driver's answer may be older than the last look.
    pids: Vec<i32>,
    now: Vec<i32>,
    before: Vec<i32>,
    foreign: Vec<usize>,
}

impl Owned {
    /// Begins a round.
    pub fn clear(&mut self) {
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.clear();
    }

    /// Adds the processes of one worker.
    pub fn add(&mut self, pids: &[i32]) {
        self.now.extend_from_slice(pids);
    }

    /// Ends what [`Owned::clear`] began.
    pub fn settle(&mut self) {
        self.pids.clear();
        self.pids.extend_from_slice(&self.now);
        self.pids.extend_from_slice(&self.before);
        self.pids.sort_unstable();
    }

    fn has(&self, pid: u32) -> bool {
        i32::try_from(pid).is_ok_and(|pid| self.pids.binary_search(&pid).is_ok())
    }
}

/// Writes the GPUs over what the rows were; allocates only for what is new.
pub fn write(rows: &mut Vec<proto::Gpu>, round: &GpuRound, trust: Trust, owned: &mut Owned) {
    rows.resize_with(round.devices.len(), proto::Gpu::default);
    for (at, (row, device)) in rows.iter_mut().zip(&round.devices).enumerate() {
        write_device(row, device, trust);
        row.observed_bytes = if trust.shown && device.error.is_none() { observed(round, at) } else { None };
        write_foreign(&mut row.foreign, round, at, trust, owned);
    }
}

fn write_device(row: &mut proto::Gpu, device: &Device, trust: Trust) {
    let told = trust.shown && device.error.is_none();
    let fits = |used: &u64| device.memory_total_bytes.is_none_or(|total| *used <= total);
    let number = |value: Option<f64>| value.filter(|value| told && value.is_finite());
    row.uuid.clone_from(&device.uuid);
    row.name.clone_from(&device.name);
    row.parent_uuid.clone_from(&device.parent_uuid);
    row.error.clone_from(&device.error);
    row.vendor = match device.vendor {
        Vendor::Nvidia => proto::GpuVendor::Nvidia,
        Vendor::Amd => proto::GpuVendor::Amd,
        Vendor::Intel => proto::GpuVendor::Intel,
    }
    .into();
    row.memory_total_bytes = device.memory_total_bytes;
    row.memory_used_bytes = device.memory_used_bytes.filter(|used| told && fits(used));
    row.util_pct = device.util_pct.filter(|util| told && possible(*util));
    row.temperature_celsius = number(device.temperature_celsius);
    row.power_watts = number(device.power_watts).filter(|watts| *watts >= 0.0);
    row.power_limit_watts = number(device.power_limit_watts).filter(|watts| *watts >= 0.0);
    row.ecc_uncorrected = device.ecc_uncorrected.filter(|_| told);
}

/// Those with the most memory first.
fn write_foreign(
    rows: &mut Vec<proto::ForeignProcess>,
    round: &GpuRound,
    device: usize,
    trust: Trust,
    owned: &mut Owned,
) {
    let mut foreign = std::mem::take(&mut owned.foreign);
    foreign.clear();
    if trust.shown {
        let on_it = |process: &Process| process.device == device && !owned.has(process.pid);
        foreign.extend(round.processes.iter().enumerate().filter(|(_, process)| on_it(process)).map(|(at, _)| at));
    }
    let of = |at: &usize| round.processes.get(*at);
    foreign.sort_unstable_by_key(|at| (Reverse(of(at).and_then(|it| it.vram_bytes)), of(at).map(|it| it.pid), *at));
    foreign.truncate(FOREIGN_MAX);
    rows.resize_with(foreign.len(), proto::ForeignProcess::default);
    for (row, process) in rows.iter_mut().zip(foreign.iter().filter_map(of)) {
        row.pid = process.pid;
        row.vram_bytes = process.vram_bytes;
        match &process.name {
            Some(name) => row.name.clone_from(name),
            None => row.name.clear(),
        }
    }
    owned.foreign = foreign;
}
