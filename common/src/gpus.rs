//! A worker's per-GPU rows for a batch: GPUs are named by their position in the hive's record as it was before the frame,
//! because a UUID is longer than all that is said about it. A GPU that the record does not have yet travels in full, and
//! a worker's only GPU just once: its numbers are the worker's own.

use proto::{Gpu, GpuCell, GpuUse, ProcessStats, SlotGpus};

/// Bytes of one unit of [`GpuCell::vram`].
const PAGE: u64 = 4096;

/// What a worker's list means at the receiver.
#[derive(Debug, Clone, PartialEq)]
pub enum Uses {
    /// One GPU, by UUID; its numbers follow those of the worker.
    Sole(String),
    /// These, as they stand.
    Rows(Vec<GpuUse>),
}

impl Default for Uses {
    fn default() -> Self {
        Self::Rows(Vec::new())
    }
}

impl Uses {
    /// What is to be handed over of a worker: its only GPU by name, if its numbers are the worker's own.
    pub fn of(stats: &ProcessStats, told: &[Gpu]) -> Self {
        match stats.gpus.as_slice() {
            [only]
                if only.util_pct == stats.gpu_util_pct
                    && only.vram_bytes == stats.vram_bytes
                    && told.iter().any(|gpu| gpu.uuid == only.uuid) =>
            {
                Self::Sole(only.uuid.clone())
            }
            rows => Self::Rows(rows.to_vec()),
        }
    }

    /// Whether `stats` says the same, so that nothing has to travel.
    pub fn still(&self, stats: &ProcessStats) -> bool {
        self.still_in(&stats.gpus, (stats.gpu_util_pct, stats.vram_bytes))
    }

    /// The same of a worker with these rows and these sums of use and memory.
    pub fn still_in(&self, gpus: &[GpuUse], sums: (Option<f64>, Option<u64>)) -> bool {
        match (self, gpus) {
            (Self::Sole(uuid), [only]) => only.uuid == *uuid && (only.util_pct, only.vram_bytes) == sums,
            (Self::Sole(_), _) => false,
            (Self::Rows(rows), now) => rows == now,
        }
    }

    /// The UUIDs of the GPUs, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (sole, rows) = match self {
            Self::Sole(uuid) => (Some(uuid.as_str()), &[][..]),
            Self::Rows(rows) => (None, rows.as_slice()),
        };
        sole.into_iter().chain(rows.iter().map(|row| row.uuid.as_str()))
    }

    /// Brings the rows of a worker with these sums up to date.
    pub fn apply(&self, gpus: &mut Vec<GpuUse>, sums: (Option<f64>, Option<u64>)) {
        match self {
            Self::Sole(uuid) => {
                if gpus.len() != 1 || gpus.first().is_none_or(|row| row.uuid != *uuid) {
                    *gpus = vec![GpuUse { uuid: uuid.clone(), ..GpuUse::default() }];
                }
                if let Some(row) = gpus.first_mut() {
                    (row.util_pct, row.vram_bytes) = sums;
                }
            }
            Self::Rows(rows) => gpus.clone_from(rows),
        }
    }
}

/// Rows as they are once they were packed.
pub fn round(rows: &mut [GpuUse]) {
    for gpu in rows {
        let (util, vram) = cell(gpu);
        (gpu.util_pct, gpu.vram_bytes) = unrounded(util, vram);
    }
}

/// Its use and memory as a cell has them: tenths of a percent, and pages.
pub fn cell(gpu: &GpuUse) -> (Option<u32>, Option<u64>) {
    let util = gpu.util_pct.filter(|pct| pct.is_finite() && *pct >= 0.0).map(|pct| (pct * 10.0).round() as u32);
    (util, gpu.vram_bytes.map(|bytes| bytes.div_ceil(PAGE)))
}

/// Percent and bytes of a cell's.
pub fn unrounded(util: Option<u32>, vram: Option<u64>) -> (Option<f64>, Option<u64>) {
    (util.map(|tenths| f64::from(tenths) / 10.0), vram.map(|pages| pages.saturating_mul(PAGE)))
}

