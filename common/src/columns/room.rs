//! Columns straight off the wire, in room that is used again: a steady stream allocates nothing. Reading checks
//! everything and changes nothing; then each worker takes its differences.

use super::fields::{self, FIELDS, NAMES, at};
use super::{ColumnError, Quanta, add_run};
use crate::wire::{self, Unusual};

/// `Columns.slot_gaps`; the fields follow in their order, then `Columns.run`.
pub(super) const SLOT_GAPS: u32 = 1;
pub(super) const FIRST: u32 = 2;
pub(super) const RUN: u32 = FIRST + FIELDS as u32;
/// `Column.present` and `Column.deltas`.
pub(super) const PRESENT: u32 = 1;
pub(super) const DELTAS: u32 = 2;

/// Fields that say since when a worker has been idle: activity and idle_since.
const IDLENESS: u32 = 1 << at::ACTIVITY | 1 << at::IDLE_SINCE;

/// Why columns cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// They are not written as every encoder writes them: to be decoded in the usual way.
    #[error(transparent)]
    Unusual(#[from] Unusual),
    /// They do not fit.
    #[error(transparent)]
    Column(#[from] ColumnError),
}

/// One column: which field, where its values lie, and which come next.
#[derive(Debug, Clone, Copy)]
struct Packed {
    field: usize,
    /// Values are below this.
    limit: i64,
    bits: (usize, usize),
    next: usize,
    end: usize,
}

/// Room for the columns of one batch.
#[derive(Debug, Default)]
pub struct Room {
    slots: Vec<u32>,
    deltas: Vec<i64>,
    bits: Vec<u8>,
    columns: Vec<Packed>,
    written: Vec<Written>,
}

/// Which numbers of a worker are others now: bit i, field i.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Written(pub u32);

impl Written {
    /// Whether it is idle, or since when, is among them.
    pub fn idleness(self) -> bool {
        self.0 & IDLENESS != 0
    }
}

impl Room {
    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.deltas.clear();
        self.bits.clear();
        self.columns.clear();
        self.written.clear();
    }

    /// Reads a `Columns` message.
    ///
    /// # Errors
    /// When it cannot be read, or its columns do not fit one another. Nothing can be taken then.
    pub fn read(&mut self, message: &[u8]) -> Result<(), ReadError> {
        self.clear();
        let (mut seen, mut run) = (0u64, 0);
        for field in wire::fields(message) {
            let (number, value) = field?;
            // What is there twice is to be merged, which is not done here.
            let bit = 1u64.checked_shl(number).unwrap_or(0);
            if seen & bit != 0 {
                return Err(Unusual.into());
            }
            seen |= bit;
            match number {
                SLOT_GAPS => self.read_slots(value.bytes()?)?,
                FIRST..RUN => self.read_column((number - FIRST) as usize, value.bytes()?)?,
                RUN => run = value.number()? as u32,
                _ => {}
            }
        }
        add_run(&mut self.slots, run, message.len())?;
        Ok(self.check()?)
    }

    fn read_slots(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        let (slots, mut last, mut ordered) = (&mut self.slots, 0u32, true);
        wire::packed(bytes, |gap| {
            let gap = gap as u32;
            ordered &= slots.is_empty() || gap > 0;
            let next = last.checked_add(gap);
            ordered &= next.is_some();
            last = next.unwrap_or(last);
            slots.push(last);
        })?;
        if ordered { Ok(()) } else { Err(ColumnError::Order.into()) }
    }

    fn read_column(&mut self, field: usize, message: &[u8]) -> Result<(), Unusual> {
        let (mut present, mut packed) = (None, None);
        for part in wire::fields(message) {
            let (number, value) = part?;
            let twice = match number {
                PRESENT => present.replace(value.bytes()?).is_some(),
                DELTAS => packed.replace(value.bytes()?).is_some(),
                _ => false,
            };
            if twice {
                return Err(Unusual);
            }
        }
        let (bits, next) = (self.bits.len(), self.deltas.len());
        self.bits.extend_from_slice(present.unwrap_or_default());
        let packed = packed.unwrap_or_default();
        // In room that is there: a list that grows by each of them is written twice for each.
        self.deltas.resize(next + wire::packed_count(packed), 0);
        let mut deltas = self.deltas[next..].iter_mut();
        wire::packed(packed, |zigzag| {
            if let Some(delta) = deltas.next() {
                *delta = wire::signed(zigzag);
            }
        })?;
        let limit = fields::limit(field);
        self.columns.push(Packed { field, limit, bits: (bits, self.bits.len()), next, end: self.deltas.len() });
        Ok(())
    }

    fn check(&self) -> Result<(), ColumnError> {
        let rows = self.slots.len();
        for column in &self.columns {
            let bits = &self.bits[column.bits.0..column.bits.1];
            let values = column.end - column.next;
            // An all-absent column has bits but no values; an empty bitmap means that every worker has one.
            let expected = if bits.is_empty() { rows } else { ones(bits, rows) };
            if values != expected || bits.len() > rows.div_ceil(8) {
                return Err(ColumnError::Length(NAMES[column.field], values, rows));
            }
        }
        Ok(())
    }

    /// The workers that changed, ascending.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Gives all workers their differences, one column after the other: a few tight loops. `places` says where the numbers of
    /// each lie among `all`, in the order of [`Room::slots`]; who is nowhere is passed over. Answers how many numbers were
    /// dropped because they cannot be true; those fields are absent now.
    pub fn step<T>(
        &mut self,
        places: &[Option<u32>],
        all: &mut [T],
        quanta: impl Fn(&mut T) -> &mut Quanta + Copy,
    ) -> u64 {
        let Self { slots, deltas, bits, columns, written } = self;
        written.clear();
        written.resize(slots.len(), Written::default());
        let mut dropped = 0;
        for column in columns.iter().copied() {
            let deltas = &deltas[column.next..column.end];
            let bits = &bits[column.bits.0..column.bits.1];
            let rows = places.iter().zip(&mut *written);
            if bits.is_empty() {
                for ((place, written), delta) in rows.zip(deltas) {
                    let Some(quanta) = at(all, *place, quanta) else { continue };
                    dropped += quanta.add(column, *delta, written);
                }
                continue;
            }
            let mut deltas = deltas.iter();
            for (row, (place, written)) in rows.enumerate() {
                let has = bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1);
                let delta = if has { deltas.next() } else { None };
                match (at(all, *place, quanta), delta) {
                    (Some(quanta), Some(delta)) => dropped += quanta.add(column, *delta, written),
                    (Some(quanta), None) => quanta.take_away(column.field, written),
                    (None, _) => {}
                }
            }
        }
        dropped
    }

    /// What [`Room::step`] did to the worker of this row.
    pub fn written(&self, row: usize) -> Written {
        self.written.get(row).copied().unwrap_or_default()
    }
}

