//! A hive's own end of the index: what of it has been told there, so that only what changes is written.

use super::block::{Flags, Heard, IdleFrom, ROWS, Segment, Words};
use super::rooms::GpuKey;
use super::{Index, holders};
use crate::fleet::{Spec, room};
use common::{HiveId, WorkerId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
struct Block {
    number: u32,
    segment: Arc<Segment>,
    words: Words,
    told: Words,
}

/// What the index knows of one hive. Places are those of its workers.
#[derive(Debug, Default)]
pub struct Seat {
    hive: Option<Arc<HiveId>>,
    blocks: Vec<Block>,
    /// At each place the spec whose model names are in the index.
    specs: Vec<Option<Arc<Spec>>>,
    /// Those of workers that left since the last time.
    left: Vec<(u32, Arc<Spec>)>,
    /// Of each GPU, what the index has.
    rooms: Vec<Option<u64>>,
    /// The place in the hive's record of the hold on each worker that is held.
    held: HashMap<WorkerId, usize>,
    /// By what its holds can be looked for.
    names: Vec<u64>,
}

impl Seat {
    /// The place in the hive's record of the hold on this worker.
    #[inline]
    pub fn hold(&self, id: &WorkerId) -> Option<usize> {
        // Most hives hold nothing, and then no name is hashed.
        if self.held.is_empty() { None } else { self.held.get(id).copied() }
    }

    /// Makes room for so many places; the hive has a row in the index from the first time on.
    pub fn take(&mut self, index: &Index, hive: &HiveId, places: usize) {
        let hive = self.hive.get_or_insert_with(|| Arc::new(hive.clone()));
        while self.blocks.is_empty() || self.blocks.len() * (ROWS as usize) < places {
            let first = self.blocks.len() as u32 * ROWS;
            let last = self.blocks.last().map(|block| block.number);
            let (number, segment) = index.directory_mut().take(hive, first, last);
            let room = self.blocks.first().and_then(|block| block.segment.room(block.number as usize));
            segment.put_room(number as usize, room);
            self.blocks.push(Block { number, segment, words: Words::default(), told: Words::default() });
        }
        self.specs.resize(self.specs.len().max(places), None);
    }

    /// The hive's record was told anew. Answers whether other workers are held than before.
    pub fn retell(&mut self, index: &Index, record: &proto::Hive) -> bool {
        self.retell_rooms(index, record);
        if self.names.is_empty() && record.holds.is_empty() {
            return false;
        }
        self.retell_holders(index, &record.holds);
        let mut held = HashMap::new();
        for (at, hold) in record.holds.iter().enumerate() {
            if let Ok((None, id)) = WorkerId::parse(&hold.worker) {
                held.entry(id).or_insert(at);
            }
        }
        let other = held.len() != self.held.len() || held.keys().any(|id| !self.held.contains_key(id));
        self.held = held;
        other
    }

    fn retell_holders(&mut self, index: &Index, holds: &[proto::Hold]) {
        let Some(hive) = &self.hive else { return };
        let names = holders::names(&index.seed, holds);
        if names != self.names {
            index.holders_mut().put(hive, &self.names, &names);
            self.names = names;
        }
    }

    fn retell_rooms(&mut self, index: &Index, record: &proto::Hive) {
        let Some(hive) = &self.hive else { return };
        let Some(first) = self.blocks.first().map(|block| block.number) else { return };
        let rooms: Vec<Option<u64>> =
            (0..record.gpus.len()).map(|at| room::of(record, at).ok().map(|room| room.free)).collect();
        if rooms == self.rooms {
            return;
        }
        let key = |at: usize, free: u64| GpuKey { free, hive: Some(Arc::clone(hive)), position: at as u32 };
        let mut index = index.rooms_mut();
        for at in 0..rooms.len().max(self.rooms.len()) {
            let (before, now) = (self.rooms.get(at).copied().flatten(), rooms.get(at).copied().flatten());
            if before == now {
                continue;
            }
            before.into_iter().for_each(|free| index.remove(&key(at, free)));
            now.into_iter().for_each(|free| index.put(key(at, free), first));
        }
        drop(index);
        let most = rooms.iter().flatten().max().copied();
        self.blocks.iter().for_each(|block| block.segment.put_room(block.number as usize, most));
        self.rooms = rooms;
    }

    /// What is true of the worker at a place, and since when it has been idle.
    #[inline]
    pub fn set(&mut self, place: u32, flags: Flags, idle_from: IdleFrom) {
        if let Some(block) = self.blocks.get_mut((place / ROWS) as usize) {
            block.words.set(1 << (place % ROWS), flags);
            block.segment.put_idle_from(block.number as usize, place % ROWS, idle_from);
        }
    }

    /// What the worker at a place is.
    pub fn set_spec(&mut self, index: &Index, place: u32, spec: &Arc<Spec>) {
        let Some(block) = self.blocks.get((place / ROWS) as usize) else { return };
        let bit = 1 << (place % ROWS);
        let Some(known) = self.specs.get_mut(place as usize) else { return };
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, spec)) {
            return;
        }
        let before = known.replace(Arc::clone(spec));
        let nameless = |spec: &Spec| spec.models().next().is_none();
        let same = |before: &Spec| before.model == spec.model && before.model_names == spec.model_names;
        if before.as_deref().map_or(nameless(spec), same) {
            return;
        }
        let mut models = index.models_mut();
        before.iter().for_each(|before| models.remove(before, block.number, bit));
        models.add(spec, block.number, bit);
    }

    /// There is no worker at a place any more.
    pub fn vacate(&mut self, place: u32) {
        if let Some(block) = self.blocks.get_mut((place / ROWS) as usize) {
            block.words.clear(1 << (place % ROWS));
        }
        let spec = self.specs.get_mut(place as usize).and_then(Option::take);
        self.left.extend(spec.map(|spec| (place, spec)));
    }

    /// Takes the models of workers that left out of the index. Before a place is set again.
    pub fn forget_left(&mut self, index: &Index) {
        if self.left.is_empty() {
            return;
        }
        let mut models = index.models_mut();
        for (place, spec) in self.left.drain(..) {
            if let Some(block) = self.blocks.get((place / ROWS) as usize) {
                models.remove(&spec, block.number, 1 << (place % ROWS));
            }
        }
    }

    /// Tells everything that has changed, and when the hive was heard.
    pub fn publish(&mut self, index: &Index, heard: Instant, broken: bool) {
        let heard = Heard::new(index.started, heard, broken);
        for block in &mut self.blocks {
            block.segment.put(block.number as usize, &mut block.told, block.words);
            block.segment.hear(block.number as usize, heard);
        }
    }

    /// The hive is gone.
    pub fn give_up(&mut self, index: &Index) {
        for place in 0..self.specs.len() as u32 {
            self.vacate(place);
        }
        self.forget_left(index);
        self.retell_rooms(index, &proto::Hive::default());
        self.retell_holders(index, &[]);
        self.publish(index, index.started, true);
        index.directory_mut().give_back(self.blocks.iter().map(|block| block.number));
        *self = Self::default();
    }
}
