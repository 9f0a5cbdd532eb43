//! Sets of the seats of a lane, a bit each: plain, and shared by those who wake it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a set.
const WORDS: usize = 4;
/// Seats of a lane.
pub const SEATS: u32 = WORDS as u32 * u64::BITS;

/// A set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seats([u64; WORDS]);

impl Seats {
    /// One more.
    pub fn add(&mut self, seat: u32) {
        let (word, bit) = place(seat);
        self.0[word] |= bit;
    }

    /// Whether it is among them.
    pub fn has(&self, seat: u32) -> bool {
        let (word, bit) = place(seat);
        self.0[word] & bit != 0
    }

    /// All of them, beginning with the word and the bit of `first`.
    pub fn from(self, first: u32) -> impl Iterator<Item = u32> {
        let turned = first % u64::BITS;
        (0..WORDS).flat_map(move |ahead| {
            let word = (first / u64::BITS) as usize + ahead;
            let mut rest = self.0[word % WORDS].rotate_right(turned);
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    (word % WORDS) as u32 * u64::BITS + (bit + turned) % u64::BITS
                })
            })
        })
    }
}

/// A set to which anybody may add.
#[derive(Debug, Default)]
pub struct SharedSeats([AtomicU64; WORDS]);

impl SharedSeats {
    /// All there are.
    pub fn all() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(u64::MAX)))
    }

    /// One more. Whether it was the first one of its word.
    pub fn add(&self, seat: u32) -> bool {
        let (word, bit) = place(seat);
        self.0[word].fetch_or(bit, Ordering::SeqCst) == 0
    }

    /// All at once.
    pub fn fill(&self) {
        self.0.iter().for_each(|word| word.store(u64::MAX, Ordering::Release));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::SeqCst) == 0)
    }

    /// Takes everything out.
    pub fn take(&self) -> Seats {
        let take =
            |word: &AtomicU64| if word.load(Ordering::Acquire) == 0 { 0 } else { word.swap(0, Ordering::AcqRel) };
        Seats(std::array::from_fn(|at| take(&self.0[at])))
    }

    /// Takes those out that are among `of`.
    pub fn take_of(&self, of: &Seats) -> Seats {
        Seats(std::array::from_fn(|at| match of.0[at] {
            0 => 0,
            of => self.0[at].fetch_and(!of, Ordering::AcqRel) & of,
        }))
    }

    /// Takes one out. Only one may do so at a time.
    pub fn take_one(&self) -> Option<u32> {
        let (at, word) = self.0.iter().enumerate().find(|(_, word)| word.load(Ordering::Acquire) != 0)?;
        let bit = word.load(Ordering::Acquire).trailing_zeros();
        word.fetch_and(!(1 << bit), Ordering::AcqRel);
        Some(at as u32 * u64::BITS + bit)
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.load(Ordering::Acquire).count_ones()).sum()
    }
}

fn place(seat: u32) -> (usize, u64) {
    ((seat / u64::BITS) as usize % WORDS, 1 << (seat % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_once_whoever_is_first() {
        let members = [0, 1, 63, 64, 100, 191, 192, 255];
        let mut seats = Seats::default();
        members.into_iter().for_each(|seat| seats.add(seat));
        assert_eq!(seats.from(0).collect::<Vec<_>>(), members);
        for first in 0..SEATS {
            let mut all: Vec<u32> = seats.from(first).collect();
            assert!(!seats.has(first) || all[0] == first, "{first}: {all:?}");
            all.sort_unstable();
            assert_eq!(all, members, "{first}");
        }
        assert_eq!(Seats::default().from(7).count(), 0);
    }

    #[test]
    fn what_is_taken_out_is_taken_once() {
        let shared = SharedSeats::default();
        assert_eq!([5, 6, 70, 5].map(|seat| shared.add(seat)), [true, false, true, false]);
        let mut of = Seats::default();
        [6, 70, 200].into_iter().for_each(|seat| of.add(seat));
        assert_eq!(shared.take_of(&of).from(0).collect::<Vec<_>>(), [6, 70]);
        assert_eq!(shared.take().from(0).collect::<Vec<_>>(), [5]);
        assert_eq!(shared.take(), Seats::default());
        let free = SharedSeats::all();
        let taken: Vec<u32> = std::iter::from_fn(|| free.take_one()).collect();
        assert_eq!((taken, free.len()), ((0..SEATS).collect(), 0));
        free.add(77);
        assert_eq!((free.len(), free.take_one(), free.take_one()), (1, Some(77), None));
    }
}
