//! What the fleet offers for a claim, best first, and why the nearest others do not fit. The index names who may fit, so
//! nobody looks at the whole fleet but for the few questions that the index does not know. Nothing is changed here.

mod gpus;
mod judge;
mod misses;
#[cfg(test)]
mod tests;
mod workers;

use super::recent::Overlay;
use super::wish::{Claim, VramClaim, WorkerClaim};
use crate::fleet::{Fleet, Moment, Seen, matches};
use common::{HiveId, WorkerId};
use misses::Misses;
use proto::Fit;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Something that a hive can grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A worker of it.
    Worker(HiveId, WorkerId),
    /// Memory of a GPU of it, by UUID.
    Gpu(HiveId, String),
}

impl Place {
    /// Whose it is.
    pub fn hive(&self) -> &HiveId {
        match self {
            Self::Worker(hive, _) | Self::Gpu(hive, _) => hive,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Worker(hive, id) => write!(f, "{hive}/{id}"),
            Self::Gpu(hive, uuid) => write!(f, "GPU {uuid} of {hive}"),
        }
    }
}

/// One that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which.
    pub place: Place,
    /// Of a worker: how long it has been idle.
    pub idle_for: Option<Duration>,
    /// Of a GPU: what is free, headroom not taken off, in bytes.
    pub free: u64,
    /// Of a GPU: its position in its hive.
    at: usize,
}

impl Candidate {
    #[cfg(test)]
    pub fn of(place: Place, free: u64) -> Self {
        Self { place, idle_for: None, free, at: 0 }
    }

    fn worker(seen: &Seen<'_>) -> Self {
        let place = Place::Worker(seen.hive().clone(), seen.id().clone());
        Self { place, idle_for: seen.idle_for(), free: 0, at: 0 }
    }
}

/// What this call has learned so far.
#[derive(Debug, Default)]
pub struct Learned {
    /// Refused by their hives, in their words.
    pub refused: HashMap<Place, String>,
    /// Hives that refused two places in the same words: those are about the hive.
    pub closed: HashMap<HiveId, String>,
    /// Hives that did not answer, and why.
    pub silent: HashMap<HiveId, String>,
}

impl Learned {
    /// Notes what a hive said about a place.
    pub fn refuse(&mut self, place: Place, sentence: &str) {
        let again =
            |(other, said): (&Place, &String)| other.hive() == place.hive() && *other != place && said == sentence;
        if self.refused.iter().any(again) {
            self.closed.insert(place.hive().clone(), sentence.to_owned());
        }
        self.refused.insert(place, sentence.to_owned());
    }
}

/// A look at the fleet for one plan.
pub struct Survey<'a> {
    fleet: &'a Fleet,
    moment: Moment,
    max_age: Duration,
    overlay: &'a Overlay,
    learned: &'a Learned,
}

impl<'a> Survey<'a> {
    /// Workers that were sampled longer ago than `max_age` are left out unless a claim says otherwise.
    pub fn new(fleet: &'a Fleet, now: Instant, max_age: Duration, overlay: &'a Overlay, learned: &'a Learned) -> Self {
        Self { fleet, moment: fleet.moment(now), max_age, overlay, learned }
    }

    /// The best places for a claim, best first. `kept` are as many as there are claims: the others can never take them
    /// all.
    pub fn offer(&self, claim: &Claim, kept: usize) -> Vec<Candidate> {
        let (mut found, fit) = match claim {
            Claim::Worker(hive, id) => {
                let place = Place::Worker(hive.clone(), id.clone());
                (vec![Candidate { place, idle_for: None, free: 0, at: 0 }], Fit::Unspecified)
            }
            Claim::AnyWorker(claim) => (self.workers(claim, kept), Fit::Unspecified),
            Claim::Vram(claim) => (self.gpus(claim, kept), claim.fit),
        };
        found.sort_unstable_by(|a, b| compare(a, b, fit));
        found.truncate(kept);
        found
    }

    /// Why the nearest do not fit: "a; b; c", or that there is nothing.
    pub fn told(&self, claim: &Claim) -> String {
        let mut misses = Misses::default();
        match claim {
            Claim::Worker(..) => {}
            Claim::AnyWorker(claim) => self.missed_workers(claim, &mut misses),
            Claim::Vram(claim) => self.missed_gpus(claim, &mut misses),
        }
        misses.told()
    }
}

fn compare(a: &Candidate, b: &Candidate, fit: Fit) -> Ordering {
    let wanted = match (&a.place, fit) {
        // What is not known to be idle comes last.
        (Place::Worker(..), _) => Reverse(a.idle_for).cmp(&Reverse(b.idle_for)),
        (_, Fit::Unspecified | Fit::Best) => a.free.cmp(&b.free),
        (_, Fit::First) => (a.place.hive(), a.at).cmp(&(b.place.hive(), b.at)),
        (_, Fit::MostFree) => b.free.cmp(&a.free),
    };
    wanted.then_with(|| a.place.cmp(&b.place))
}

fn is_meant(seen: &Seen<'_>, claim: &WorkerClaim) -> bool {
    matches(&claim.filter, seen.spec(), seen.state())
        && (claim.model.is_empty() || seen.spec().models().any(|name| claim.rule.fits(&claim.model, name)))
}
