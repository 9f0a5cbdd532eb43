//! What is free on one GPU of a hive, and why a GPU is out of placement. The one place where that is decided. Pure.

use proto::{Gpu, GpuSampleState, Hive, OperationalStatus};

/// The memory of one GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub total: u64,
    /// In use: what the device says, or the sum over its processes, whichever is larger.
    pub used: u64,
    /// Granted and not used yet.
    pub held: u64,
    /// What is left.
    pub free: u64,
}

/// Why a GPU is not offered, whatever is free on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit<'a> {
    /// Its hive takes no further starts and grants.
    Draining,
    /// Its hive is about to end.
    Stopping,
    /// Its driver does not answer, answers with errors, or has not answered lately.
    Driver(GpuSampleState),
    /// It cannot be used, as its driver says.
    Broken(&'a str),
    /// It is divided, and its parts are looked at one by one.
    Divided,
    /// Its driver does not tell how much memory is free.
    Untold,
}

/// The room on the GPU at a position of a hive's record.
pub fn of(hive: &Hive, at: usize) -> Result<Room, Unfit<'_>> {
    match hive.operational_status() {
        OperationalStatus::Draining => return Err(Unfit::Draining),
        OperationalStatus::Stopping => return Err(Unfit::Stopping),
        OperationalStatus::Unspecified | OperationalStatus::Starting | OperationalStatus::Ready => {}
    }
    let state = hive.gpu_sample_state();
    if matches!(state, GpuSampleState::Timeout | GpuSampleState::Stale | GpuSampleState::Error) {
        return Err(Unfit::Driver(state));
    }
    let gpu = hive.gpus.get(at).ok_or(Unfit::Untold)?;
    if let Some(error) = &gpu.error {
        return Err(Unfit::Broken(error));
    }
    // Without a UUID it cannot be told apart from its neighbours.
    if !gpu.uuid.is_empty() && hive.gpus.iter().any(|part| part.parent_uuid.as_ref() == Some(&gpu.uuid)) {
        return Err(Unfit::Divided);
    }
    room(gpu).ok_or(Unfit::Untold)
}

fn room(gpu: &Gpu) -> Option<Room> {
    let free = common::vram::Memory::from(gpu).free(0)?;
    let used = gpu.memory_used_bytes.unwrap_or(0).max(gpu.observed_bytes.unwrap_or(0));
    Some(Room { total: gpu.memory_total_bytes?, used, held: gpu.held_bytes, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hive(gpus: Vec<Gpu>) -> Hive {
        Hive { gpus, gpu_sample_state: GpuSampleState::Ok.into(), ..Hive::default() }
    }

    fn gpu(total: Option<u64>, used: Option<u64>) -> Gpu {
        Gpu { uuid: "GPU-1".into(), memory_total_bytes: total, memory_used_bytes: used, ..Gpu::default() }
    }

    #[test]
    fn a_gpu_has_what_is_neither_used_nor_held() {
        let full = Gpu { observed_bytes: Some(12), held_bytes: 3, ..gpu(Some(24), Some(10)) };
        assert_eq!(of(&hive(vec![full]), 0), Ok(Room { total: 24, used: 12, held: 3, free: 9 }));
    }

    #[test]
    fn what_nobody_vouches_for_is_out_of_placement() {
        let good = gpu(Some(24), Some(10));
        let with = |change: fn(&mut Hive)| {
            let mut hive = hive(vec![gpu(Some(24), Some(10))]);
            change(&mut hive);
            of(&hive, 0).map(|room| room.free).map_err(|unfit| format!("{unfit:?}"))
        };
        assert_eq!(with(|_| {}), Ok(14));
        for state in [GpuSampleState::Timeout, GpuSampleState::Stale, GpuSampleState::Error] {
            let silent = Hive { gpu_sample_state: state.into(), ..hive(vec![good.clone()]) };
            assert_eq!(of(&silent, 0), Err(Unfit::Driver(state)));
        }
        assert_eq!(with(|hive| hive.operational_status = OperationalStatus::Draining.into()), Err("Draining".into()));
        assert_eq!(with(|hive| hive.gpus[0].error = Some("lost".into())), Err("Broken(\"lost\")".into()));
        assert_eq!(with(|hive| hive.gpus[0].memory_used_bytes = None), Err("Untold".into()));
        assert_eq!(with(|hive| hive.gpus[0].memory_total_bytes = None), Err("Untold".into()));
        assert_eq!(
            with(|hive| hive.gpus.push(Gpu { parent_uuid: Some("GPU-1".into()), ..Gpu::default() })),
            Err("Divided".into())
        );
    }
}
