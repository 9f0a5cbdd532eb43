//! Who may fit a question, found without looking at everybody: a row a worker, a bit a property, GPUs in the order of
//! their room. Nothing here is answered as it is: whoever is found is looked at again under its hive's lock, so a bit
//! that is a moment old costs a look and never a wrong answer.
//!
//! Locks. A block of 64 rows belongs to one hive, so its words have one writer at a time, whoever holds that hive's
//! lock, and are stored without any other. The directory's lock is written when hives come and go or grow, the models'
//! when a worker changes its model, the rooms' when free memory of a GPU changes, the holders' when a hive's holds do.
//! Writers hold their hive's lock and take one of these inside it, one at a time; readers hold no hive's lock.

mod block;
mod directory;
mod first;
mod holders;
mod models;
mod rooms;
mod seat;
mod sieve;

pub use block::{Flags, IdleFrom};
#[cfg(test)]
pub use directory::digest;
pub use directory::{Candidates, LongestIdle};
pub use holders::Among;
pub use rooms::GpuKey;
pub use seat::Seat;
pub use sieve::{Near, Need, Sieve};

pub(crate) use block::{is_idle, is_unused};

use super::Moment;
use block::Heard;
use common::HiveId;
use directory::Directory;
use holders::Holders;
use models::Models;
use proto::Freshness;
use rooms::Rooms;
use std::hash::RandomState;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// At most so many hives are named while the directory is locked: then those who wait get their turn.
const HIVES_AT_ONCE: usize = 256;

/// The index of a fleet.
#[derive(Debug)]
pub struct Index {
    started: Instant,
    directory: RwLock<Directory>,
    models: RwLock<Models>,
    rooms: RwLock<Rooms>,
    holders: RwLock<Holders>,
    /// Of the names of holds.
    seed: RandomState,
}

impl Index {
    pub(super) fn new(started: Instant) -> Self {
        let (directory, models, rooms) = (RwLock::default(), RwLock::default(), RwLock::default());
        Self { started, directory, models, rooms, holders: RwLock::default(), seed: RandomState::new() }
    }

    /// The rows of all workers that pass, in no order. A row is a worker's for as long as it is known.
    pub fn rows(&self, sieve: &Sieve) -> Vec<u32> {
        self.directory().rows(sieve)
    }

    /// Workers that pass, hive by hive in the order of their names: those of hives after a name, or from it on. Ends at
    /// the end of a hive when there are `enough`; empty when there are no more.
    pub fn candidates(&self, sieve: &Sieve, from: Bound<&HiveId>, enough: usize) -> Vec<Candidates> {
        self.directory().candidates(sieve, from, enough, HIVES_AT_ONCE)
    }

    /// Workers that pass and are idle, from those on that are idle `from` then: the `some` that have been for longest, and
    /// whoever has been for as long as the last of them.
    pub fn longest_idle(&self, sieve: &Sieve, from: IdleFrom, some: usize) -> LongestIdle {
        self.directory().longest_idle(sieve, from, some)
    }

    /// Workers of one kind, of those whose model fits if that is asked for, in no order: those in the first `blocks` blocks
    /// of rows that have any.
    pub fn near(&self, kind: Near, models: Option<&[u64]>, blocks: usize) -> Vec<Candidates> {
        self.directory().near(kind, models, blocks)
    }

    /// A point in time as idleness is kept here.
    pub fn idle_from(&self, at: Instant) -> IdleFrom {
        IdleFrom::of(self.started, at)
    }

    /// Hives after a name, or from it on, in the order of their names, at most `limit`; with a sieve those that are heard
    /// and have the room.
    pub fn hives(&self, sieve: Option<&Sieve>, from: Bound<&HiveId>, limit: usize) -> Vec<Arc<HiveId>> {
        self.directory().hives(sieve, from, limit)
    }

    /// GPUs with the room that the sieve asks for, after one that was seen: those with least room first, or those with
    /// most.
    pub fn gpus(&self, sieve: &Sieve, after: Option<&GpuKey>, most_first: bool, enough: usize) -> Vec<GpuKey> {
        let directory = self.directory();
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        rooms.next(after, most_first, enough, sieve.least_room.unwrap_or(0), |block| directory.is_heard(sieve, block))
    }

    /// For each block of rows, those whose model goes by a name that fits.
    pub fn models(&self, fits: impl Fn(&str) -> bool) -> Vec<u64> {
        let blocks = self.directory().blocks();
        self.models.read().unwrap_or_else(PoisonError::into_inner).words(blocks, fits)
    }

    /// The same for one name, letter by letter.
    pub fn model(&self, name: &str) -> Vec<u64> {
        let blocks = self.directory().blocks();
        self.models.read().unwrap_or_else(PoisonError::into_inner).words_of(blocks, name)
    }

    /// Hives that may have such holds, in no order.
    pub fn holders(&self, among: Among<'_>) -> Vec<Arc<HiveId>> {
        self.holders.read().unwrap_or_else(PoisonError::into_inner).hives(&self.seed, among)
    }

    /// How many hives are known, and how many of them are LIVE.
    pub fn census(&self, moment: &Moment) -> (usize, usize) {
        self.directory().count(self.is_live(moment))
    }

    /// The `some` LIVE hives with the lowest numbers, the lowest first. Those are made of digests of the hives' names.
    pub fn first_live(&self, moment: &Moment, some: usize, number: impl Fn(u64) -> u64) -> Vec<Arc<HiveId>> {
        self.directory().first(some, number, self.is_live(moment))
    }

    fn is_live(&self, moment: &Moment) -> impl Fn(Heard) -> bool {
        // Nearly all were heard lately, which one comparison tells; pauses of the queen are looked at for the others.
        let (lately, started) = (self.oldest(moment.live_since()), self.started);
        move |heard: Heard| {
            let at = || heard.at(started);
            !heard.broken() && (heard >= lately || moment.hive_freshness(at(), false) == Freshness::Live)
        }
    }

    /// The oldest word of a hive that is no older than a point in time.
    pub fn oldest(&self, at: Option<Instant>) -> Heard {
        at.map_or_else(Heard::default, |at| Heard::new(self.started, at, false))
    }

    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn models_mut(&self) -> RwLockWriteGuard<'_, Models> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders_mut(&self) -> RwLockWriteGuard<'_, Holders> {
        self.holders.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms_mut(&self) -> RwLockWriteGuard<'_, Rooms> {
        self.rooms.write().unwrap_or_else(PoisonError::into_inner)
    }
}
