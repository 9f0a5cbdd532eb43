//! Whole states as columns: differences from nothing. Whoever reads them needs to hold nothing, so that one message fits
//! all who are told of the same workers.

use super::compact::{self, Compact, LONGEST, WORD};
use super::fields::FIELDS;
use super::room::{DELTAS, FIRST, PRESENT, RUN, SLOT_GAPS};
use super::{ColumnError, Quanta, RUN_MIN, decode};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::Columns;

/// About what one worker takes beside its values.
const NAMED: usize = 2;

/// About how many bytes those fields of a worker take among others.
pub fn packed_len(numbers: &Compact, fields: u32) -> usize {
    NAMED + numbers.told(fields).map(<[u8]>::len).sum::<usize>()
}

/// Workers on their way into columns, in room that is used again.
#[derive(Debug, Default)]
pub struct Packer {
    rows: Vec<Head>,
    /// One row's varints after the other's, in the order of the fields.
    values: Vec<u8>,
    /// Which workers have a value in a column, or are meant at all.
    names: Vec<u8>,
    /// Room for the values of one column.
    column: Vec<u8>,
    message: Vec<u8>,
}

#[derive(Debug)]
struct Head {
    slot: u32,
    present: u32,
    /// Where its next value begins.
    next: u32,
}

impl Packer {
    /// Adds those fields of a worker that are set in `fields`. Each worker once, in any order.
    pub fn add(&mut self, slot: u32, numbers: &Compact, fields: u32) {
        self.rows.push(Head { slot, present: numbers.present() & fields, next: self.values.len() as u32 });
        numbers.told(fields).for_each(|bytes| self.values.extend_from_slice(bytes));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many bytes of room it has.
    pub fn capacity(&self) -> usize {
        let rows = self.rows.capacity() * size_of::<Head>();
        rows + self.values.capacity() + self.names.capacity() + self.column.capacity() + self.message.capacity()
    }

    /// As a `Columns` message. There are none afterwards.
    pub fn pack(&mut self) -> &[u8] {
        // Those of one hive stand together and in order: a sort that sees it does little.
        self.rows.sort_by_key(|row| row.slot);
        let some = self.rows.iter().fold(0, |some, row| some | row.present);
        let all = self.rows.iter().fold(u32::MAX, |all, row| all & row.present);
        self.message.clear();
        pack_slots(self.rows.iter().map(|row| row.slot), some != 0, &mut self.names, &mut self.message);
        self.values.resize(self.values.len() + WORD, 0);
        self.column.resize(self.column.len().max(self.rows.len() * LONGEST + WORD), 0);
        for field in (0..FIELDS).filter(|field| some >> field & 1 == 1) {
            self.pack_column(field, all >> field & 1 == 1);
        }
        self.rows.clear();
        self.values.clear();
        &self.message
    }

    /// One column; in `full` ones all workers have a value. To be called for one field after the other.
    fn pack_column(&mut self, number: usize, full: bool) {
        let Self { rows, values, names, column, message } = self;
        names.resize(if full { 0 } else { rows.len().div_ceil(8) }, 0);
        let mut end = 0;
        for (at, row) in rows.iter_mut().enumerate() {
            if row.present >> number & 1 == 0 {
                continue;
            }
            if let Some(byte) = names.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
            let length = compact::copy_first(&values[row.next as usize..], &mut column[end..]);
            (row.next, end) = (row.next + length as u32, end + length);
        }
        let deltas = &column[..end];
        let part =
            |bytes: &[u8]| if bytes.is_empty() { 0 } else { 1 + encoded_len_varint(bytes.len() as u64) + bytes.len() };
        encode_key(FIRST + number as u32, WireType::LengthDelimited, message);
        encode_varint((part(names) + part(deltas)) as u64, message);
        field(PRESENT, names, message);
        field(DELTAS, deltas, message);
        names.clear();
    }
}

/// Packs workers, each of them once, as a `Columns` message.
pub fn pack<'a>(rows: impl IntoIterator<Item = (u32, &'a Quanta)>) -> Vec<u8> {
    let mut packer = Packer::default();
    rows.into_iter().for_each(|(slot, quanta)| packer.add(slot, &Compact::of(quanta), u32::MAX));
    packer.pack().to_vec()
}

