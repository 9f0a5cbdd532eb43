//! Which workers a hive's record says are held. A change of that makes those workers news for watchers.

use super::KnownHive;
use common::WorkerId;
use std::collections::HashMap;
use std::sync::Arc;

impl KnownHive {
    /// Call when the record has been replaced.
    pub fn note_holds(&mut self) {
        let named = |hold: &proto::Hold| {
            let (_, id) = WorkerId::parse(&hold.worker).ok()?;
            Some((id, Arc::from(hold.reservation.as_str())))
        };
        let held: HashMap<WorkerId, Arc<str>> = self.info.holds.iter().filter_map(named).collect();
        let before = std::mem::replace(&mut self.held, held);
        for id in before.keys().chain(self.held.keys()) {
            let place = self.by_name.get(id).filter(|_| before.get(id) != self.held.get(id));
            let worker = place.and_then(|place| self.workers.get_mut(*place as usize)).and_then(Option::as_mut);
            if let Some(worker) = worker {
                worker.dirty = true;
            }
        }
    }
}
