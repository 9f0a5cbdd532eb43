//! A worker's numbers as the queen keeps them: as columns count them, which takes half the room of a row and is what frames
//! speak of. A row is made where one is asked for.

use common::columns::{Quanta, Written, at};
use common::gpus::Uses;
use proto::{Activity, GpuSampleState, GpuUse, ProcessStats, Readiness};
use std::sync::Arc;

mod copied;

pub use copied::Copied;

/// The fields of [`Measured::sums`], as bits.
pub const SUMS: u32 = 1 << at::GPU_UTIL_PCT | 1 << at::VRAM;

/// Numbers of one worker, in the order in which a frame meets them.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Measured {
    /// Bit i: `row` says field i more exactly than `quanta`.
    inexact: u32,
    list: List,
    quanta: Quanta,
    /// As it came, while it says anything more exactly.
    row: Option<Box<ProcessStats>>,
    gpus: Vec<GpuUse>,
}

/// What a list of GPUs is called, whatever is used of them: another list has another one, or is compared by its names.
#[derive(Debug, Clone, Default)]
struct List(Option<Arc<()>>);

impl List {
    fn of(gpus: &[GpuUse]) -> Self {
        Self((!gpus.is_empty()).then(Arc::default))
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

fn same_names(one: &[GpuUse], other: &[GpuUse]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.uuid == other.uuid)
}

impl Measured {
    /// Of a row without numbers that cannot be true, and the same as columns count them.
    pub fn of(quanta: Quanta, mut row: ProcessStats) -> Self {
        let (gpus, inexact) = (std::mem::take(&mut row.gpus), quanta.inexact(&row));
        Self { quanta, inexact, row: (inexact != 0).then(|| Box::new(row)), list: List::of(&gpus), gpus }
    }

    /// For [`common::columns::Room::step`], after which [`Measured::wrote`] is to be called.
    #[inline]
    pub fn to_write(&mut self) -> &mut Quanta {
        &mut self.quanta
    }

    /// These fields were written.
    #[inline]
    pub fn wrote(&mut self, Written(fields): Written) {
        if self.inexact & fields != 0 {
            self.inexact &= !fields;
            self.row.take_if(|_| self.inexact == 0);
        }
    }

    /// Its only GPU has its own sums, where those were written.
    pub fn follow_sums(&mut self, Written(fields): Written) {
        if fields & SUMS == 0 {
            return;
        }
        let sums = self.sums();
        if let [only] = self.gpus.as_mut_slice() {
            (only.util_pct, only.vram_bytes) = sums;
        }
    }

    /// Writes a list of GPUs; whether it is another.
    pub fn write_gpus(&mut self, uses: &Uses) -> bool {
        let sums = self.sums();
        let other = !uses.still_in(&self.gpus, sums);
        let listed = uses.names().eq(self.gpus.iter().map(|gpu| gpu.uuid.as_str()));
        uses.apply(&mut self.gpus, sums);
        if !listed {
            self.list = List::of(&self.gpus);
        }
        other
    }

    /// As a row.
    pub fn row(&self) -> ProcessStats {
        let mut row = self.row.as_deref().cloned().unwrap_or_default();
        self.quanta.write_fields(!self.inexact, &mut row);
        row.gpus.clone_from(&self.gpus);
        row
    }

    /// Its use of each GPU.
    pub fn gpus(&self) -> &[GpuUse] {
        &self.gpus
    }

    /// Whether two say the same.
    pub fn is(&self, other: &Self) -> bool {
        let same = (&self.quanta, self.inexact, &self.gpus) == (&other.quanta, other.inexact, &other.gpus);
        same && (self.inexact == 0 || self.row() == other.row())
    }

    /// GPU use and memory over all GPUs.
    pub fn sums(&self) -> (Option<f64>, Option<u64>) {
        let (util, vram) = self.quanta.gpu_sums();
        let more = |field| self.more_exactly(field);
        (more(at::GPU_UTIL_PCT).map_or(util, |row| row.gpu_util_pct), more(at::VRAM).map_or(vram, |row| row.vram_bytes))
    }

    /// GPU use over all GPUs, in percent.
    pub fn gpu_util_pct(&self) -> Option<f64> {
        self.sums().0
    }

    /// Whether its GPU use is a measured zero.
    pub fn is_gpu_unused(&self) -> bool {
        let exactly = || self.quanta.get(at::GPU_UTIL_PCT) == Some(0);
        self.more_exactly(at::GPU_UTIL_PCT).map_or_else(exactly, |row| row.gpu_util_pct == Some(0.0))
    }

    /// CPU use, in percent of one core.
    pub fn cpu_pct(&self) -> Option<f64> {
        self.more_exactly(at::CPU_PCT).map_or_else(|| self.quanta.cpu_pct(), |row| row.cpu_pct)
    }

