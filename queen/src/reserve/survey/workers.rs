//! Workers for a claim: the longest idle first, then, where idleness was not asked for, the others by name.

use super::misses::Misses;
use super::{Candidate, Place, Survey, WorkerClaim};
use crate::fleet::index::{IdleFrom, Near, Need, Sieve};
use crate::fleet::{Seen, SeenHive};
use crate::placement::rows_with_model;
use common::HiveId;
use std::ops::Bound;

/// In so many blocks of rows it is looked for near misses of each kind.
const BLOCKS: usize = 256;
/// So many workers are looked at for near misses of each kind.
const LOOKS: usize = 512;

impl Survey<'_> {
    /// At least the `kept` best, in no order.
    pub(super) fn workers(&self, claim: &WorkerClaim, kept: usize) -> Vec<Candidate> {
        let mut found = Vec::new();
        if !claim.filter.hive.is_empty() {
            self.each_on(&claim.filter.hive, |seen| found.extend(self.worker(seen, claim).and_then(Result::ok)));
            return found;
        }
        let sieve = self.sieve(claim);
        self.fleet.visit_longest_idle(&self.moment, &sieve, IdleFrom::FIRST, kept, |seen| {
            let fit = self.worker(seen, claim).and_then(Result::ok);
            let takes = fit.is_some();
            found.extend(fit);
            takes
        });
        if claim.idle || found.len() >= kept {
            return found;
        }
        self.fleet.visit_named(&self.moment, &sieve, Bound::Unbounded, kept, |hive, places| {
            let workers = places.iter().flat_map(|some| some.places()).filter_map(|place| hive.worker(place));
            let unknown = workers.filter(|seen| seen.idle_from().is_none());
            found.extend(unknown.filter_map(|seen| self.worker(&seen, claim)?.ok()));
            found.len() < kept
        });
        found
    }

    /// Those that fit but for somebody else's hold come first, then those that are busy, then all others.
    pub(super) fn missed_workers(&self, claim: &WorkerClaim, misses: &mut Misses) {
        let add = |seen: &Seen<'_>, misses: &mut Misses| {
            let miss = self.worker(seen, claim).and_then(Result::err);
            miss.into_iter().for_each(|miss| misses.add(miss));
        };
        if !claim.filter.hive.is_empty() {
            return self.each_on(&claim.filter.hive, |seen| add(seen, misses));
        }
        for place in self.learned.refused.keys().chain(self.overlay.taken.keys()) {
            if let Place::Worker(hive, id) = place {
                let look = |hive: SeenHive<'_>| hive.named(id).iter().for_each(|seen| add(seen, misses));
                self.fleet.visit(&self.moment, hive, look);
            }
        }
        let models = self.models(claim);
        for kind in [Near::Held, Near::Free, Near::Unready] {
            let mut left = LOOKS;
            for some in self.fleet.index().near(kind, models.as_deref(), BLOCKS) {
                self.fleet.visit(&self.moment, &some.hive, |hive| {
                    let workers = some.places().filter_map(|place| hive.worker(place));
                    for seen in workers.take(left) {
                        left -= 1;
                        add(&seen, misses);
                    }
                });
            }
        }
        if misses.is_empty() {
            // Before it is said that there is nothing like it, everybody is looked at.
            self.fleet.walk(self.moment.now(), None, |seen| add(seen, misses));
        }
    }

    fn each_on(&self, hive: &str, look: impl FnMut(&Seen<'_>)) {
        if let Ok(only) = HiveId::parse(hive) {
            self.fleet.walk(self.moment.now(), Some(&only), look);
        }
    }

    fn sieve(&self, claim: &WorkerClaim) -> Sieve {
        let max_age = claim.max_age.unwrap_or(self.max_age);
        Sieve {
            need: if claim.idle { Need::Idle } else { Need::Ready },
            // What was given back is free before its record says so.
            held_too: !self.overlay.released.is_empty(),
            models: self.models(claim),
            least_room: None,
            oldest: self.fleet.index().oldest(self.moment.now().checked_sub(max_age)),
            broken_too: false,
        }
    }

    fn models(&self, claim: &WorkerClaim) -> Option<Vec<u64>> {
        let wanted = Some((claim.model.as_str(), claim.rule)).filter(|(name, _)| !name.is_empty());
        rows_with_model(self.fleet.index(), &claim.filter.model, wanted)
    }
}