/// Slots as distances; where `with_run`, those that one after the other end them as their number.
fn pack_slots(slots: impl Iterator<Item = u32> + Clone, with_run: bool, gaps: &mut Vec<u8>, message: &mut Vec<u8>) {
    let (mut last, mut run) = (None, 0usize);
    for slot in slots.clone() {
        run = if last.is_some_and(|last: u32| last + 1 == slot) { run + 1 } else { 0 };
        last = Some(slot);
    }
    let run = if with_run && run >= RUN_MIN { run } else { 0 };
    let told = slots.clone().count() - run;
    let mut last = 0;
    for slot in slots.take(told) {
        encode_varint(u64::from(slot - last), gaps);
        last = slot;
    }
    field(SLOT_GAPS, gaps, message);
    gaps.clear();
    if run > 0 {
        encode_key(RUN, WireType::Varint, message);
        encode_varint(run as u64, message);
    }
}

/// Appends a field that is not empty.
fn field(number: u32, bytes: &[u8], message: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(number, WireType::LengthDelimited, message);
        encode_varint(bytes.len() as u64, message);
        message.extend_from_slice(bytes);
    }
}

/// The whole states that columns have, by their slots, ascending.
///
/// # Errors
/// When the columns do not fit one another.
pub fn unpack(columns: &mut Columns) -> Result<Vec<(u32, Quanta)>, ColumnError> {
    Ok(decode(columns, |_| Some(Quanta::default()))?.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::fields::limit;
    use crate::columns::{Change, encode};
    use prost::Message;

    fn quanta(seed: u64, sparse: u64) -> Quanta {
        let mut quanta = Quanta::default();
        for field in 0..FIELDS {
            let bits = (seed ^ field as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            quanta.set(field, (bits % 8 >= sparse).then_some((bits >> (8 + field)) as i64 % limit(field)));
        }
        quanta
    }

    #[test]
    fn what_is_packed_is_what_every_encoder_says() {
        for (count, gap, sparse) in [(1, 1, 0), (7, 3, 2), (8, 1, 0), (9, 1, 8), (100, 1, 3), (3, 1, 0)] {
            let rows: Vec<(u32, Quanta)> = (0..count).map(|row| (5 + row * gap, quanta(row.into(), sparse))).collect();
            let message = pack(rows.iter().map(|(slot, quanta)| (*slot, quanta)));
            let changes =
                rows.iter().map(|(slot, after)| Change { slot: *slot, before: Quanta::default(), after: *after });
            let theirs = encode(&changes.collect::<Vec<_>>()).unwrap();
            let mut ours = Columns::decode(message.as_slice()).unwrap();
            assert_eq!(ours, theirs);
            assert_eq!(unpack(&mut ours).unwrap(), rows);
            let about: usize = rows.iter().map(|(_, quanta)| packed_len(&Compact::of(quanta), u32::MAX)).sum();
            assert!(
                message.len() < about + FIELDS * (8 + rows.len().div_ceil(8)) + 8
                    && about <= message.len() + NAMED * rows.len(),
                "{about}"
            );
        }
    }

    #[test]
    fn a_packer_that_was_used_before_packs_what_is_new_and_wanted() {
        let mut packer = Packer::default();
        for (count, sparse, fields) in [(100, 3, u32::MAX), (7, 0, 0b1011), (20, 8, u32::MAX), (9, 2, 0), (1, 0, 0b100)]
        {
            let rows: Vec<(u32, Quanta)> = (0..count).rev().map(|row| (9 + row, quanta(row.into(), sparse))).collect();
            for (slot, quanta) in &rows {
                packer.add(*slot, &Compact::of(quanta), fields);
            }
            let masked = |quanta: &Quanta| {
                let mut masked = Quanta::default();
                let wanted = (0..FIELDS).filter(|field| fields >> field & 1 == 1);
                wanted.for_each(|field| masked.set(field, quanta.get(field)));
                masked
            };
            let wanted: Vec<(u32, Quanta)> = rows.iter().rev().map(|(slot, quanta)| (*slot, masked(quanta))).collect();
            let mut columns = Columns::decode(packer.pack()).unwrap();
            assert_eq!(unpack(&mut columns).unwrap(), wanted);
            assert!(packer.is_empty());
        }
    }

    #[test]
    fn the_longest_varints_are_packed_too() {
        let mut longest = Quanta::default();
        (0..FIELDS).for_each(|field| longest.set(field, Some(if field % 2 == 0 { i64::MIN } else { i64::MAX })));
        let columns = Columns::decode(pack([(1, &longest), (2, &longest)]).as_slice()).unwrap();
        assert_eq!(columns.cpu_pct.unwrap().deltas, [i64::MIN, i64::MIN]);
        assert_eq!(columns.memory_current.unwrap().deltas, [i64::MAX, i64::MAX]);
    }
}
