//! GPUs in the order of their free bytes. Written only when the free bytes of a GPU change, which is far more seldom
//! than once a second: memory of models is taken at a start and given back at an end. Buckets of equal width would be
//! cheaper to write and slow to read where it matters, in a fleet of like machines whose idle GPUs all have the same room.

use common::HiveId;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A GPU in this order. Those with equal room are in the order of their hives' names and their positions there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GpuKey {
    /// Bytes that are free, nothing left aside.
    pub free: u64,
    /// Its hive; `None` comes before all.
    pub hive: Option<Arc<HiveId>>,
    /// Its position in the hive's record.
    pub position: u32,
}

impl GpuKey {
    /// Before every GPU with so much room.
    pub fn least(free: u64) -> Self {
        Self { free, hive: None, position: 0 }
    }
}

/// All GPUs of which it is known what is free, each with a block of its hive.
#[derive(Debug, Default)]
pub struct Rooms {
    by_free: BTreeMap<GpuKey, u32>,
}

impl Rooms {
    pub fn put(&mut self, key: GpuKey, block: u32) {
        self.by_free.insert(key, block);
    }

    pub fn remove(&mut self, key: &GpuKey) {
        self.by_free.remove(key);
    }

    /// The next ones of hives that are heard, with at least so many bytes.
    pub fn next(
        &self,
        after: Option<&GpuKey>,
        most_first: bool,
        enough: usize,
        least: u64,
        heard: impl Fn(u32) -> bool,
    ) -> Vec<GpuKey> {
        let fresh = |(_, block): &(&GpuKey, &u32)| heard(**block);
        let key = |(key, _): (&GpuKey, &u32)| key.clone();
        let least = GpuKey::least(least);
        // A range that ends before it begins is a panic, and whoever asks may have made the place up.
        match after {
            Some(after) if *after < least && most_first => Vec::new(),
            Some(after) if most_first => {
                self.by_free.range(least..after.clone()).rev().filter(fresh).take(enough).map(key).collect()
            }
            None if most_first => self.by_free.range(least..).rev().filter(fresh).take(enough).map(key).collect(),
            Some(after) if *after >= least => {
                let from = (Bound::Excluded(after.clone()), Bound::Unbounded);
                self.by_free.range(from).filter(fresh).take(enough).map(key).collect()
            }
            _ => self.by_free.range(least..).filter(fresh).take(enough).map(key).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(free: u64, hive: &str, position: u32) -> GpuKey {
        GpuKey { free, hive: HiveId::parse(hive).ok().map(Arc::new), position }
    }

    #[test]
    fn gpus_come_in_the_order_of_their_room_from_either_end() {
        let mut rooms = Rooms::default();
        let all = [key(3, "den", 0), key(5, "box", 0), key(5, "box", 1), key(5, "den", 0), key(9, "box", 2)];
        all.iter().enumerate().for_each(|(block, key)| rooms.put(key.clone(), block as u32));
        let next =
            |after: Option<&GpuKey>, most_first, enough| rooms.next(after, most_first, enough, 4, |block| block != 3);
        assert_eq!(next(None, false, 2), all[1..3]);
        assert_eq!(next(Some(&all[2]), false, 9), all[4..5], "block 3 is not heard");
        assert_eq!(next(None, true, 2), [all[4].clone(), all[2].clone()]);
        assert_eq!(next(Some(&all[2]), true, 9), all[1..2]);
    }

    #[test]
    fn a_place_that_was_made_up_is_no_panic() {
        let mut rooms = Rooms::default();
        rooms.put(key(5, "box", 0), 0);
        for after in [GpuKey::least(0), GpuKey::least(4), key(5, "box", 0), GpuKey::least(u64::MAX)] {
            for least in [0, 5, 9, u64::MAX] {
                let found = |most_first| rooms.next(Some(&after), most_first, 9, least, |_| true).len();
                assert!(found(true) <= 1 && found(false) <= 1);
            }
        }
    }
}
