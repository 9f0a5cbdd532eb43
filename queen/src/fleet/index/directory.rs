//! Which block of rows is whose, and the hives in the order of their names. Written only when a hive comes, goes, or
//! grows by 64 workers.

use super::block::{Heard, IdleFrom, ROWS, SEGMENT, Segment};
use super::first::First;
use super::sieve::{Near, Sieve};
use crate::digest::Digest;
use common::HiveId;
use std::ops::Bound;
use std::sync::Arc;

/// No further block.
const NONE: u32 = u32::MAX;

/// Workers of one hive that may fit.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// Their hive.
    pub hive: Arc<HiveId>,
    /// The place of bit 0 among the hive's workers.
    pub first: u32,
    /// A bit each.
    pub word: u64,
}

impl Candidates {
    /// Whoever is at the first so many places of a hive.
    pub fn all(hive: &HiveId, places: usize) -> Vec<Self> {
        let hive = Arc::new(hive.clone());
        let blocks = 0..places.div_ceil(ROWS as usize) as u32;
        blocks.map(|block| Self { hive: Arc::clone(&hive), first: block * ROWS, word: u64::MAX }).collect()
    }

    /// Their places among the hive's workers.
    pub fn places(&self) -> impl Iterator<Item = u32> {
        let first = self.first;
        bits(self.word).map(move |bit| first + bit)
    }
}

/// Workers that may fit and are idle.
#[derive(Debug)]
pub struct LongestIdle {
    /// Since when, whose, and at which place; the longest idle first.
    pub rows: Vec<(IdleFrom, Arc<HiveId>, u32)>,
    /// All of them are in it that have been idle since then or for longer; `None`: all.
    pub through: Option<IdleFrom>,
}

#[derive(Debug, Clone)]
struct Tenant {
    hive: Arc<HiveId>,
    first: u32,
}

/// All blocks.
#[derive(Debug, Default)]
pub struct Directory {
    segments: Vec<Arc<Segment>>,
    /// Of each block.
    tenants: Vec<Option<Tenant>>,
    /// The hive's next block, of each block.
    next: Vec<u32>,
    free: Vec<u32>,
    /// The first block of each hive, in the order of the hives' names.
    by_name: Vec<u32>,
    /// Of each block, a digest of its hive's name: names themselves are all over the memory.
    digests: Vec<u64>,
}

