//! Looks at those whom the index names, in an order, until there are enough.

use super::Fleet;
use super::index::{Candidates, IdleFrom, LongestIdle, Sieve};
use super::view::{Moment, Seen, SeenHive};
use common::HiveId;
use std::ops::Bound;
use std::sync::Arc;

/// At least so many workers are looked up in the order of their idleness; in tests, whose fleets are small, fewer.
const AT_ONCE: usize = if cfg!(test) { 1 } else { 16 };

impl Fleet {
    /// Shows workers that pass and are idle, those that have been for longest before all others, until `enough` were
    /// taken; those that have been idle for equally long are shown together, in no order. `take` must not call the fleet.
    pub fn visit_longest_idle(
        &self,
        moment: &Moment,
        sieve: &Sieve,
        from: IdleFrom,
        enough: usize,
        mut take: impl FnMut(&Seen<'_>) -> bool,
    ) {
        let (mut from, mut some, mut taken) = (from, enough.max(AT_ONCE), 0);
        while taken < enough {
            let LongestIdle { rows, through } = self.index().longest_idle(sieve, from, some);
            for (_, hive, place) in rows {
                let one = self.visit(moment, &hive, |hive| {
                    hive.worker(place).is_some_and(|seen| {
                        // One that has become busy and idle again since is met among the later ones.
                        let idle = seen.idle_from().map(|at| self.index().idle_from(at));
                        idle.is_some_and(|idle| through.is_none_or(|through| idle <= through)) && take(&seen)
                    })
                });
                taken += usize::from(one == Some(true));
            }
            let Some(through) = through else { return };
            (from, some) = (through.next(), some.saturating_mul(2));
        }
    }

    /// Shows each hive with workers that pass, in the order of their names, until `look` has seen enough. `look` must not
    /// call the fleet.
    pub fn visit_named(
        &self,
        moment: &Moment,
        sieve: &Sieve,
        from: Bound<&HiveId>,
        enough: usize,
        mut look: impl FnMut(SeenHive<'_>, &[Candidates]) -> bool,
    ) {
        let mut named = self.index().candidates(sieve, from, enough);
        while let Some(last) = named.last().map(|last| Arc::clone(&last.hive)) {
            for one in named.chunk_by(|a, b| Arc::ptr_eq(&a.hive, &b.hive)) {
                if self.visit(moment, &one[0].hive, |hive| look(hive, one)) == Some(false) {
                    return;
                }
            }
            named = self.index().candidates(sieve, Bound::Excluded(&*last), enough);
        }
    }

    /// Shows every hive, in no order, until `look` has seen enough. `look` must not call the fleet.
    pub fn visit_all(&self, moment: &Moment, mut look: impl FnMut(SeenHive<'_>) -> bool) {
        for hive in &self.hives {
            if !look(SeenHive::new(&hive, moment)) {
                return;
            }
        }
    }
}
