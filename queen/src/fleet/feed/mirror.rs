//! What any client of Watch must do, and nothing more: forget at SnapshotBegin, then apply updates. For tests.

use proto::watch_response::Event;
use proto::{Bookmark, HiveBeat, Update, WatchResponse, Worker};
use std::collections::BTreeMap;

/// A client's copy of the fleet.
#[derive(Debug, Default)]
pub struct Mirror {
    /// By `hive/group/instance`.
    pub workers: BTreeMap<String, Worker>,
    /// By name.
    pub hives: BTreeMap<String, proto::Hive>,
    /// The newest of each hive.
    pub beats: BTreeMap<String, HiveBeat>,
    /// The last one told.
    pub revision: String,
    /// Reasons of the snapshots so far.
    pub reasons: Vec<i32>,
    /// Snapshots that were completed.
    pub snapshots: u32,
    /// The last bookmark.
    pub bookmark: Option<Bookmark>,
    /// Bookmarks so far.
    pub bookmarks: u32,
    /// States that were merged.
    pub conflated: u64,
    /// Names removed so far, in order.
    pub removed: Vec<String>,
    /// Updates so far.
    pub updates: u32,
}

impl Mirror {
    /// Takes one message. Revisions must not go back.
    pub fn apply(&mut self, message: WatchResponse) {
        match message.event {
            Some(Event::SnapshotBegin(begin)) => {
                self.workers.clear();
                self.hives.clear();
                self.revision.clear();
                self.reasons.push(begin.reason);
            }
            Some(Event::Update(update)) => self.update(update),
            Some(Event::SnapshotEnd(end)) => {
                self.reach(end.revision);
                self.snapshots += 1;
            }
            Some(Event::Bookmark(bookmark)) => {
                self.reach(bookmark.revision.clone());
                self.bookmark = Some(bookmark);
                self.bookmarks += 1;
            }
            None => {}
        }
    }

    fn update(&mut self, update: Update) {
        self.reach(update.revision);
        self.conflated += update.conflated;
        self.updates += 1;
        for worker in update.workers {
            let spec = worker.spec.as_ref().unwrap();
            self.workers.insert(format!("{}/{}/{}", spec.hive, spec.group, spec.instance), worker);
        }
        for hive in update.hives {
            self.hives.insert(hive.id.clone(), hive);
        }
        for name in update.removed_workers {
            self.workers.remove(&name);
            self.removed.push(name);
        }
        for name in update.removed_hives {
            self.hives.remove(&name);
            self.removed.push(name);
        }
        for beat in update.beats {
            self.beats.insert(beat.hive.clone(), beat);
        }
    }

    fn reach(&mut self, revision: String) {
        let number = |text: &str| text.split(':').nth(1).map_or(0, |number| number.parse::<u64>().unwrap());
        assert!(number(&revision) >= number(&self.revision), "{revision} after {}", self.revision);
        self.revision = revision;
    }

    /// Names of the workers held.
    pub fn names(&self) -> Vec<&str> {
        self.workers.keys().map(String::as_str).collect()
    }
}
