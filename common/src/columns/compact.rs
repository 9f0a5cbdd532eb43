//! One worker's moving fields as columns write them: a few bytes each, less than a third of the room that [`Quanta`] takes. What is
//! kept of many workers until somebody reads it is bound by memory, not by arithmetic; and so kept it is ready to be packed.

use super::Quanta;
use super::fields::FIELDS;
use smallvec::SmallVec;

/// So many bytes lie with the rest, a line of the processor's cache with their length. The document's fields take about half of
/// them, all fields of a busy worker about as many.
const NEAR: usize = 56;
/// The longest varint, in bytes.
pub(super) const LONGEST: usize = 10;
/// What says that a byte is not the last of its varint.
const MORE: u8 = 0x80;
/// Varints are copied by so many bytes at once, of which only those count that they take.
pub(super) const WORD: usize = 8;
/// The same for each byte of a word.
const MORES: u64 = 0x8080_8080_8080_8080;
/// Numbers of so many bits have varints of at most four bytes.
const SPREAD: u32 = 28;

/// The fields of one worker that have a value, as varints, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Compact {
    bytes: SmallVec<[u8; NEAR]>,
    /// Bit i: field i has a value.
    present: u32,
}

impl Compact {
    /// Of those numbers.
    pub fn of(quanta: &Quanta) -> Self {
        let mut compact = Self::default();
        compact.write(quanta);
        compact
    }

    /// Takes over those numbers, in the room that there is.
    pub fn write(&mut self, quanta: &Quanta) {
        let (mut room, mut end) = ([0; FIELDS * LONGEST + WORD], 0);
        for field in bits(quanta.present) {
            end += put(zigzag(quanta.values[field]), &mut room[end..]);
        }
        self.present = quanta.present;
        self.bytes.clear();
        self.bytes.extend_from_slice(&room[..end]);
    }

    /// The numbers.
    pub fn quanta(&self) -> Quanta {
        let mut quanta = Quanta { present: self.present, ..Quanta::default() };
        let mut bytes = self.bytes.as_slice();
        for field in bits(self.present) {
            quanta.values[field] = unzigzag(take(&mut bytes));
        }
        quanta
    }

    /// The fields that have a value, as bits.
    pub(super) fn present(&self) -> u32 {
        self.present
    }

    /// The varints of those of its fields that are set in `fields`.
    pub(super) fn told(&self, fields: u32) -> impl Iterator<Item = &[u8]> {
        let (mut bytes, present) = (self.bytes.as_slice(), self.present);
        let whole = present & !fields == 0;
        let every = whole.then_some(bytes);
        let single = bits(if whole { 0 } else { present }).filter_map(move |field| {
            let (one, rest) = bytes.split_at(len(bytes));
            bytes = rest;
            (fields >> field & 1 == 1).then_some(one)
        });
        every.into_iter().chain(single)
    }

    /// Reads of every part of it that is always there, so that it is on its way from memory: of many, one after the other, at
    /// the same time.
    #[inline]
    pub fn touch(&self) -> i64 {
        i64::from(self.present) ^ i64::from(self.bytes.first().copied().unwrap_or(0))
    }
}

/// The places of the bits that are set, ascending.
#[inline]
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros() as usize;
        let any = set != 0;
        set &= set.wrapping_sub(1);
        any.then_some(place)
    })
}

/// As the wire has differences.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Writes a varint; how many bytes it takes. Those of usual length without a branch, because what lengths follow each other
/// nobody can foretell: four bytes of `room` are written, whatever it takes.
#[inline]
fn put(value: u64, room: &mut [u8]) -> usize {
    if value >> SPREAD != 0 {
        return put_long(value, room);
    }
    let value = value as u32;
    let spread = value & 0x7f | (value & 0x3f80) << 1 | (value & 0x001f_c000) << 2 | (value & 0x0fe0_0000) << 3;
    let last = (31 - (value | 1).leading_zeros()) / 7;
    let more = MORES as u32 & ((1 << (8 * last)) - 1);
    room[..4].copy_from_slice(&(spread | more).to_le_bytes());
    last as usize + 1
}

fn put_long(mut value: u64, room: &mut [u8]) -> usize {
    let mut at = 0;
    while value >= u64::from(MORE) {
        room[at] = value as u8 | MORE;
        value >>= 7;
        at += 1;
    }
    room[at] = value as u8;
    at + 1
}

/// Copies the first varint of those that begin with one; how many bytes it takes. Both have to have a word more than is needed,
/// for the same reason as in [`put`].
#[inline]
pub(super) fn copy_first(from: &[u8], into: &mut [u8]) -> usize {
    let mut word = [0; WORD];
    word.copy_from_slice(&from[..WORD]);
    let ends = !u64::from_le_bytes(word) & MORES;
    if ends == 0 {
        let length = len(from);
        into[..length].copy_from_slice(&from[..length]);
        return length;
    }
    into[..WORD].copy_from_slice(&word);
    ends.trailing_zeros() as usize / 8 + 1
}

/// How many bytes the first varint takes of those that begin with one.
fn len(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte >= MORE).count() + 1
}

fn take(bytes: &mut &[u8]) -> u64 {
    let (one, rest) = bytes.split_at(len(bytes));
    *bytes = rest;
    one.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & !MORE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::fields::limit;

    fn quanta(values: impl Fn(usize) -> Option<i64>) -> Quanta {
        let mut quanta = Quanta::default();
        (0..FIELDS).for_each(|field| quanta.set(field, values(field)));
        quanta
    }

    #[test]
    fn what_is_written_is_read_again_whatever_was_there_before() {
        let all = [
            quanta(|_| None),
            quanta(|field| Some(limit(field) - 1)),
            quanta(|field| (field % 3 == 0).then_some(1 << field)),
            quanta(|field| Some(-(field as i64))),
            quanta(|field| (field == 28).then_some(i64::MIN)),
            quanta(|field| (field == 28).then_some(i64::MAX)),
        ];
        let mut kept = Compact::default();
        for quanta in all.iter().chain(all.iter().rev()) {
            kept.write(quanta);
            assert_eq!((&kept.quanta(), &kept), (quanta, &Compact::of(quanta)));
        }
    }

    #[test]
    fn those_of_its_fields_are_told_that_are_wanted() {
        let kept = Compact::of(&quanta(|field| [5, 300, 7].get(field).copied()));
        let told = |fields| kept.told(fields).collect::<Vec<_>>().concat();
        assert_eq!(told(0b111), [10, 0xd8, 4, 14]);
        assert_eq!((told(u32::MAX), told(0b101), told(0b010)), (told(0b111), vec![10, 14], vec![0xd8, 4]));
        assert!(told(0).is_empty() && told(1 << 20).is_empty());
    }
}
