//! What follows from a change, for the hive and each of its workers, in one pass: how fresh it is, what the index is told,
//! what waits to be told to watchers.

use super::link::Stirred;
use super::{KnownHive, KnownWorker};
use crate::fleet::age::{Limits, Pardon};
use crate::fleet::index::{Flags, IdleFrom, Index};
use proto::Freshness;
use std::time::Instant;

/// By what freshness is judged.
#[derive(Debug, Clone, Copy)]
pub struct Judging<'a> {
    /// The time.
    pub now: Instant,
    /// How old what may be.
    pub limits: &'a Limits,
    /// When the queen herself did not run.
    pub pardon: &'a Pardon,
}

impl KnownHive {
    /// So many places its workers may have.
    pub fn places(&self) -> usize {
        self.workers.len()
    }

    /// To be called before the lock of this hive is given back, and before [`KnownHive::link`], whenever its record, its
    /// workers or its stream may have changed, or time has passed. Costs a look at each worker; only those that are dirty
    /// are worked out again.
    pub fn settle(&mut self, judging: &Judging<'_>, index: &Index) {
        let fresh = self.freshness_at(judging.now, judging.limits, judging.pardon);
        self.dirty |= fresh != self.freshness;
        self.freshness = fresh;
        self.seat.take(index, &self.id, self.workers.len());
        self.seat.forget_left(index);
        let all = self.dirty && self.seat.retell(index, &self.info);
        let (mut last, mut oldest, mut whole, mut stirred) = (None, self.taken, fresh, Stirred::Nothing);
        for (place, worker) in self.workers.iter_mut().enumerate() {
            let Some(worker) = worker else { continue };
            // Most workers were sampled in the same round.
            let heard = worker.good.unwrap_or(worker.known);
            let own = match last {
                Some((at, freshness)) if at == heard => freshness,
                _ => {
                    oldest = oldest.min(heard);
                    worker.freshness_at(judging.now, judging.limits, judging.pardon)
                }
            };
            last = Some((heard, own));
            let freshness = fresh.max(own);
            worker.dirty |= freshness != worker.freshness;
            worker.freshness = freshness;
            whole = whole.max(freshness);
            if all || worker.dirty {
                let held = self.seat.hold(&worker.id).is_some();
                let stats = if worker.measured { self.numbers.get(place) } else { None };
                let idle_from = worker.idle_from.map_or(IdleFrom::NEVER, |from| index.idle_from(from));
                self.seat.set(place as u32, Flags::of(worker.state, stats, held), idle_from);
                if worker.refiltered {
                    self.seat.set_spec(index, place as u32, &worker.spec);
                }
            }
            stirred = stirred.max(worker.note_change());
        }
        self.stirred = stirred;
        self.live_until = (whole == Freshness::Live).then(|| oldest + judging.limits.stale);
        self.seat.publish(index, self.taken, self.broken);
    }

    /// Whether nothing has changed since it was settled, not even by the passing of time.
    pub fn is_settled(&self, now: Instant) -> bool {
        !self.dirty && self.live_until.is_some_and(|until| now <= until)
    }
}

impl KnownWorker {
    /// Counts a change among what waits; answers what of it waits.
    fn note_change(&mut self) -> Stirred {
        if std::mem::take(&mut self.dirty) {
            self.waiting.add();
        }
        match self.waiting.is_any() || self.hollow {
            true if self.key.is_none() || self.refiltered => Stirred::Shape,
            true => Stirred::Numbers,
            false => Stirred::Nothing,
        }
    }
}