impl Directory {
    /// Gives a hive a block for its workers from the place `first` on; `last` is the block that it got before.
    pub fn take(&mut self, hive: &Arc<HiveId>, first: u32, last: Option<u32>) -> (u32, Arc<Segment>) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.tenants.push(None);
            self.next.push(NONE);
            self.digests.push(0);
            self.tenants.len() as u32 - 1
        });
        let block = number as usize;
        while self.segments.len() * SEGMENT <= block {
            self.segments.push(Arc::new(Segment::new()));
        }
        self.tenants[block] = Some(Tenant { hive: Arc::clone(hive), first });
        self.next[block] = NONE;
        self.digests[block] = digest(hive);
        match last {
            Some(last) => self.next[last as usize] = number,
            None => self.by_name.insert(self.place(Bound::Included(hive)), number),
        }
        (number, Arc::clone(&self.segments[block / SEGMENT]))
    }

    /// Takes the blocks of a hive back, the first of them first.
    pub fn give_back(&mut self, blocks: impl Iterator<Item = u32>) {
        for (at, number) in blocks.enumerate() {
            if at == 0 {
                self.by_name.retain(|first| *first != number);
            }
            self.tenants[number as usize] = None;
            self.free.push(number);
        }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.tenants.len()
    }

    pub fn rows(&self, sieve: &Sieve) -> Vec<u32> {
        let mut rows = Vec::new();
        for block in 0..self.tenants.len() {
            let word = sieve.word(&self.segments[block / SEGMENT], block);
            rows.extend(bits(word).map(|bit| block as u32 * ROWS + bit));
        }
        rows
    }

    pub fn candidates(&self, sieve: &Sieve, from: Bound<&HiveId>, enough: usize, hives: usize) -> Vec<Candidates> {
        let (mut found, mut named, mut candidates) = (0, 0, Vec::new());
        for first in &self.by_name[self.place(from)..] {
            let (mut number, before) = (*first, found);
            while number != NONE {
                let block = number as usize;
                let word = sieve.word(&self.segments[block / SEGMENT], block);
                if let (true, Some(tenant)) = (word != 0, &self.tenants[block]) {
                    candidates.push(Candidates { hive: Arc::clone(&tenant.hive), first: tenant.first, word });
                    found += word.count_ones() as usize;
                }
                number = self.next[block];
            }
            named += usize::from(found > before);
            if found >= enough || named >= hives {
                break;
            }
        }
        candidates
    }

    pub fn near(&self, kind: Near, models: Option<&[u64]>, blocks: usize) -> Vec<Candidates> {
        let some = self.tenants.iter().enumerate().filter_map(|(block, tenant)| {
            let tenant = tenant.as_ref()?;
            let fits = models.map_or(u64::MAX, |models| models.get(block).copied().unwrap_or(0));
            let word = kind.word(&self.segments[block / SEGMENT], block) & fits;
            (word != 0).then(|| Candidates { hive: Arc::clone(&tenant.hive), first: tenant.first, word })
        });
        some.take(blocks).collect()
    }

    pub fn longest_idle(&self, sieve: &Sieve, from: IdleFrom, some: usize) -> LongestIdle {
        let mut first = First::new(some);
        for block in 0..self.tenants.len() {
            let segment = &self.segments[block / SEGMENT];
            for bit in bits(sieve.word(segment, block)) {
                let idle_from = segment.idle_from(block, bit);
                if idle_from >= from && idle_from < IdleFrom::NEVER {
                    first.offer(idle_from, block as u32 * ROWS + bit);
                }
            }
        }
        let (rows, through) = first.done();
        let named = |(idle_from, row): (IdleFrom, u32)| {
            let tenant = self.tenants[(row / ROWS) as usize].as_ref()?;
            Some((idle_from, Arc::clone(&tenant.hive), tenant.first + row % ROWS))
        };
        LongestIdle { rows: rows.into_iter().filter_map(named).collect(), through }
    }

    pub fn hives(&self, sieve: Option<&Sieve>, from: Bound<&HiveId>, limit: usize) -> Vec<Arc<HiveId>> {
        let pass = |first: &&u32| sieve.is_none_or(|sieve| self.is_heard(sieve, **first));
        let named = self.by_name[self.place(from)..].iter().filter(pass).filter_map(|first| self.name(*first));
        named.take(limit).cloned().collect()
    }

    /// Hives in all, and those of which this is true.
    pub fn count(&self, is: impl Fn(Heard) -> bool) -> (usize, usize) {
        let heard = |first: &&u32| is(self.segments[**first as usize / SEGMENT].heard(**first as usize));
        (self.by_name.len(), self.by_name.iter().filter(heard).count())
    }

    /// The hives with the lowest numbers, made of their digests, of those of which this is true; the lowest first.
    pub fn first(&self, some: usize, number: impl Fn(u64) -> u64, is: impl Fn(Heard) -> bool) -> Vec<Arc<HiveId>> {
        let mut first: Vec<(u64, u32)> = Vec::with_capacity(self.by_name.len());
        for block in &self.by_name {
            if is(self.segments[*block as usize / SEGMENT].heard(*block as usize)) {
                first.push((number(self.digests[*block as usize]), *block));
            }
        }
        if first.len() > some {
            first.select_nth_unstable(some);
            first.truncate(some);
        }
        first.sort_unstable();
        first.iter().filter_map(|(_, block)| self.name(*block)).cloned().collect()
    }

    pub fn is_heard(&self, sieve: &Sieve, block: u32) -> bool {
        sieve.is_heard(&self.segments[block as usize / SEGMENT], block as usize)
    }

    fn name(&self, first: u32) -> Option<&Arc<HiveId>> {
        self.tenants[first as usize].as_ref().map(|tenant| &tenant.hive)
    }

    /// Where in `by_name` the hives begin that come after a name, or from it on.
    fn place(&self, from: Bound<&HiveId>) -> usize {
        let before = |first: &u32| {
            self.name(*first).is_some_and(|name| match from {
                Bound::Unbounded => false,
                Bound::Included(from) => **name < *from,
                Bound::Excluded(from) => **name <= *from,
            })
        };
        self.by_name.partition_point(before)
    }
}

/// Of a hive's name, the same at every queen.
pub fn digest(hive: &HiveId) -> u64 {
    let mut digest = Digest::new();
    digest.text(hive.as_str());
    digest.value()
}

/// The positions of the bits that are set, lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < u64::BITS).then_some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_given_again_and_hives_keep_the_order_of_their_names() {
        let mut directory = Directory::default();
        let hive = |name: &str| Arc::new(HiveId::parse(name).unwrap());
        let (den, box_, attic) = (hive("den"), hive("box"), hive("attic"));
        assert_eq!(directory.take(&den, 0, None).0, 0);
        assert_eq!(directory.take(&box_, 0, None).0, 1);
        assert_eq!(directory.take(&den, 64, Some(0)).0, 2);
        let names = |directory: &Directory, from| {
            directory.hives(None, from, 9).iter().map(|hive| hive.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&directory, Bound::Unbounded), ["box", "den"]);
        assert_eq!(names(&directory, Bound::Excluded(&box_)), ["den"]);
        directory.give_back([0, 2].into_iter());
        assert_eq!(directory.take(&attic, 0, None).0, 2);
        assert_eq!((names(&directory, Bound::Unbounded), directory.blocks()), (vec!["attic".into(), "box".into()], 3));
    }

    #[test]
    fn bits_are_named_from_the_lowest() {
        assert_eq!(bits(0).count(), 0);
        assert_eq!(bits(1 << 63 | 5).collect::<Vec<_>>(), [0, 2, 63]);
        assert_eq!(bits(u64::MAX).count(), 64);
    }
}
