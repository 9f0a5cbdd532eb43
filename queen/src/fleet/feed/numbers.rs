//! Workers of which nothing but numbers changed, side by side in columns: a fifth of the bytes, for those who keep which
//! worker has which slot.

use super::Key;
use crate::fleet::mask::Numbers;
use crate::fleet::measured::SUMS;
use crate::fleet::{Copied, object};
use bytes::Bytes;
use common::columns::{Compact, Packer, packed_len};
use common::gpus;
use proto::{GpuCell, GpuUse, SlotGpus};

/// Room of so many bytes is kept for the next update: as much as a full message takes.
const KEPT: usize = 1 << 20;
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
    numbers: &'a Compact,
    fields: u32,
    /// Empty where its per-GPU rows follow from its sums.
    cells: Vec<GpuCell>,
    /// About how many bytes it takes.
    len: usize,
}

impl<'a> Row<'a> {
    /// `None` where columns cannot say it.
    pub fn of(slot: u32, stats: &'a Copied, wanted: Numbers) -> Option<Self> {
        let (numbers, fields) = (stats.numbers()?, wanted.fields);
        let untold = !wanted.gpus || stats.has_no_gpu() || stats.follows_sums() && fields & SUMS == SUMS;
        let cells = match untold {
            true => Vec::new(),
            false => (0..).zip(stats.gpus()).map(|(position, gpu)| cell(position, &gpu)).collect::<Option<_>>()?,
        };
        let len = packed_len(numbers, fields) + cells.len() * CELL_BYTES;
        Some(Self { slot, numbers, fields, cells, len })
    }

    /// About how many bytes it takes.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Rows of one update, in room that is used again.
#[derive(Debug, Default)]
pub(super) struct Rows {
    packer: Packer,
    gpus: Vec<SlotGpus>,
}

impl Rows {
    /// One more.
    pub fn add(&mut self, Row { slot, numbers, fields, cells, .. }: Row<'_>) {
        self.packer.add(slot, numbers, fields);
        if !cells.is_empty() {
            self.gpus.push(SlotGpus { slot, cells, ..SlotGpus::default() });
        }
    }

    /// Their columns as a message, if there are any; and what has to be said of single GPUs, as it stands in an update. There are
    /// no rows afterwards.
    pub fn take(&mut self) -> (Option<&[u8]>, impl Iterator<Item = Bytes>) {
        let columns = if self.packer.is_empty() { None } else { Some(self.packer.pack()) };
        (columns, self.gpus.drain(..).map(|gpus| object::gpus(&gpus)))
    }

    /// The room, if it is not more than is worth keeping.
    pub fn room(self) -> Self {
        let bytes = self.packer.capacity() + self.gpus.capacity() * size_of::<SlotGpus>();
        if bytes > KEPT { Self::default() } else { self }
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
    use crate::fleet::Measured;
    use common::columns::Quanta;
    use proto::ProcessStats;

    const PAGE: u64 = 4096;

    fn gpu(util_pct: f64, vram: u64) -> GpuUse {
        GpuUse { uuid: "a".into(), util_pct: Some(util_pct), vram_bytes: Some(vram) }
    }

    #[test]
    fn one_gpu_is_told_by_the_sums_and_several_by_themselves() {
        let row = |gpus: Vec<GpuUse>, wanted| {
            let stats = ProcessStats { gpu_util_pct: Some(12.5), vram_bytes: Some(PAGE), gpus, ..Default::default() };
            let copied = Copied::of(&Measured::of(Quanta::of(&stats), stats));
            Row::of(1, &copied, wanted).map(|row| row.cells.len())
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
