//! Tells the index what has changed of a hive. Before the feed is told, because that forgets what has changed.

use super::KnownHive;
use crate::fleet::index::{Flags, Index};

impl KnownHive {
    /// So many places its workers may have.
    pub fn places(&self) -> usize {
        self.workers.len()
    }

    /// To be called before the lock of this hive is given back, whenever its record, its workers or its stream may have
    /// changed. Costs a look at each worker; only those that are dirty are worked out again.
    pub fn settle(&mut self, index: &Index) {
        self.seat.take(index, &self.id, self.workers.len());
        self.seat.forget_left(index);
        let all = self.dirty && self.seat.retell(index, &self.info);
        for (place, worker) in self.workers.iter().enumerate() {
            let Some(worker) = worker.as_ref().filter(|worker| all || worker.dirty) else { continue };
            let held = self.seat.hold(&worker.id).is_some();
            let flags = Flags::of(worker.state, worker.stats.as_ref(), held);
            self.seat.set(index, place as u32, flags, &worker.spec);
        }
        self.seat.publish(index, self.taken, self.broken);
    }
}