    /// Since when it has been idle, on its hive's clock.
    pub fn idle_since(&self) -> Option<prost_types::Timestamp> {
        self.more_exactly(at::IDLE_SINCE).map_or_else(|| self.quanta.idle_since(), |row| row.idle_since)
    }

    /// The row, where it says this field more exactly.
    fn more_exactly(&self, field: usize) -> Option<&ProcessStats> {
        self.row.as_deref().filter(|_| self.inexact >> field & 1 == 1)
    }

    /// Whether it is known to be idle.
    pub fn is_idle(&self) -> bool {
        self.quanta.get(at::ACTIVITY) == Some(Activity::Idle as i64)
    }

    /// Whether it is known not to take requests.
    pub fn is_unready(&self) -> bool {
        self.quanta.get(at::READINESS) == Some(Readiness::NotReady as i64)
    }

    /// What it is doing.
    pub fn activity(&self) -> Activity {
        self.named(at::ACTIVITY)
    }

    /// Whether it can take requests.
    pub fn readiness(&self) -> Readiness {
        self.named(at::READINESS)
    }

    /// How its GPU numbers came about.
    pub fn gpu_sample_state(&self) -> GpuSampleState {
        self.named(at::GPU_SAMPLE_STATE)
    }

    /// A field that is one of a few; those that this queen does not know are unspecified.
    fn named<E: TryFrom<i32> + Default>(&self, field: usize) -> E {
        let number = self.quanta.get(field).and_then(|number| i32::try_from(number).ok());
        number.and_then(|number| E::try_from(number).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::columns::{Change, Room, encode};
    use prost::Message;

    fn measured(row: &ProcessStats) -> Measured {
        Measured::of(Quanta::of(row), row.clone())
    }

    fn step(measured: &mut Measured, before: &ProcessStats, after: &ProcessStats) {
        let change = Change { slot: 1, before: Quanta::of(before), after: Quanta::of(after) };
        let mut room = Room::default();
        room.read(&encode(&[change]).unwrap().encode_to_vec()).unwrap();
        room.step(&[Some(0)], std::slice::from_mut(measured), Measured::to_write);
        measured.wrote(room.written(0));
        measured.follow_sums(room.written(0));
    }

    #[test]
    fn what_a_row_says_more_exactly_stays_until_a_frame_says_something_else() {
        let gpus = vec![GpuUse { uuid: "a".into(), util_pct: Some(1.0), vram_bytes: Some(5) }];
        let first = ProcessStats { cpu_pct: Some(1.0 / 3.0), vram_bytes: Some(4_097), gpus, ..ProcessStats::default() };
        let mut kept = measured(&first);
        assert_eq!((kept.row(), kept.inexact != 0, kept.cpu_pct()), (first.clone(), true, Some(1.0 / 3.0)));
        let second = ProcessStats { cpu_pct: Some(2.0), gpu_util_pct: Some(7.5), ..first.clone() };
        step(&mut kept, &first, &second);
        let row = kept.row();
        assert_eq!((row.cpu_pct, row.vram_bytes, row.gpu_util_pct), (Some(2.0), Some(4_097), Some(7.5)));
        assert_eq!((row.gpus[0].util_pct, row.gpus[0].vram_bytes), (Some(7.5), Some(4_097)));
        assert!(kept.inexact != 0 && kept.row.is_some());
        let third = ProcessStats { vram_bytes: Some(8_192), ..second.clone() };
        step(&mut kept, &second, &third);
        assert_eq!((kept.row().vram_bytes, kept.row.is_none(), kept.inexact), (Some(8_192), true, 0));
    }

    #[test]
    fn single_numbers_are_those_of_the_row() {
        let row = ProcessStats {
            cpu_pct: Some(12.25),
            gpu_util_pct: Some(0.0),
            activity: Activity::Idle.into(),
            idle_since: Some(prost_types::Timestamp { seconds: 9, nanos: 1_000_000 }),
            readiness: Readiness::NotReady.into(),
            gpu_sample_state: 77,
            ..ProcessStats::default()
        };
        for row in [row.clone(), ProcessStats { cpu_pct: Some(0.123_456), ..row.clone() }, ProcessStats::default()] {
            let kept = measured(&row);
            assert_eq!((kept.cpu_pct(), kept.sums()), (row.cpu_pct, (row.gpu_util_pct, row.vram_bytes)));
            assert_eq!((kept.activity(), kept.readiness()), (row.activity(), row.readiness()));
            assert_eq!((kept.idle_since(), kept.gpu_sample_state()), (row.idle_since, row.gpu_sample_state()));
            assert!(kept.is(&kept.clone()) && kept.row() == row);
            assert!(!kept.is(&measured(&ProcessStats { oom_kills: Some(1), ..row })));
        }
    }
}
