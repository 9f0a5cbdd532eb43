//! New numbers into workers, where they are: what a steady stream does, and without allocating.

use super::{KnownHive, idle_for};
use crate::fleet::measured::Measured;
use common::columns::{Room, Written};
use common::gpus::Uses;
use std::time::Instant;

impl KnownHive {
    /// Gives the workers at `places` the differences that were read, one after the other; `None` where there is no such
    /// worker any more. Answers how many numbers were dropped.
    pub fn take(&mut self, places: &[Option<u32>], room: &mut Room, taken: Instant) -> u64 {
        let dropped = room.step(places, &mut self.numbers, Measured::to_write);
        for (row, place) in places.iter().enumerate() {
            let Some(place) = *place else { continue };
            let (written, at) = (room.written(row), place as usize);
            let Some(worker) = self.workers.get_mut(at).and_then(Option::as_mut) else { continue };
            let new = !std::mem::replace(&mut worker.measured, true);
            if written == Written::default() && !new {
                continue;
            }
            let stats = &mut self.numbers[at];
            stats.wrote(written);
            if worker.sole_gpu {
                stats.follow_sums(written);
            }
            worker.dirty = true;
            if written.idleness() || new {
                let idle_for = idle_for(self.sampled_at.as_ref(), Some(stats));
                worker.note_activity(Some(stats), false, taken, idle_for);
            }
        }
        dropped
    }

    /// Writes a list of GPUs.
    pub fn write_gpus(&mut self, place: u32, uses: &Uses) {
        let Some(worker) = self.workers.get_mut(place as usize).and_then(Option::as_mut) else { return };
        let new = !std::mem::replace(&mut worker.measured, true);
        worker.sole_gpu = matches!(uses, Uses::Sole(_));
        worker.dirty |= self.numbers[place as usize].write_gpus(uses) || new;
    }
}
