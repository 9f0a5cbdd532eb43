//! Checks what a hive says before any of it is kept: names, whose it is, sizes, numbers that cannot be true. Pure.

use super::measured::Measured;
use super::{Refusal, Spec, holds};
use common::columns::Quanta;
use common::gpus::Uses;
use common::{HiveId, WorkerId};
use prost::Message;
use proto::{GpuUse, ProcessStats, SlotGpus, WorkerRow};
use std::sync::Arc;

/// The most one worker's spec, or one hive's record, may take on the wire.
const RECORD_BYTES: usize = 64 * 1024;
/// The most GPUs one worker may name.
const GPUS: usize = 64;
/// The longest UUID of a GPU, in bytes: its driver's have 40.
const GPU_UUID: usize = 128;

/// A row that may be kept.
#[derive(Debug)]
pub struct Checked {
    /// Which worker in this session.
    pub slot: u32,
    /// Its name.
    pub id: WorkerId,
    /// What it is.
    pub spec: Arc<Spec>,
    /// A `WorkerState` as it came.
    pub state: i32,
    /// Its numbers, those that cannot be true left out.
    pub stats: Option<Measured>,
    /// How many numbers were left out.
    pub dropped: u64,
}

/// Checks one row of the hive called `hive`.
pub fn check(hive: &HiveId, row: WorkerRow) -> Result<Checked, Refusal> {
    let mut spec = row.spec.ok_or_else(|| Refusal::invalid("rows.spec", "each row needs a spec"))?;
    if spec.hive.is_empty() {
        hive.as_str().clone_into(&mut spec.hive);
    }
    if spec.hive != hive.as_str() {
        let named: String = spec.hive.chars().take(80).collect();
        let reason = format!("{named:?} is not this session's hive: a hive writes only under its own id, {hive}");
        return Err(Refusal::invalid("rows.spec.hive", reason));
    }
    let id = WorkerId::new(&spec.group, &spec.instance).map_err(|e| Refusal::invalid("rows.spec", e.to_string()))?;
    // One date that no calendar has would make whole lists unreadable as JSON.
    let untimely = spec.start_time.take_if(|at| common::from_timestamp(at).is_none()).is_some();
    let spec = Spec::of(&spec);
    if spec.bytes().len() > RECORD_BYTES {
        let reason = format!("the spec of {id} has {} bytes; at most {RECORD_BYTES} are accepted", spec.bytes().len());
        return Err(Refusal::invalid("rows.spec", reason));
    }
    let (stats, dropped) = row.stats.map(clean).unzip();
    let dropped = dropped.unwrap_or(0) + u64::from(untimely);
    Ok(Checked { slot: row.slot, id, spec: Arc::new(spec), state: row.state, stats, dropped })
}

/// Takes numbers that cannot be true out of a row, and counts them. The uptime goes too: it is told from the start
/// time where it is asked for.
fn clean(mut stats: ProcessStats) -> (Measured, u64) {
    stats.uptime = None;
    let (quanta, dropped) = Quanta::of_believed(&mut stats);
    let dropped = dropped + clean_gpus(&mut stats.gpus);
    (Measured::of(quanta, stats), dropped)
}

/// The same for per-GPU rows.
fn clean_gpus(gpus: &mut Vec<GpuUse>) -> u64 {
    let before = gpus.len();
    gpus.retain(|gpu| gpu.uuid.len() <= GPU_UUID);
    gpus.truncate(GPUS);
    // Kept for as long as the worker is there.
    gpus.shrink_to_fit();
    (before - gpus.len()) as u64 + gpus.iter_mut().map(|gpu| clean_number(&mut gpu.util_pct)).sum::<u64>()
}

/// The same for a packed list, as far as its length goes.
pub fn clean_packed(packed: &mut SlotGpus) -> u64 {
    let all = packed.cells.len() + packed.gpus.len();
    packed.cells.truncate(GPUS);
    packed.gpus.truncate(GPUS - packed.cells.len());
    (all - packed.cells.len() - packed.gpus.len()) as u64
}

/// The same for what a batch says about them.
pub fn clean_uses(uses: &mut Uses) -> u64 {
    match uses {
        Uses::Sole(_) => 0,
        Uses::Rows(rows) => clean_gpus(rows),
    }
}

fn clean_number(field: &mut Option<f64>) -> u64 {
    let wrong = field.is_some_and(|value| !value.is_finite() || value < 0.0);
    if wrong {
        *field = None;
    }
    u64::from(wrong)
}