impl Quanta {
    /// Adds a difference to a field. Answers how many numbers were dropped: what the sum cannot be, an absent field is.
    #[inline]
    fn add(&mut self, Packed { field, limit, .. }: Packed, delta: i64, written: &mut Written) -> u64 {
        let bit = 1u32 << field;
        // Below 2^52 as it is, it wraps only to what is below nothing.
        let value = self.values[field].wrapping_add(delta);
        if !(0..limit).contains(&value) {
            self.take_away(field, written);
            return 1;
        }
        let other = delta != 0 || self.present & bit == 0;
        self.values[field] = value;
        self.present |= bit;
        written.0 |= u32::from(other) << field;
        0
    }

    fn take_away(&mut self, field: usize, written: &mut Written) {
        if self.present >> field & 1 == 1 {
            self.set(field, None);
            written.0 |= 1 << field;
        }
    }
}

/// The numbers at a place.
#[inline]
fn at<T>(all: &mut [T], place: Option<u32>, quanta: impl Fn(&mut T) -> &mut Quanta) -> Option<&mut Quanta> {
    all.get_mut(place? as usize).map(quanta)
}

/// How many of the first `count` bits are set.
fn ones(bits: &[u8], count: usize) -> usize {
    let (whole, rest) = (count / 8, count % 8);
    let full: u32 = bits.iter().take(whole).map(|byte| byte.count_ones()).sum();
    let part = bits.get(whole).map_or(0, |byte| (byte & ((1u8 << rest) - 1)).count_ones());
    (full + part) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Change, Unpacked, decode, encode};
    use prost::Message;
    use proto::{Column, Columns};

    /// Steps from the states that `held` knows, as `decode` answers it.
    fn through(message: &[u8], held: impl Fn(u32) -> Quanta) -> Result<Unpacked, ReadError> {
        let mut room = Room::default();
        room.read(message)?;
        let mut unpacked = Unpacked::default();
        let slots = room.slots().to_vec();
        // Somebody is passed over between any two.
        let places: Vec<_> = (0..slots.len() as u32).map(|row| Some(2 * row + 1)).collect();
        let before: Vec<Quanta> = slots.iter().map(|slot| held(*slot)).collect();
        let mut all: Vec<Quanta> = before.iter().flat_map(|before| [quanta(99), *before]).collect();
        unpacked.dropped = room.step(&places, &mut all, |quanta| quanta);
        for (row, slot) in slots.into_iter().enumerate() {
            let (before, after) = (before[row], all[2 * row + 1]);
            for field in 0..FIELDS {
                let other = before.get(field) != after.get(field);
                assert_eq!(room.written(row).0 >> field & 1 == 1, other, "what changed is said, and nothing else");
            }
            assert_eq!(all[2 * row], quanta(99));
            unpacked.rows.push((slot, after));
        }
        Ok(unpacked)
    }

    fn quanta(seed: u64) -> Quanta {
        let mut quanta = Quanta::default();
        for field in 0..FIELDS {
            let bits = (seed ^ field as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            // Some are absent, some nothing.
            let value = if bits & 12 == 0 { 0 } else { (bits as i64 >> 4) % 60_000 + 1 };
            quanta.set(field, (bits & 3 != 0).then_some(value));
        }
        quanta
    }

    #[test]
    fn what_is_read_off_the_wire_is_what_the_message_says() {
        for (count, every) in [0, 1, 7, 8, 9, 100].into_iter().flat_map(|count| [(count, 1), (count, 3)]) {
            let change = |slot: u32| Change {
                slot: slot * every,
                before: quanta(u64::from(slot)),
                after: if slot.is_multiple_of(5) { Quanta::default() } else { quanta(u64::from(slot) << 20) },
            };
            let changes: Vec<Change> = (1..=count).map(change).collect();
            let mut columns = encode(&changes).unwrap_or_default();
            let message = columns.encode_to_vec();
            let held = |slot: u32| quanta(u64::from(slot / every));
            let expected = decode(&mut columns, |slot| Some(held(slot))).unwrap();
            assert_eq!(through(&message, held).unwrap(), expected);
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_refused_in_the_same_words() {
        let with = |slot_gaps: Vec<u32>, present: Vec<u8>, deltas: Vec<i64>| Columns {
            slot_gaps,
            cpu_pct: Some(Column { present, deltas }),
            ..Columns::default()
        };
        let wrong = [
            with(vec![1, 0], vec![], vec![1, 1]),
            with(vec![u32::MAX, 1], vec![], vec![1, 1]),
            with(vec![1], vec![], vec![]),
            with(vec![1], vec![1, 0], vec![1]),
            with(vec![1, 1], vec![1], vec![1, 1]),
            with(vec![], vec![], vec![1]),
            Columns { run: 2, ..with(vec![1], vec![], vec![1]) },
            Columns { run: 1, ..with(vec![u32::MAX], vec![], vec![1, 1]) },
            Columns { run: u32::MAX, ..with(vec![1], vec![], vec![1]) },
        ];
        for mut columns in wrong {
            let ours = through(&columns.encode_to_vec(), |_| Quanta::default());
            let theirs = decode(&mut columns, |_| Some(Quanta::default()));
            assert_eq!(ours, theirs.map_err(ReadError::Column));
        }
    }

    #[test]
    fn b2_numbers_that_cannot_be_true_are_dropped_and_counted() {
        let column = |deltas| Some(Column { present: vec![], deltas });
        for delta in [-5, i64::MAX, i64::MIN, 1 << 60] {
            let mut columns = Columns { slot_gaps: vec![1], cpu_pct: column(vec![delta]), ..Columns::default() };
            let ours = through(&columns.encode_to_vec(), |_| quanta(1)).unwrap();
            assert_eq!(ours, decode(&mut columns, |_| Some(quanta(1))).unwrap(), "{delta}");
            assert!(delta == -5 || ours.dropped == 1);
        }
    }

    #[test]
    fn what_is_written_in_an_unusual_way_is_left_to_others() {
        let columns = Columns {
            slot_gaps: vec![1],
            cpu_pct: Some(Column { present: vec![], deltas: vec![5] }),
            ..Columns::default()
        };
        let bytes = columns.encode_to_vec();
        let twice = [bytes.clone(), bytes.clone()].concat();
        let unpacked = [&[0x08, 1][..], &bytes].concat();
        for message in [&twice, &unpacked, &bytes[..bytes.len() - 1].to_vec()] {
            assert_eq!(Room::default().read(message), Err(ReadError::Unusual(Unusual)));
        }
    }

    #[test]
    fn a_worker_that_is_passed_over_keeps_the_others_in_step() {
        let changes: Vec<Change> =
            (1..=9).map(|slot| Change { slot, before: Quanta::default(), after: quanta(u64::from(slot)) }).collect();
        let mut room = Room::default();
        room.read(&encode(&changes).unwrap().encode_to_vec()).unwrap();
        let places: Vec<_> = (0..9).map(|row| [None, Some(row), Some(100)][row as usize % 3]).collect();
        let mut held = [Quanta::default(); 9];
        room.step(&places, &mut held, |quanta| quanta);
        for (row, change) in changes.iter().enumerate() {
            assert_eq!(held[row], if row % 3 == 1 { change.after } else { Quanta::default() });
        }
    }
}
