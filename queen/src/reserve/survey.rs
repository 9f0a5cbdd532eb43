//! What the fleet offers for each claim, best first, and why the nearest others do not fit. Pure.

use super::recent::Overlay;
use super::wish::{CLAIMS, Claim, VramClaim, WorkerClaim};
use crate::fleet::room::{self, Unfit};
use crate::fleet::{Fleet, Seen, matches};
use common::{HiveId, WorkerId};
use proto::{Activity, Fit, Freshness, Gpu, OperationalStatus, Readiness, WorkerState};
use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// So many candidates are kept for a claim: with as many as there are claims, others can never take them all.
const KEPT: usize = CLAIMS;
/// So many near misses are named.
const MISSES: usize = 3;

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
#[derive(Debug, Clone)]
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

/// Why one does not fit, and how near it is; the nearest is 0.
type Miss = (u8, String);

/// What there is for one claim.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Best first.
    pub candidates: Vec<Candidate>,
    misses: Vec<Miss>,
}

impl Offer {
    #[cfg(test)]
    pub fn of(places: Vec<(Place, u64)>) -> Self {
        let candidate = |(place, free)| Candidate { place, idle_for: None, free, at: 0 };
        Self { candidates: places.into_iter().map(candidate).collect(), misses: Vec::new() }
    }

    fn miss(&mut self, far: u8, why: impl FnOnce() -> String) {
        // Only the nearest are told: of the rest not even the sentence is made.
        if self.misses.len() < MISSES || self.misses.last().is_some_and(|(last, _)| far < *last) {
            let at = self.misses.partition_point(|(near, _)| *near <= far);
            self.misses.insert(at, (far, why()));
            self.misses.truncate(MISSES);
        }
    }

