//! All lanes, and who sits in which.

use super::connection::Gone;
use super::lane::{Bells, Carried, Lane};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    began: Instant,
    open: Mutex<Open>,
    carried: TaskTracker,
}

#[derive(Debug, Default)]
struct Open {
    lanes: Vec<Arc<Lane>>,
    tasks: JoinSet<()>,
    leaving: bool,
}

impl Lanes {
    /// None yet. What is due comes due at whole steps since `began`.
    pub fn new(began: Instant) -> Self {
        Self { began, open: Mutex::default(), carried: TaskTracker::new() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries the connection that is made of its bells; tells how it ended.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn carry<C: Carried + 'static>(
        &self,
        connection: impl FnOnce(&Bells) -> C,
        ended: impl FnOnce(Result<(), Gone>) + Send + 'static,
    ) {
        let mut open = self.open();
        let (lane, seat) = open.seat(self.began);
        lane.carry(seat, connection, Box::new(ended), self.carried.token());
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.open().lanes.len()
    }

    /// Has every connection leave, and those that come from now on.
    pub fn leave(&self) {
        let mut open = self.open();
        open.leaving = true;
        open.lanes.iter().for_each(|lane| lane.leave());
        self.carried.close();
    }

    /// Until all have left, once they were told to.
    pub async fn empty(&self) {
        self.carried.wait().await;
    }

    /// Drops those that there still are.
    pub async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.open()).tasks;
        tasks.shutdown().await;
    }
}

impl Open {
    /// A seat in the emptiest lane, once there are as many as processors that work. With more of them what one hive says would wake
    /// many tasks, which costs more than it gains: so few go on one after the other, on a processor that is awake.
    fn seat(&mut self, began: Instant) -> (Arc<Lane>, u32) {
        let abreast = Handle::current().metrics().num_workers();
        let emptiest = self.lanes.iter().max_by_key(|lane| lane.free.len()).filter(|_| self.lanes.len() >= abreast);
        if let Some((lane, at)) = emptiest.and_then(|lane| Some((lane, lane.free.take_one()?))) {
            return (Arc::clone(lane), at);
        }
        let lane = Lane::new();
        if self.leaving {
            lane.leave();
        }
        self.tasks.spawn(Arc::clone(&lane).run(began));
        self.lanes.push(Arc::clone(&lane));
        let first = lane.free.take_one().unwrap_or_default();
        (lane, first)
    }
}
