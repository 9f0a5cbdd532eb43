//! New numbers into workers, where they are: what a steady stream does, and without allocating.

use super::{KnownHive, idle_for};
use common::columns::Room;
use common::gpus::Uses;
use std::time::Instant;

impl KnownHive {
    /// Gives the workers at `places` the differences that were read, one after the other; `None` where there is no such
    /// worker any more. Answers how many numbers were dropped.
    pub fn take(&mut self, places: &[Option<u32>], room: &mut Room, taken: Instant) -> u64 {
        let mut dropped = 0;
        for (row, place) in places.iter().enumerate() {
            let worker = place.and_then(|place| self.workers.get_mut(place as usize)?.as_mut());
            let Some(worker) = worker else {
                room.skip(row);
                continue;
            };
            let new = worker.stats.is_none();
            let stats = worker.stats.get_or_insert_default();
            let step = stats.step(room, row);
            dropped += step.dropped;
            if !step.changed() && !new {
                continue;
            }
            if worker.sole_gpu {
                stats.follow_sums(step.written);
            }
            worker.dirty = true;
            if step.idleness() || new {
                let idle_for = idle_for(self.sampled_at.as_ref(), worker.stats.as_ref());
                worker.note_activity(false, taken, idle_for);
            }
        }
        dropped
    }

    /// Writes a list of GPUs.
    pub fn write_gpus(&mut self, place: u32, uses: &Uses) {
        let Some(worker) = self.workers.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let new = worker.stats.is_none();
        let stats = worker.stats.get_or_insert_default();
        worker.sole_gpu = matches!(uses, Uses::Sole(_));
        worker.dirty |= stats.write_gpus(uses) || new;
    }
}
