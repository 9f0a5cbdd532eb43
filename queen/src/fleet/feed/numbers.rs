//! Workers of which nothing but numbers changed, side by side in columns: a fifth of the bytes, for those who keep which
//! worker has which slot.

use super::Key;
use crate::fleet::mask::Numbers;
use crate::fleet::measured::SUMS;
use crate::fleet::{Measured, object};
use bytes::Bytes;
use common::columns::{Packer, Quanta, packed_len};
use common::gpus;
use proto::{GpuCell, GpuUse, SlotGpus};

/// About what one GPU of a worker takes.
const CELL_BYTES: usize = 12;

/// What a worker is called in columns; never 0.
pub fn slot(key: Key) -> u32 {
    key + 1
}

/// A worker in columns.
#[derive(Debug)]
pub(super) struct Row<'a> {
    slot: u32,
    quanta: &'a Quanta,
    fields: u32,
    /// Empty where its per-GPU rows follow from its sums.
    cells: Vec<GpuCell>,
    /// About how many bytes it takes.
    len: usize,
}

impl<'a> Row<'a> {
    /// `None` where columns cannot say it.
    pub fn of(slot: u32, stats: &'a Measured, wanted: Numbers) -> Option<Self> {
        let (quanta, fields) = (stats.quanta()?, wanted.fields);
        let cells = match stats.gpus() {
            [] => Vec::new(),
            _ if !wanted.gpus => Vec::new(),
            [only] if fields & SUMS == SUMS && (only.util_pct, only.vram_bytes) == stats.sums() => Vec::new(),
            several => (0..).zip(several).map(|(position, gpu)| cell(position, gpu)).collect::<Option<_>>()?,
        };
        let len = packed_len(quanta, fields) + cells.len() * CELL_BYTES;
        Some(Self { slot, quanta, fields, cells, len })
    }

    /// About how many bytes it takes.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Rows of one update.
#[derive(Debug, Default)]
pub(super) struct Rows {
    packer: Packer,
    gpus: Vec<SlotGpus>,
}

impl Rows {
    /// One more.
    pub fn add(&mut self, Row { slot, quanta, fields, cells, .. }: Row<'_>) {
        self.packer.add(slot, quanta, fields);
        if !cells.is_empty() {
            self.gpus.push(SlotGpus { slot, cells, ..SlotGpus::default() });
        }
    }

    /// As they stand in an update.
    pub fn parts(self) -> impl Iterator<Item = Bytes> {
        let columns = (!self.packer.is_empty()).then(|| object::columns(&self.packer.pack()));
        columns.into_iter().chain(self.gpus.into_iter().map(|gpus| object::gpus(&gpus)))
    }
}

/// `None` where a cell would round.
fn cell(position: u32, gpu: &GpuUse) -> Option<GpuCell> {
    let (util, vram) = gpus::cell(gpu);
    let exact = gpus::unrounded(util, vram) == (gpu.util_pct, gpu.vram_bytes);
    exact.then_some(GpuCell { position, util, vram })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ProcessStats;

    const PAGE: u64 = 4096;

    fn gpu(util_pct: f64, vram: u64) -> GpuUse {
        GpuUse { uuid: "a".into(), util_pct: Some(util_pct), vram_bytes: Some(vram) }
    }

    #[test]
    fn one_gpu_is_told_by_the_sums_and_several_by_themselves() {
        let row = |gpus: Vec<GpuUse>, wanted| {
            let stats = ProcessStats { gpu_util_pct: Some(12.5), vram_bytes: Some(PAGE), gpus, ..Default::default() };
            let measured = Measured::of(Quanta::of(&stats), stats);
            Row::of(1, &measured, wanted).map(|row| row.cells.len())
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
