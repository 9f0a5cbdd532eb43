//! What any client of Watch must do, and nothing more: forget at SnapshotBegin, then apply what it is told.

use super::Moment;
use proto::watch_response::Event;
use proto::{Hive, WatchResponse, Worker};
use std::collections::BTreeMap;

/// A worker or a hive. No worker has a name without a slash, so one map holds both.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A worker.
    Worker(Box<Worker>),
    /// A hive.
    Hive(Box<Hive>),
}

impl Object {
    /// `hive/group/instance`, or the id of a hive.
    pub fn name(&self) -> String {
        match self {
            Self::Worker(worker) => {
                let spec = worker.spec.clone().unwrap_or_default();
                format!("{}/{}/{}", spec.hive, spec.group, spec.instance)
            }
            Self::Hive(hive) => hive.id.clone(),
        }
    }
}

/// A client's copy of the fleet.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// By name.
    pub objects: BTreeMap<String, Object>,
    /// The last one told.
    pub revision: String,
    /// Between SnapshotBegin and SnapshotEnd.
    pub in_snapshot: bool,
    /// A snapshot has been completed, or the stream before this one left off where this one began.
    pub whole: bool,
}

impl Client {
    /// Takes what happened.
    pub fn take(&mut self, moment: &Moment) {
        match moment {
            Moment::Opened(resume_after) => {
                self.in_snapshot = false;
                self.whole &= *resume_after == self.revision && !resume_after.is_empty();
            }
            Moment::Heard(message) => self.hear(message),
            Moment::Ended => {}
        }
    }

    fn hear(&mut self, message: &WatchResponse) {
        match &message.event {
            Some(Event::SnapshotBegin(_)) => {
                self.objects.clear();
                self.revision.clear();
                (self.in_snapshot, self.whole) = (true, false);
            }
            Some(Event::Update(update)) => {
                for object in told(update) {
                    self.objects.insert(object.name(), object);
                }
                for name in update.removed_workers.iter().chain(&update.removed_hives) {
                    self.objects.remove(name);
                }
                self.revision.clone_from(&update.revision);
            }
            Some(Event::SnapshotEnd(end)) => {
                self.revision.clone_from(&end.revision);
                (self.in_snapshot, self.whole) = (false, true);
            }
            Some(Event::Bookmark(bookmark)) => self.revision.clone_from(&bookmark.revision),
            None => {}
        }
    }
}

/// The objects that an update tells of. Slots are names for columns, which have become workers by now.
pub fn told(update: &proto::Update) -> impl Iterator<Item = Object> {
    let unnamed = |worker: &Worker| Worker { slot: 0, ..worker.clone() };
    let workers = update.workers.iter().map(move |worker| Object::Worker(Box::new(unnamed(worker))));
    workers.chain(update.hives.iter().map(|hive| Object::Hive(Box::new(hive.clone()))))
}
