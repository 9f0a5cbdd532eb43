//! The moving fields of a worker as small integers, and batches of them as packed columns of differences. Both ends
//! hold the last [`Quanta`] of every slot; a batch makes sense only against the state that its sender held.

mod compact;
mod fields;
mod pack;
mod room;

pub use compact::Compact;
pub use fields::{FIELD_NUMBERS, FIELDS, at};
pub use pack::{Packer, pack, packed_len, unpack};
pub use room::{ReadError, Room, Written};

use fields::NAMES;
use prost::Message;
use proto::{Column, Columns, ProcessStats};

/// Why a batch of columns cannot be applied. Nothing of it has been applied then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// A slot that the receiver does not hold.
    #[error("slot {0} is unknown in this session")]
    UnknownSlot(u32),
    /// Slots are not strictly ascending, or pass 2^32.
    #[error("slots are not strictly ascending")]
    Order,
    /// More workers in a row than the message has bits for.
    #[error("a run of {0} workers in a message that has no room for their values")]
    Run(u32),
    /// A column's differences or presence bits do not match the number of workers.
    #[error("column {0} has {1} values for {2} workers")]
    Length(&'static str, usize, usize),
}

/// Fewer are told by their distances: those take a byte each, and a run takes three.
const RUN_MIN: usize = 4;

/// The moving fields of one worker, in the units of `Columns`. Laid out in this order: what every frame writes of a worker
/// stands in its first two lines of the processor's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Quanta {
    /// Bit i: field i has a value. Those without one are zero below.
    present: u32,
    values: [i64; FIELDS],
}

impl Default for Quanta {
    fn default() -> Self {
        Self { present: 0, values: [0; FIELDS] }
    }
}

impl Quanta {
    /// The quanta of a full row. Numbers that are NaN, infinite, negative or beyond belief become absent.
    pub fn of(stats: &ProcessStats) -> Self {
        let mut quanta = Self::default();
        for (field, value) in fields::read(stats).into_iter().enumerate() {
            quanta.set(field, value);
        }
        quanta
    }

    /// Writes the fields back into a row; per-GPU rows stay as they are.
    pub fn write(&self, stats: &mut ProcessStats) {
        fields::write(|field| self.get(field), stats);
    }

    /// The quanta of a row, once the numbers that cannot be true are taken out of it; and how many those were.
    pub fn of_believed(stats: &mut ProcessStats) -> (Self, u64) {
        let dropped = fields::drop_lies(stats);
        (Self::of(stats), dropped)
    }

    /// Writes those fields back that are set in `fields`.
    pub fn write_fields(&self, fields: u32, stats: &mut ProcessStats) {
        for field in (0..FIELDS).filter(|field| fields >> field & 1 == 1) {
            fields::write_one(field, self.get(field), stats);
        }
    }

    /// CPU use in percent of one core.
    pub fn cpu_pct(&self) -> Option<f64> {
        self.get(at::CPU_PCT).map(fields::hundredths)
    }

    /// GPU use in percent, and GPU memory in bytes, over all GPUs.
    pub fn gpu_sums(&self) -> (Option<f64>, Option<u64>) {
        (self.get(at::GPU_UTIL_PCT).map(fields::tenths), self.get(at::VRAM).map(fields::bytes))
    }

    /// Since when it has been idle.
    pub fn idle_since(&self) -> Option<prost_types::Timestamp> {
        self.get(at::IDLE_SINCE).map(fields::instant)
    }

    /// One field as a number, in the units of `Columns`.
    pub fn get(&self, field: usize) -> Option<i64> {
        (self.present >> field & 1 == 1).then(|| self.values[field])
    }

    /// Those fields of a row, as bits, that it does not say as it stands: the row has them more exactly.
    pub fn inexact(&self, stats: &ProcessStats) -> u32 {
        let mut said = ProcessStats { gpus: Vec::new(), ..*stats };
        self.write(&mut said);
        fields::differing(&said, stats)
    }

