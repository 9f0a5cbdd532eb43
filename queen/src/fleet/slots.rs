//! The slots of a session and the places they point at, in the order of the slots: frames name slots in that order too,
//! so that most of them are found where the one before ended.

use std::collections::{HashMap, HashSet};

/// Whether a session's state may be built upon.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Synced {
    /// No whole snapshot yet.
    #[default]
    Never,
    /// A frame was refused for this reason, so differences no longer fit.
    Refused(String),
    /// Yes.
    Yes,
}

/// A snapshot whose last chunk has not come.
#[derive(Debug, Default)]
pub struct Pending {
    pub slots: HashMap<u32, u32>,
    /// The places in `slots`.
    pub places: HashSet<u32>,
}

/// Slots in ascending order, each with a place.
#[derive(Debug, Default)]
pub struct Slots(Vec<(u32, u32)>);

impl Slots {
    /// From pairs in any order; no slot may be there twice.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut slots = Self(pairs.into_iter().collect());
        slots.0.sort_unstable();
        slots
    }

    /// The place of a slot.
    pub fn get(&self, slot: u32) -> Option<u32> {
        let at = self.0.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        self.0.get(at).map(|(_, place)| *place)
    }

    /// The place of a slot, found fastest when `hint` is where it is expected. Leaves `hint` behind it.
    #[inline]
    pub fn get_from(&self, hint: &mut usize, slot: u32) -> Option<u32> {
        let at = match self.0.get(*hint) {
            Some((there, _)) if *there == slot => *hint,
            _ => self.0.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?,
        };
        *hint = at + 1;
        self.0.get(at).map(|(_, place)| *place)
    }

    /// Adds slots, or points those that are there at other places.
    pub fn set(&mut self, pairs: impl IntoIterator<Item = (u32, u32)>) {
        let old = self.0.len();
        for (slot, place) in pairs {
            match self.0[..old].binary_search_by_key(&slot, |(slot, _)| *slot) {
                Ok(at) => self.0[at].1 = place,
                Err(_) => self.0.push((slot, place)),
            }
        }
        if !self.0.is_sorted() {
            self.0.sort_unstable();
        }
    }

    /// Takes slots out; `gone` must be in ascending order. Answers their places.
    pub fn take(&mut self, gone: &[u32]) -> Vec<u32> {
        if gone.is_empty() {
            return Vec::new();
        }
        let mut places = Vec::with_capacity(gone.len());
        self.0.retain(|(slot, place)| {
            let goes = gone.binary_search(slot).is_ok();
            if goes {
                places.push(*place);
            }
            !goes
        });
        places
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_with_and_without_a_hint() {
        let mut slots = Slots::from_pairs([(9, 0), (2, 1), (5, 2)]);
        let mut hint = 0;
        let found = [2, 5, 9, 2, 3, 9].map(|slot| slots.get_from(&mut hint, slot));
        assert_eq!(found, [Some(1), Some(2), Some(0), Some(1), None, Some(0)]);
        slots.set([(7, 3), (5, 4), (1, 5)]);
        assert_eq!([1, 2, 5, 7, 9, 8].map(|slot| slots.get(slot)), [Some(5), Some(1), Some(4), Some(3), Some(0), None]);
        assert_eq!(slots.take(&[1, 3, 9]), [5, 0]);
        assert_eq!((slots.get(1), slots.get(2)), (None, Some(1)));
        slots.clear();
        assert_eq!(slots.get(2), None);
    }
}