/// Checks a hive's own record and clears what only the queen may say. Answers how many numbers were left out.
pub fn check_hive(id: &HiveId, hive: &mut proto::Hive) -> Result<u64, Refusal> {
    if hive.id != id.as_str() {
        let reason = format!("this session belongs to {id}: a hive writes only under its own id");
        return Err(Refusal::invalid("hive.id", reason));
    }
    (hive.freshness, hive.age, hive.worker_count) = (0, None, 0);
    // Holds have bounds of their own: many of them must not make the rest of a record unacceptable.
    let (holds, strange) = holds::check(std::mem::take(&mut hive.holds));
    let aborted = holds::check_aborted(&mut hive.aborted_reservations);
    let size = hive.encoded_len();
    if size > RECORD_BYTES {
        let reason = format!("the record has {size} bytes; at most {RECORD_BYTES} are accepted");
        return Err(Refusal::invalid("hive", reason));
    }
    // Every worker on it will bear a copy.
    if let Some(long) = hive.gpus.iter().find(|gpu| gpu.uuid.len() > GPU_UUID) {
        let reason = format!("a GPU's UUID has {} bytes; at most {GPU_UUID} are accepted", long.uuid.len());
        return Err(Refusal::invalid("hive.gpus.uuid", reason));
    }
    hive.holds = holds;
    // Of one that was left out it must not be said that it has ended.
    hive.last_fencing_token = if strange == 0 { hive.last_fencing_token } else { 0 };
    let host = hive.host.as_mut().map_or(0, clean_host);
    Ok(strange + aborted + host + hive.gpus.iter_mut().map(clean_gpu).sum::<u64>())
}

fn clean_gpu(gpu: &mut proto::Gpu) -> u64 {
    let numbers = [&mut gpu.util_pct, &mut gpu.temperature_celsius, &mut gpu.power_watts, &mut gpu.power_limit_watts];
    numbers.into_iter().map(clean_number).sum()
}

fn clean_host(host: &mut proto::HostStats) -> u64 {
    let numbers = [&mut host.cpu_pct, &mut host.load_1, &mut host.load_5, &mut host.load_15];
    let disks = host
        .disks
        .iter_mut()
        .flat_map(|disk| [&mut disk.read_bytes_per_second, &mut disk.write_bytes_per_second, &mut disk.busy_pct]);
    numbers.into_iter().chain(disks).map(clean_number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::WorkerSpec;

    fn row(hive: &str, instance: &str) -> WorkerRow {
        let spec =
            WorkerSpec { hive: hive.into(), group: "llm".into(), instance: instance.into(), ..Default::default() };
        WorkerRow { slot: 1, spec: Some(spec), state: 2, stats: None }
    }

    #[test]
    fn b5_a_hive_writes_only_under_its_own_id() {
        let own = HiveId::parse("box").unwrap();
        assert!(check(&own, row("box", "8080")).is_ok());
        assert_eq!(check(&own, row("", "8080")).unwrap().spec.hive(), "box", "plain clients may leave it out");
        assert!(matches!(check(&own, row("other", "8080")), Err(Refusal::Invalid { field: "rows.spec.hive", .. })));
        let mut hive = proto::Hive { id: "other".into(), ..Default::default() };
        assert!(check_hive(&own, &mut hive).is_err());
    }

    #[test]
    fn a_record_of_which_a_hold_is_left_out_does_not_say_that_it_has_ended() {
        let own = HiveId::parse("box").unwrap();
        let hold = |reservation: &str| proto::Hold {
            reservation: reservation.into(),
            worker: "llm/1".into(),
            ..Default::default()
        };
        for (holds, token) in [(vec![hold("r1")], 7), (vec![hold("r1"), hold("../r2")], 0)] {
            let mut hive = proto::Hive { id: "box".into(), holds, last_fencing_token: 7, ..Default::default() };
            check_hive(&own, &mut hive).unwrap();
            assert_eq!((hive.holds.len(), hive.last_fencing_token), (1, token));
        }
    }

    #[test]
    fn b3_names_that_could_leave_the_slice_are_refused_here_too() {
        let own = HiveId::parse("box").unwrap();
        for bad in ["../x", "", "memory.max"] {
            let refusal = check(&own, row("box", bad)).unwrap_err().to_string();
            assert!(refusal.contains("instance"), "{refusal}");
        }
    }

    #[test]
    fn b2_a_number_that_cannot_be_true_is_dropped_and_the_rest_is_kept_exactly() {
        let own = HiveId::parse("box").unwrap();
        let stats = ProcessStats {
            cpu_pct: Some(f64::NAN),
            gpu_util_pct: Some(-1.0),
            io_read_bytes_per_second: Some(f64::INFINITY),
            memory_current_bytes: Some(12_345),
            gpus: vec![GpuUse { uuid: "GPU-1".into(), util_pct: Some(f64::NAN), vram_bytes: Some(1) }],
            ..ProcessStats::default()
        };
        let checked = check(&own, WorkerRow { stats: Some(stats), ..row("box", "8080") }).unwrap();
        let kept = checked.stats.unwrap().row();
        assert_eq!(checked.dropped, 4);
        assert_eq!((kept.cpu_pct, kept.gpu_util_pct, kept.io_read_bytes_per_second), (None, None, None));
        assert_eq!((kept.memory_current_bytes, kept.gpus[0].vram_bytes), (Some(12_345), Some(1)));
    }
}