    fn set(&mut self, field: usize, value: Option<i64>) {
        self.present = self.present & !(1 << field) | u32::from(value.is_some()) << field;
        self.values[field] = value.unwrap_or(0);
    }
}

/// One worker whose fields changed: its slot, what was last handed over, what is true now.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Which worker.
    pub slot: u32,
    /// The state that the receiver holds.
    pub before: Quanta,
    /// The state it shall hold.
    pub after: Quanta,
}

/// Packs changes, which must be in ascending order of their slots. `None` when there are none.
pub fn encode(changes: &[Change]) -> Option<Columns> {
    if changes.is_empty() {
        return None;
    }
    let mut columns = Columns { slot_gaps: gaps(changes.iter().map(|c| c.slot)), ..Columns::default() };
    let mut told = false;
    for field in 0..FIELDS {
        if changes.iter().all(|c| c.before.get(field) == c.after.get(field)) {
            continue;
        }
        let mut present = vec![0u8; changes.len().div_ceil(8)];
        let mut deltas = Vec::with_capacity(changes.len());
        for (i, change) in changes.iter().enumerate() {
            if let Some(value) = change.after.get(field) {
                present[i / 8] |= 1 << (i % 8);
                deltas.push(value - change.before.values[field]);
            }
        }
        if deltas.len() == changes.len() {
            present.clear();
        }
        *fields::column(&mut columns, field) = Some(Column { present, deltas });
        told = true;
    }
    // Without a column a run would stand for more workers than its message has bits.
    if told {
        (columns.slot_gaps, columns.run) = with_run(columns.slot_gaps);
    }
    Some(columns)
}

/// The slots that one after the other end a list of distances, as their number: where all change, that is nearly all.
fn with_run(mut gaps: Vec<u32>) -> (Vec<u32>, u32) {
    let run = gaps.iter().skip(1).rev().take_while(|gap| **gap == 1).count();
    if run < RUN_MIN {
        return (gaps, 0);
    }
    gaps.truncate(gaps.len() - run);
    (gaps, run as u32)
}

/// The slots that columns name, ascending.
fn named(columns: &Columns) -> Result<Vec<u32>, ColumnError> {
    let mut slots = slots(&columns.slot_gaps)?;
    add_run(&mut slots, columns.run, columns.encoded_len())?;
    Ok(slots)
}

/// Adds a run to the slots of a message of so many bytes. Every value has at least a bit there that says whether it is: whoever
/// claims more is not given room for them.
fn add_run(slots: &mut Vec<u32>, run: u32, message_bytes: usize) -> Result<(), ColumnError> {
    if run as usize > message_bytes.saturating_mul(8) {
        return Err(ColumnError::Run(run));
    }
    let last = slots.last().copied().unwrap_or(0);
    let end = last.checked_add(run).ok_or(ColumnError::Order)?;
    slots.extend((last..end).map(|slot| slot + 1));
    Ok(())
}

/// Ascending slots as distances.
pub fn gaps(slots: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut last = 0;
    slots
        .map(|slot| {
            let gap = slot - last;
            last = slot;
            gap
        })
        .collect()
}

/// Distances as ascending slots.
pub fn slots(gaps: &[u32]) -> Result<Vec<u32>, ColumnError> {
    let mut last: u32 = 0;
    let mut all = Vec::with_capacity(gaps.len());
    for (i, gap) in gaps.iter().enumerate() {
        if i > 0 && *gap == 0 {
            return Err(ColumnError::Order);
        }
        last = last.checked_add(*gap).ok_or(ColumnError::Order)?;
        all.push(last);
    }
    Ok(all)
}

/// What came of unpacking.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The workers with their new state, ascending.
    pub rows: Vec<(u32, Quanta)>,
    /// Numbers that were dropped because they cannot be true; those fields are absent now.
    pub dropped: u64,
}

