//! What time alone does to the fleet: LIVE, STALE, LOST, removed.

use super::Fleet;
use super::age::{FREEZE_LONGEST, Removal};
use super::known::{Judging, KnownHive};
use common::HiveId;
use proto::Freshness;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What one look at the clock changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Hives that became LOST.
    pub lost: Vec<HiveId>,
    /// Hives that were removed with their workers.
    pub removed: Vec<HiveId>,
    /// Too many fell silent together: nothing is removed for now. Set once, when that begins.
    pub frozen: bool,
}

/// Why a hive is not forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// There is no such hive.
    #[error("no hive {0} is known here")]
    Unknown(HiveId),
    /// It is heard from.
    #[error(
        "hive {id} was heard from {:.1} s ago; one is forgotten when it has been silent for more than {} s",
        silence.as_secs_f64(), lost.as_secs_f64()
    )]
    Heard {
        /// Its name.
        id: HiveId,
        /// For how long it has been silent.
        silence: Duration,
        /// How long a hive must be silent to be LOST.
        lost: Duration,
    },
}

impl Fleet {
    /// Ages everything. To be called every second.
    pub fn expire(&self, now: Instant) -> Expired {
        let (limits, pardon) = (self.bounds.limits, self.pardon(now));
        let mut expired = Expired::default();
        self.feed.rest();
        let (mut silent, mut due, mut overdue, mut known) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for mut entry in self.hives.iter_mut() {
            let hive = entry.value_mut();
            known += 1;
            let before = hive.freshness;
            if !hive.is_settled(now) {
                hive.settle(&Judging { now, limits: &limits, pardon: &pardon }, &self.index);
                hive.link(&self.feed, now, false);
            }
            if hive.freshness == Freshness::Lost && before != Freshness::Lost {
                expired.lost.push(hive.id.clone());
            }
            let silence = pardon.silence(hive.arrived, now);
            if silence > limits.lost && !hive.goodbye {
                silent.push(silence);
            }
            if silence > limits.remove {
                // For nobody removal waits longer, however often others make it wait.
                let list = if silence > limits.remove + FREEZE_LONGEST { &mut overdue } else { &mut due };
                list.push(hive.id.clone());
            }
        }
        match self.freeze.lock().unwrap_or_else(PoisonError::into_inner).judge(&pardon, now, known, silent) {
            Removal::Frozen { new } => expired.frozen = new,
            Removal::Allowed => overdue.append(&mut due),
        }
        expired.removed = overdue.into_iter().filter(|id| self.remove(id, now)).collect();
        self.feed.forget(now);
        expired
    }

    /// Links what waited because nobody watched. To be called by who begins to watch, once he follows the changes.
    pub fn link_waiting(&self, now: Instant) {
        let link = || self.hives.iter_mut().for_each(|mut hive| hive.value_mut().link(&self.feed, now, false));
        self.feed.end_rest(link);
    }

    /// The queen looks at her clock: to be called every [`super::LOOK`]. Answers for how long she herself did not run, where
    /// that was long: nobody was silent then.
    pub fn look(&self, now: Instant) -> Option<Duration> {
        self.pardon.write().unwrap_or_else(PoisonError::into_inner).look(now)
    }

    /// Removes a silent hive and its workers at once, also while removal is frozen. Answers how many workers it had.
    pub fn forget(&self, now: Instant, id: &HiveId) -> Result<usize, Kept> {
        let (lost, pardon) = (self.bounds.limits.lost, self.pardon(now));
        let mut kept = Kept::Unknown(id.clone());
        let mut workers = 0;
        let removed = self.hives.remove_if_mut(id, |_, hive| {
            let silence = pardon.silence(hive.arrived, now);
            if silence <= lost {
                kept = Kept::Heard { id: id.clone(), silence, lost };
                return false;
            }
            workers = hive.count();
            hive.end(&self.feed, &self.index, now);
            true
        });
        removed.map(|_| workers).ok_or(kept)
    }

    /// Removes a hive that is still silent; whether it was.
    fn remove(&self, id: &HiveId, now: Instant) -> bool {
        let (limits, pardon) = (self.bounds.limits, self.pardon(now));
        let silent = |hive: &KnownHive| pardon.silence(hive.arrived, now) > limits.remove;
        // Its objects leave the feed under its lock, or a Register in between would link it twice.
        let removed = self.hives.remove_if_mut(id, |_, hive| {
            let silent = silent(hive);
            if silent {
                hive.end(&self.feed, &self.index, now);
            }
            silent
        });
        removed.is_some()
    }
}
