//! A worker's per-GPU rows for a batch: GPUs are named by their position in the hive's record as it was before the frame,
//! because a UUID is longer than all that is said about it. A GPU that the record does not have yet travels in full.

use proto::{Gpu, GpuCell, GpuUse, SlotGpus};

/// Bytes of one unit of [`GpuCell::vram`].
const PAGE: u64 = 4096;

/// Packs the rows of one worker. Percentages are rounded to tenths, bytes to pages.
pub fn pack(slot: u32, told: &[Gpu], uses: &[GpuUse]) -> SlotGpus {
    let mut packed = SlotGpus { slot, ..SlotGpus::default() };
    for gpu in uses {
        match told.iter().position(|known| known.uuid == gpu.uuid).and_then(|at| u32::try_from(at).ok()) {
            Some(position) => packed.cells.push(GpuCell {
                position,
                util: gpu.util_pct.filter(|pct| pct.is_finite() && *pct >= 0.0).map(|pct| (pct * 10.0).round() as u32),
                vram: gpu.vram_bytes.map(|bytes| bytes.div_ceil(PAGE)),
            }),
            None => packed.gpus.push(gpu.clone()),
        }
    }
    packed
}

/// The rows again; `None` when a position is not in the hive's record, which means that the two ends have lost step.
pub fn unpack(told: &[Gpu], packed: SlotGpus) -> Option<Vec<GpuUse>> {
    let row = |cell: &GpuCell| {
        let gpu = told.get(usize::try_from(cell.position).ok()?)?;
        Some(GpuUse {
            uuid: gpu.uuid.clone(),
            util_pct: cell.util.map(|tenths| f64::from(tenths) / 10.0),
            vram_bytes: cell.vram.map(|pages| pages.saturating_mul(PAGE)),
        })
    };
    let cells: Option<Vec<GpuUse>> = packed.cells.iter().map(row).collect();
    let mut rows = cells?;
    rows.extend(packed.gpus);
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uuids: &[&str]) -> Vec<Gpu> {
        uuids.iter().map(|uuid| Gpu { uuid: (*uuid).to_owned(), ..Gpu::default() }).collect()
    }

    fn using(uuid: &str, util_pct: Option<f64>, vram_bytes: Option<u64>) -> GpuUse {
        GpuUse { uuid: uuid.to_owned(), util_pct, vram_bytes }
    }

    #[test]
    fn known_gpus_travel_by_position_and_new_ones_in_full() {
        let told = told(&["GPU-a", "GPU-b"]);
        let uses = [using("GPU-b", Some(99.9), Some(8 << 30)), using("GPU-c", None, Some(1))];
        let packed = pack(7, &told, &uses);
        assert_eq!((packed.cells.len(), packed.gpus.len()), (1, 1));
        assert_eq!(unpack(&told, packed).unwrap(), uses);
    }

    #[test]
    fn unknown_stays_unknown_and_something_is_never_nothing() {
        let told = told(&["GPU-a"]);
        let rows = unpack(&told, pack(1, &told, &[using("GPU-a", None, None)])).unwrap();
        assert_eq!(rows, [using("GPU-a", None, None)]);
        let rows = unpack(&told, pack(1, &told, &[using("GPU-a", Some(0.0), Some(1))])).unwrap();
        assert_eq!(rows, [using("GPU-a", Some(0.0), Some(4096))]);
    }

    #[test]
    fn a_position_that_was_never_told_is_lost_step() {
        let packed = pack(1, &told(&["GPU-a", "GPU-b"]), &[using("GPU-b", None, None)]);
        assert_eq!(unpack(&told(&["GPU-a"]), packed), None);
    }
}
