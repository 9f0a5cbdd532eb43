//! GPUs for a claim, in the order of the room that they have.

use super::misses::Misses;
use super::{Candidate, Place, Survey, VramClaim};
use crate::fleet::SeenHive;
use crate::fleet::index::{GpuKey, Need, Sieve};
use common::HiveId;
use proto::Fit;
use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

/// At least so many GPUs or hives are looked up at a time; in tests, whose fleets are small, fewer.
const AT_ONCE: usize = if cfg!(test) { 1 } else { 16 };
/// So many GPUs are looked at for near misses.
const LOOKS: usize = 512;

impl Survey<'_> {
    /// At least the `kept` best, in no order.
    pub(super) fn gpus(&self, claim: &VramClaim, kept: usize) -> Vec<Candidate> {
        let mut found = Vec::new();
        let mut all_of = |hive: &SeenHive<'_>| self.gpus_on(hive, claim, |gpu| found.extend(gpu.ok()));
        if let Some(only) = &claim.hive {
            self.fleet.visit(&self.moment, only, |hive| all_of(&hive));
        } else if !claim.gpu_uuid.is_empty() {
            // The index does not know whose it is.
            self.fleet.visit_all(&self.moment, |hive| {
                all_of(&hive);
                true
            });
        } else {
            // Where records are known to be behind, the index is too.
            let behind = self.overlay.hives();
            for hive in &behind {
                self.fleet.visit(&self.moment, hive, |hive| all_of(&hive));
            }
            let mut others = match claim.fit {
                Fit::First => self.first(claim, kept, &behind),
                _ => self.by_room(claim, kept, &behind),
            };
            found.append(&mut others);
        }
        found
    }

    fn by_room(&self, claim: &VramClaim, kept: usize, behind: &HashSet<HiveId>) -> Vec<Candidate> {
        let needed = claim.bytes.saturating_add(claim.headroom);
        let (mut found, mut after, mut some) = (Vec::new(), None::<GpuKey>, kept.max(AT_ONCE));
        while found.len() < kept {
            let most_first = claim.fit == Fit::MostFree;
            let keys = self.fleet.index().gpus(&with_room(needed), after.as_ref(), most_first, some);
            let ended = keys.len() < some;
            after = keys.last().cloned();
            for key in &keys {
                let Some(hive) = key.hive.as_ref().filter(|hive| !behind.contains(&***hive)) else { continue };
                let look = |hive: SeenHive<'_>| self.gpu(&hive, key.position as usize, claim)?.ok();
                found.extend(self.fleet.visit(&self.moment, hive, look).flatten());
            }
            if ended {
                break;
            }
            some = some.saturating_mul(2);
        }
        found
    }

    /// In the order of the names of hives.
    fn first(&self, claim: &VramClaim, kept: usize, behind: &HashSet<HiveId>) -> Vec<Candidate> {
        let sieve = with_room(claim.bytes.saturating_add(claim.headroom));
        let next = |from: Bound<&HiveId>| self.fleet.index().hives(Some(&sieve), from, AT_ONCE);
        let mut found = Vec::new();
        let mut hives = next(Bound::Unbounded);
        while let (Some(last), true) = (hives.last().cloned(), found.len() < kept) {
            for hive in hives.iter().filter(|hive| !behind.contains(&***hive)) {
                let look = |hive: SeenHive<'_>| self.gpus_on(&hive, claim, |gpu| found.extend(gpu.ok()));
                self.fleet.visit(&self.moment, hive, look);
            }
            hives = next(Bound::Excluded(&*last));
        }
        found
    }

    /// Those with most room are the nearest.
    pub(super) fn missed_gpus(&self, claim: &VramClaim, misses: &mut Misses) {
        let add = |hive: &SeenHive<'_>, misses: &mut Misses| {
            self.gpus_on(hive, claim, |gpu| gpu.err().into_iter().for_each(|miss| misses.add(miss)));
        };
        if let Some(only) = &claim.hive {
            self.fleet.visit(&self.moment, only, |hive| add(&hive, misses));
            return;
        }
        if claim.gpu_uuid.is_empty() {
            let keys = self.fleet.index().gpus(&with_room(0), None, true, LOOKS);
            let refused = self.learned.refused.keys().filter(|place| matches!(place, Place::Gpu(..))).map(Place::hive);
            let nearest: BTreeSet<&HiveId> = keys.iter().filter_map(|key| key.hive.as_deref()).chain(refused).collect();
            for hive in nearest {
                self.fleet.visit(&self.moment, hive, |hive| add(&hive, misses));
            }
        }
        if misses.is_empty() {
            self.fleet.visit_all(&self.moment, |hive| {
                add(&hive, misses);
                true
            });
        }
    }
}

/// Whoever has so much room; how fresh a hive is is looked at later.
fn with_room(least: u64) -> Sieve {
    let (models, oldest) = (None, Default::default());
    Sieve { need: Need::Ready, held_too: true, models, least_room: Some(least), oldest, broken_too: false }
}
