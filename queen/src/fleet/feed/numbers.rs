//! Workers of which nothing but numbers changed, side by side in columns: a fifth of the bytes, for those who keep which
//! worker has which slot.

use super::Key;
use crate::fleet::object;
use bytes::Bytes;
use common::columns::{FIELDS, Quanta, pack, packed_len};
use proto::{GpuCell, GpuUse, ProcessStats, SlotGpus};

/// About what one GPU of a worker takes.
const CELL_BYTES: usize = 12;
/// `gpu_util_pct` and `vram` among the fields.
const SUMS: u32 = 1 << 5 | 1 << 6;
const TENTHS: f64 = 10.0;
const PAGE: u64 = 4096;

/// Which numbers somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Those fields, as bits.
    pub fields: u32,
    /// Per-GPU rows.
    pub gpus: bool,
}

impl Numbers {
    /// All.
    pub const ALL: Self = Self { fields: (1 << FIELDS) - 1, gpus: true };
}

/// What a worker is called in columns; never 0.
pub fn slot(key: Key) -> u32 {
    key + 1
}

/// A worker in columns.
#[derive(Debug)]
pub(super) struct Row {
    pub slot: u32,
    quanta: Quanta,
    /// Empty where its per-GPU rows follow from its sums.
    cells: Vec<GpuCell>,
}

impl Row {
    /// `None` where columns cannot say it.
    pub fn of(slot: u32, stats: &ProcessStats, wanted: Numbers) -> Option<Self> {
        let sums = wanted.fields & SUMS == SUMS;
        let cells = match stats.gpus.as_slice() {
            _ if !wanted.gpus => Vec::new(),
            [only] if sums && (only.util_pct, only.vram_bytes) == (stats.gpu_util_pct, stats.vram_bytes) => Vec::new(),
            gpus => (0..).zip(gpus).map(|(position, gpu)| cell(position, gpu)).collect::<Option<_>>()?,
        };
        Some(Self { slot, quanta: Quanta::of(stats).only(wanted.fields), cells })
    }

    /// About how many bytes it takes.
    pub fn len(&self) -> usize {
        packed_len(&self.quanta) + self.cells.len() * CELL_BYTES
    }
}

fn cell(position: u32, gpu: &GpuUse) -> Option<GpuCell> {
    let tenths = |pct: f64| {
        let tenths = (pct * TENTHS).round();
        (tenths / TENTHS == pct && tenths <= f64::from(u32::MAX)).then_some(tenths as u32)
    };
    let pages = |bytes: u64| bytes.is_multiple_of(PAGE).then_some(bytes / PAGE);
    let util = gpu.util_pct.map(|pct| tenths(pct).ok_or(())).transpose().ok()?;
    let vram = gpu.vram_bytes.map(|bytes| pages(bytes).ok_or(())).transpose().ok()?;
    Some(GpuCell { position, util, vram })
}

/// Rows as they stand in an update.
pub(super) fn parts(mut rows: Vec<Row>) -> Vec<Bytes> {
    if rows.is_empty() {
        return Vec::new();
    }
    rows.sort_unstable_by_key(|row| row.slot);
    let mut parts = vec![object::columns(&pack(rows.iter().map(|row| (row.slot, &row.quanta))))];
    for Row { slot, cells, .. } in rows.into_iter().filter(|row| !row.cells.is_empty()) {
        parts.push(object::gpus(&SlotGpus { slot, cells, ..SlotGpus::default() }));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(util_pct: f64, vram: u64) -> GpuUse {
        GpuUse { uuid: "a".into(), util_pct: Some(util_pct), vram_bytes: Some(vram) }
    }

    #[test]
    fn one_gpu_is_told_by_the_sums_and_several_by_themselves() {
        let row = |gpus: Vec<GpuUse>, wanted| {
            let stats = ProcessStats { gpu_util_pct: Some(12.5), vram_bytes: Some(PAGE), gpus, ..Default::default() };
            Row::of(1, &stats, wanted).map(|row| row.cells.len())
        };
        assert_eq!(row(vec![gpu(12.5, PAGE)], Numbers::ALL), Some(0));
        assert_eq!(row(vec![gpu(12.4, PAGE)], Numbers::ALL), Some(1));
        assert_eq!(row(vec![gpu(12.5, PAGE)], Numbers { fields: 1, gpus: true }), Some(1));
        assert_eq!(row(vec![gpu(2.5, PAGE), gpu(10.0, 0)], Numbers::ALL), Some(2));
        assert_eq!(row(vec![gpu(12.4, PAGE)], Numbers { gpus: false, ..Numbers::ALL }), Some(0));
        assert_eq!(row(vec![gpu(12.34, PAGE)], Numbers::ALL), None, "what cells would round");
        assert_eq!(row(vec![gpu(12.4, 1)], Numbers::ALL), None);
    }
}