    /// Why the nearest do not fit: "a; b; c", or that there is nothing.
    pub fn told(&self) -> String {
        let sentences: Vec<&str> = self.misses.iter().map(|(_, why)| why.as_str()).collect();
        if sentences.is_empty() { "nothing like it is known here".to_owned() } else { sentences.join("; ") }
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

/// Looks at the whole fleet once. The answers stand in the order of `claims`.
pub fn survey(
    fleet: &Fleet,
    now: Instant,
    claims: &[&Claim],
    max_age: Duration,
    overlay: &Overlay,
    learned: &Learned,
) -> Vec<Offer> {
    let mut offers = vec![Offer::default(); claims.len()];
    let looking = Looking { max_age, overlay, learned };
    if claims.iter().any(|claim| matches!(claim, Claim::AnyWorker(_))) {
        fleet.walk(now, None, |seen| {
            for (claim, offer) in claims.iter().zip(&mut offers) {
                if let Claim::AnyWorker(claim) = claim {
                    looking.worker(seen, claim, offer);
                }
            }
        });
    }
    if claims.iter().any(|claim| matches!(claim, Claim::Vram(_))) {
        fleet.walk_hives(now, |hive, freshness| {
            for (claim, offer) in claims.iter().zip(&mut offers) {
                if let Claim::Vram(claim) = claim {
                    looking.gpus(hive, freshness, claim, offer);
                }
            }
        });
    }
    for (claim, offer) in claims.iter().zip(&mut offers) {
        if let Claim::Worker(hive, id) = claim {
            let place = Place::Worker(hive.clone(), id.clone());
            offer.candidates = vec![Candidate { place, idle_for: None, free: 0, at: 0 }];
        }
        let fit = if let Claim::Vram(claim) = claim { claim.fit } else { Fit::Unspecified };
        offer.candidates.sort_unstable_by(|a, b| compare(a, b, fit));
        offer.candidates.truncate(KEPT);
    }
    offers
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

/// All LIVE hives.
pub fn live(fleet: &Fleet, now: Instant) -> HashSet<HiveId> {
    let mut found = HashSet::new();
    fleet.walk_hives(now, |hive, freshness| {
        found.extend(HiveId::parse(&hive.id).ok().filter(|_| freshness == Freshness::Live));
    });
    found
}

/// Hives that could serve one of the claims, whatever they do just now: LIVE ones with such a worker or GPU.
pub fn could_serve(fleet: &Fleet, now: Instant, claims: &[&Claim]) -> HashSet<HiveId> {
    let mut found = HashSet::new();
    for claim in claims {
        match claim {
            Claim::Worker(hive, _) => drop(found.insert(hive.clone())),
            Claim::AnyWorker(claim) => fleet.walk(now, None, |seen| {
                if is_meant(seen, claim) && seen.freshness() == Freshness::Live {
                    found.insert(seen.hive().clone());
                }
            }),
            Claim::Vram(claim) => fleet.walk_hives(now, |hive, freshness| {
                let gpu = |gpu: &Gpu| claim.gpu_uuid.is_empty() || gpu.uuid == claim.gpu_uuid;
                if freshness == Freshness::Live && claim.fits_hive(hive) && hive.gpus.iter().any(gpu) {
                    found.extend(HiveId::parse(&hive.id).ok());
                }
            }),
        }
    }
    found
}

fn is_meant(seen: &Seen<'_>, claim: &WorkerClaim) -> bool {
    matches(&claim.filter, seen.spec(), seen.state())
        && (claim.model.is_empty() || seen.spec().models().any(|name| claim.rule.fits(&claim.model, name)))
}

struct Looking<'a> {
    max_age: Duration,
    overlay: &'a Overlay,
    learned: &'a Learned,
}

impl Looking<'_> {
    fn worker(&self, seen: &Seen<'_>, claim: &WorkerClaim, offer: &mut Offer) {
        if !is_meant(seen, claim) {
            return;
        }
        if let Some((far, why)) = self.against(seen, claim) {
            offer.miss(far, || format!("{}/{} {why}", seen.hive(), seen.id()));
            return;
        }
        // Names are copied only for those that are left.
        let place = Place::Worker(seen.hive().clone(), seen.id().clone());
        if let Some(why) = self.learned.refused.get(&place) {
            offer.miss(0, || format!("{place} was refused by its hive: {why}"));
        } else if let Some(by) = self.overlay.taken.get(&place) {
            offer.miss(0, || format!("{place} is held by {by}"));
        } else {
            offer.candidates.push(Candidate { place, idle_for: seen.idle_for(), free: 0, at: 0 });
            self.thin(offer, Fit::Unspecified);
        }
    }

    /// What speaks against a worker; the nearest reasons have the smallest numbers.
    fn against(&self, seen: &Seen<'_>, claim: &WorkerClaim) -> Option<Miss> {
        if let Some(why) = self.hive_against(seen.record(), seen.hive()) {
            return Some(why);
        }
        let max_age = claim.max_age.unwrap_or(self.max_age);
        if seen.age().is_none_or(|age| age > max_age) || seen.freshness() != Freshness::Live {
            let age = seen.age().map_or_else(|| "never".to_owned(), |age| format!("{:.1} s ago", age.as_secs_f64()));
            return Some((5, format!("was last sampled {age}")));
        }
        if seen.state() != i32::from(WorkerState::Running) {
            return Some((4, "is not running".to_owned()));
        }
        let stats = seen.stats();
        if stats.is_some_and(|stats| stats.readiness() == Readiness::NotReady) {
            return Some((3, "is not ready".to_owned()));
        }
        if let Some(by) = seen.reservation().filter(|by| !self.overlay.released.contains(*by)) {
            return Some((0, format!("is held by {by}")));
        }
        if claim.idle && !seen.is_idle() {
            let busy = stats.is_some_and(|stats| stats.activity() == Activity::Busy);
            return Some(if busy { (1, "is busy".to_owned()) } else { (2, "is not known to be idle".to_owned()) });
        }
        None
    }

    fn hive_against(&self, hive: &proto::Hive, id: &HiveId) -> Option<Miss> {
        if let Some(why) = self.learned.silent.get(id) {
            return Some((6, format!("is on a hive that cannot be asked: {why}")));
        }
        if let Some(why) = self.learned.closed.get(id) {
            return Some((6, format!("is on a hive that refuses: {why}")));
        }
        let draining = matches!(hive.operational_status(), OperationalStatus::Draining | OperationalStatus::Stopping);
        draining.then(|| (7, "is on a hive that is draining".to_owned()))
    }

    fn gpus(&self, hive: &proto::Hive, freshness: Freshness, claim: &VramClaim, offer: &mut Offer) {
        let Ok(id) = HiveId::parse(&hive.id) else { return };
        if !claim.fits_hive(hive) {
            return;
        }
        for (at, gpu) in hive.gpus.iter().enumerate() {
            if !claim.gpu_uuid.is_empty() && gpu.uuid != claim.gpu_uuid {
                continue;
            }
            let place = Place::Gpu(id.clone(), gpu.uuid.clone());
            match self.room(hive, freshness, at, claim, &place) {
                Ok(free) => {
                    offer.candidates.push(Candidate { place, idle_for: None, free, at });
                    self.thin(offer, claim.fit);
                }
                Err((far, why)) => offer.miss(far, || format!("{place} {why}")),
            }
        }
    }

    /// What is free on the GPU at a position of a hive's record, when that is enough.
    fn room(
        &self,
        hive: &proto::Hive,
        freshness: Freshness,
        at: usize,
        claim: &VramClaim,
        place: &Place,
    ) -> Result<u64, Miss> {
        if let Some(why) = self.learned.refused.get(place) {
            return Err((0, format!("was refused by its hive: {why}")));
        }
        self.hive_against(hive, place.hive()).map_or(Ok(()), Err)?;
        if freshness != Freshness::Live {
            return Err((253, "is on a hive that has been silent for too long".to_owned()));
        }
        let free = room::of(hive, at).map_err(|unfit| (254, unfit_words(unfit)))?.free;
        let released = hive.gpus.get(at).map_or(0, |gpu| self.overlay.released_vram(&gpu.uuid, &hive.holds));
        let free = free.saturating_add(released).saturating_sub(self.overlay.taken_vram(place));
        let needed = claim.bytes.saturating_add(claim.headroom);
        if free >= needed {
            return Ok(free);
        }
        // The less is missing, the nearer: one step for each doubling.
        let far = 8 + u8::try_from(64 - (needed - free).leading_zeros()).unwrap_or(u8::MAX / 2);
        Err((far, format!("has {} free, {} are needed", size(free), size(needed))))
    }

    /// Keeps long lists short while they grow.
    fn thin(&self, offer: &mut Offer, fit: Fit) {
        if offer.candidates.len() >= 16 * KEPT {
            offer.candidates.sort_unstable_by(|a, b| compare(a, b, fit));
            offer.candidates.truncate(KEPT);
        }
    }
}

fn unfit_words(unfit: Unfit<'_>) -> String {
    match unfit {
        Unfit::Draining | Unfit::Stopping => "is on a hive that is draining".to_owned(),
        Unfit::Broken(error) => format!("cannot be used: {error}"),
        Unfit::Divided => "is divided (MIG), and its slices are looked at one by one".to_owned(),
        Unfit::Driver(_) | Unfit::Untold => "does not tell how much memory is free".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