/// Packs the list of one worker. Percentages are rounded to tenths, bytes to pages.
pub fn pack(slot: u32, told: &[Gpu], uses: &Uses) -> SlotGpus {
    let mut packed = SlotGpus { slot, ..SlotGpus::default() };
    let place = |uuid: &str| told.iter().position(|known| known.uuid == uuid).and_then(|at| u32::try_from(at).ok());
    let rows = match uses {
        Uses::Sole(uuid) => {
            packed.sole = place(uuid);
            return packed;
        }
        Uses::Rows(rows) => rows,
    };
    for gpu in rows {
        match place(&gpu.uuid) {
            Some(position) => {
                let (util, vram) = cell(gpu);
                packed.cells.push(GpuCell { position, util, vram });
            }
            None => packed.gpus.push(gpu.clone()),
        }
    }
    packed
}

/// The list again; `None` when a position is not in the hive's record, which means that the two ends have lost step.
pub fn unpack(told: &[Gpu], packed: SlotGpus) -> Option<Uses> {
    if let Some(position) = packed.sole {
        return told.get(usize::try_from(position).ok()?).map(|gpu| Uses::Sole(gpu.uuid.clone()));
    }
    let row = |cell: &GpuCell| {
        let gpu = told.get(usize::try_from(cell.position).ok()?)?;
        let (util_pct, vram_bytes) = unrounded(cell.util, cell.vram);
        Some(GpuUse { uuid: gpu.uuid.clone(), util_pct, vram_bytes })
    };
    let cells: Option<Vec<GpuUse>> = packed.cells.iter().map(row).collect();
    let mut rows = cells?;
    rows.extend(packed.gpus);
    Some(Uses::Rows(rows))
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

    fn rows_of(uuid: &str, util_pct: Option<f64>, vram_bytes: Option<u64>) -> Uses {
        Uses::Rows(vec![using(uuid, util_pct, vram_bytes)])
    }

    #[test]
    fn an_only_gpu_is_named_once_and_follows_the_worker() {
        let told = told(&["GPU-a", "GPU-b"]);
        let mut stats = ProcessStats {
            gpu_util_pct: Some(50.0),
            vram_bytes: Some(8 << 30),
            gpus: vec![using("GPU-b", Some(50.0), Some(8 << 30))],
            ..ProcessStats::default()
        };
        let uses = Uses::of(&stats, &told);
        assert_eq!(uses, Uses::Sole("GPU-b".into()));
        let received = unpack(&told, pack(1, &told, &uses)).unwrap();
        assert_eq!(received, uses);
        stats.gpu_util_pct = Some(60.0);
        assert!(!uses.still(&stats), "its row says something else than its sum");
        received.apply(&mut stats.gpus, (stats.gpu_util_pct, stats.vram_bytes));
        assert_eq!(stats.gpus, [using("GPU-b", Some(60.0), Some(8 << 30))]);
        assert!(uses.still(&stats));
        stats.gpus = vec![using("GPU-a", Some(60.0), Some(8 << 30))];
        assert!(!uses.still(&stats), "it moved to another GPU");
        assert_eq!(Uses::of(&ProcessStats::default(), &told), Uses::default());
    }

    #[test]
    fn known_gpus_travel_by_position_and_new_ones_in_full() {
        let told = told(&["GPU-a", "GPU-b"]);
        let uses = Uses::Rows(vec![using("GPU-b", Some(99.9), Some(8 << 30)), using("GPU-c", None, Some(1))]);
        let packed = pack(7, &told, &uses);
        assert_eq!((packed.cells.len(), packed.gpus.len()), (1, 1));
        assert_eq!(unpack(&told, packed).unwrap(), uses);
    }

    #[test]
    fn unknown_stays_unknown_and_something_is_never_nothing() {
        let told = told(&["GPU-a"]);
        let rows = unpack(&told, pack(1, &told, &rows_of("GPU-a", None, None))).unwrap();
        assert_eq!(rows, rows_of("GPU-a", None, None));
        let rows = unpack(&told, pack(1, &told, &rows_of("GPU-a", Some(0.0), Some(1)))).unwrap();
        assert_eq!(rows, rows_of("GPU-a", Some(0.0), Some(4096)));
    }

    #[test]
    fn a_position_that_was_never_told_is_lost_step() {
        let packed = pack(1, &told(&["GPU-a", "GPU-b"]), &rows_of("GPU-b", None, None));
        assert_eq!(unpack(&told(&["GPU-a"]), packed), None);
        let sole = pack(1, &told(&["GPU-a", "GPU-b"]), &Uses::Sole("GPU-b".into()));
        assert_eq!(unpack(&told(&["GPU-a"]), sole), None);
    }
}