/// Unpacks columns against the state that `held` knows for each slot.
pub fn decode(columns: &mut Columns, held: impl Fn(u32) -> Option<Quanta>) -> Result<Unpacked, ColumnError> {
    let mut unpacked = Unpacked::default();
    for slot in named(columns)? {
        unpacked.rows.push((slot, held(slot).ok_or(ColumnError::UnknownSlot(slot))?));
    }
    for (field, name) in NAMES.iter().enumerate() {
        if let Some(column) = fields::column(columns, field).take() {
            unpacked.dropped += unpack_column(&column, field, name, &mut unpacked.rows)?;
        }
    }
    Ok(unpacked)
}

fn unpack_column(
    column: &Column,
    field: usize,
    name: &'static str,
    rows: &mut [(u32, Quanta)],
) -> Result<u64, ColumnError> {
    let full = column.present.is_empty();
    let has = |i: usize| full || column.present.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
    let expected = (0..rows.len()).filter(|i| has(*i)).count();
    // An all-absent column has bits but no values; an empty bitmap means that every worker has one.
    if column.deltas.len() != expected || column.present.len() > rows.len().div_ceil(8) {
        return Err(ColumnError::Length(name, column.deltas.len(), rows.len()));
    }
    let mut deltas = column.deltas.iter();
    let mut dropped = 0;
    for (i, (_, quanta)) in rows.iter_mut().enumerate() {
        if !has(i) {
            quanta.set(field, None);
            continue;
        }
        let delta = deltas.next().copied().unwrap_or(0);
        let value = quanta.values[field].checked_add(delta).filter(|value| (0..fields::limit(field)).contains(value));
        dropped += u64::from(value.is_none());
        quanta.set(field, value);
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> ProcessStats {
        ProcessStats {
            cpu_pct: Some(99.87),
            memory_current_bytes: Some(4096 * 1000),
            rss_bytes: Some(4096 * 900),
            io_read_bytes_per_second: Some(3.0),
            io_write_bytes_per_second: Some(0.0),
            gpu_util_pct: Some(150.5),
            vram_bytes: Some(8 << 30),
            vram_total_bytes: Some(24 << 30),
            process_count: Some(3),
            gpu_sample_state: 1,
            activity: 1,
            activity_basis: 2,
            ..ProcessStats::default()
        }
    }

    fn idle() -> ProcessStats {
        ProcessStats {
            cpu_pct: Some(0.0),
            activity: 2,
            activity_basis: 3,
            idle_since: Some(prost_types::Timestamp { seconds: 1_761_849_000, nanos: 123_000_000 }),
            ..ProcessStats::default()
        }
    }

    fn through(changes: &[Change]) -> Unpacked {
        let mut columns = encode(changes).unwrap();
        decode(&mut columns, |slot| changes.iter().find(|c| c.slot == slot).map(|c| c.before)).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (busy, idle, none) = (Quanta::of(&busy()), Quanta::of(&idle()), Quanta::default());
        let changes = [
            Change { slot: 0, before: none, after: busy },
            Change { slot: 7, before: busy, after: idle },
            Change { slot: 8, before: idle, after: none },
        ];
        let unpacked = through(&changes);
        assert_eq!(unpacked.rows, vec![(0, busy), (7, idle), (8, none)]);
        assert_eq!(unpacked.dropped, 0);
        let mut row = ProcessStats::default();
        busy.write(&mut row);
        assert_eq!(row.cpu_pct, Some(99.87));
        assert_eq!(row.io_read_bytes_per_second, Some(1024.0), "something is never rounded to nothing");
        assert_eq!(row.io_write_bytes_per_second, Some(0.0));
        idle.write(&mut row);
        assert_eq!((row.gpu_util_pct, row.idle_since.unwrap().nanos), (None, 123_000_000));
    }

    #[test]
    fn workers_on_slots_one_after_the_other_are_named_by_their_number() {
        let busy = Quanta::of(&busy());
        let change = |slot| Change { slot, before: Quanta::default(), after: busy };
        for (slots, gaps, run) in [
            (vec![1, 2, 3, 4, 5], vec![1], 4),
            (vec![0, 1, 2, 3, 4], vec![0], 4),
            (vec![1, 2, 3, 4], vec![1, 1, 1, 1], 0),
            (vec![2, 7, 8, 9, 10, 11], vec![2, 5], 4),
            (vec![7, 8, 9, 10, 11, 13], vec![7, 1, 1, 1, 1, 2], 0),
        ] {
            let changes: Vec<Change> = slots.iter().copied().map(change).collect();
            let columns = encode(&changes).unwrap();
            assert_eq!((columns.slot_gaps, columns.run), (gaps, run), "{slots:?}");
            assert_eq!(through(&changes).rows, slots.into_iter().map(|slot| (slot, busy)).collect::<Vec<_>>());
        }
        let same: Vec<Change> = (1..=200).map(|slot| Change { before: busy, ..change(slot) }).collect();
        assert_eq!(through(&same).rows.len(), 200, "who has no news is named as well");
    }

    #[test]
    fn a_column_that_becomes_absent_for_all_is_not_taken_for_full() {
        let before = Quanta::of(&busy());
        let unpacked = through(&[Change { slot: 3, before, after: Quanta::default() }]);
        assert_eq!(unpacked.rows, vec![(3, Quanta::default())]);
    }

    #[test]
    fn b2_numbers_that_cannot_be_true_are_dropped_and_counted() {
        let lies = ProcessStats {
            cpu_pct: Some(f64::NAN),
            gpu_util_pct: Some(-1.0),
            io_read_bytes_per_second: Some(f64::INFINITY),
            ..busy()
        };
        let quanta = Quanta::of(&lies);
        assert_eq!((quanta.get(0), quanta.get(5), quanta.get(3)), (None, None, None));
        let mut columns = Columns {
            slot_gaps: vec![1],
            cpu_pct: Some(Column { present: vec![], deltas: vec![-5] }),
            ..Columns::default()
        };
        let unpacked = decode(&mut columns, |_| Some(Quanta::default())).unwrap();
        assert_eq!(unpacked.dropped, 1);
        assert_eq!(unpacked.rows[0].1.get(0), None);
    }

    #[test]
    fn columns_that_do_not_fit_are_refused_whole() {
        let held = |slot: u32| (slot < 10).then(Quanta::default);
        let with = |slot_gaps: Vec<u32>, deltas: Vec<i64>| Columns {
            slot_gaps,
            cpu_pct: Some(Column { present: vec![], deltas }),
            ..Columns::default()
        };
        assert_eq!(decode(&mut with(vec![11], vec![1]), held), Err(ColumnError::UnknownSlot(11)));
        assert_eq!(decode(&mut with(vec![1, 0], vec![1, 1]), held), Err(ColumnError::Order));
        assert_eq!(decode(&mut with(vec![u32::MAX, 1], vec![1, 1]), held), Err(ColumnError::Order));
        assert_eq!(decode(&mut with(vec![1], vec![]), held), Err(ColumnError::Length("cpu_pct", 0, 1)));
        let run = |first: u32, run| Columns { run, ..with(vec![first], vec![1, 1]) };
        assert_eq!(decode(&mut run(1, 2), held), Err(ColumnError::Length("cpu_pct", 2, 3)));
        assert_eq!(decode(&mut run(9, 1), held), Err(ColumnError::UnknownSlot(10)));
        assert_eq!(decode(&mut run(u32::MAX, 1), held), Err(ColumnError::Order));
        assert_eq!(decode(&mut run(1, 1_000), held), Err(ColumnError::Run(1_000)));
        assert_eq!(decode(&mut run(1, u32::MAX), held), Err(ColumnError::Run(u32::MAX)));
    }
}
