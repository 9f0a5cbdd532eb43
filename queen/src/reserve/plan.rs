//! Gives each claim a place of its own, or says which claim has none. Pure.
//!
//! Workers are matched exactly: where every claim can be served, it is. Memory is given to the largest claims first,
//! which may miss a packing that exists.

use super::survey::{Candidate, Place};
use super::wish::{Claim, VramClaim};
use proto::Fit;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// A place for each claim, in their order; or the claim for which there is none.
pub fn assign(claims: &[Claim], offers: &[&[Candidate]]) -> Result<Vec<Place>, usize> {
    let mut given: Vec<Option<Place>> = vec![None; claims.len()];
    // Who has least choice comes first: others move more easily.
    let mut workers: Vec<usize> = (0..claims.len()).filter(|at| !matches!(claims[*at], Claim::Vram(_))).collect();
    workers.sort_by_key(|at| offers[*at].len());
    let mut owners = HashMap::new();
    for at in workers {
        if !find_worker(at, offers, &mut owners, &mut HashSet::new()) {
            return Err(at);
        }
    }
    for (place, at) in owners {
        given[at] = Some(place.clone());
    }
    let mut largest: Vec<(usize, &VramClaim)> = Vec::new();
    for (at, claim) in claims.iter().enumerate() {
        if let Claim::Vram(claim) = claim {
            largest.push((at, claim));
        }
    }
    largest.sort_by_key(|(_, claim)| Reverse(claim.bytes));
    let mut used: HashMap<&Place, u64> = HashMap::new();
    for (at, claim) in largest {
        let place = find_gpu(claim, offers[at], &used).ok_or(at)?;
        *used.entry(place).or_default() += claim.bytes;
        given[at] = Some(place.clone());
    }
    given.into_iter().enumerate().map(|(at, place)| place.ok_or(at)).collect()
}

/// Gives claim `at` a worker; a claim that has it moves to another one of its own where it can.
fn find_worker<'a>(
    at: usize,
    offers: &[&'a [Candidate]],
    owners: &mut HashMap<&'a Place, usize>,
    tried: &mut HashSet<&'a Place>,
) -> bool {
    // The best that is free, before anybody is asked to move.
    let places = || offers[at].iter().map(|candidate| &candidate.place);
    if let Some(place) = places().find(|place| !owners.contains_key(place)) {
        owners.insert(place, at);
        return true;
    }
    for place in places() {
        let Some(owner) = owners.get(place).copied().filter(|_| tried.insert(place)) else { continue };
        if find_worker(owner, offers, owners, tried) {
            owners.insert(place, at);
            return true;
        }
    }
    false
}

fn find_gpu<'a>(claim: &VramClaim, candidates: &'a [Candidate], used: &HashMap<&Place, u64>) -> Option<&'a Place> {
    let needed = claim.bytes.saturating_add(claim.headroom);
    let left = |candidate: &Candidate| {
        let taken = used.get(&candidate.place).copied().unwrap_or(0);
        candidate.free.checked_sub(taken)?.checked_sub(needed)
    };
    let mut fitting = candidates.iter().filter_map(|candidate| Some((left(candidate)?, &candidate.place)));
    let found = match claim.fit {
        Fit::Unspecified | Fit::Best => fitting.min(),
        Fit::First => fitting.next(),
        Fit::MostFree => fitting.min_by_key(|(left, place)| (Reverse(*left), *place)),
    };
    found.map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::ModelRule;
    use crate::reserve::wish::WorkerClaim;
    use common::{HiveId, WorkerId};

    const GIB: u64 = 1 << 30;

    fn worker(name: &str) -> Place {
        Place::Worker(HiveId::parse("box").unwrap(), WorkerId::new("llm", name).unwrap())
    }

    fn gpu(uuid: &str) -> Place {
        Place::Gpu(HiveId::parse("box").unwrap(), uuid.to_owned())
    }

    fn any() -> Claim {
        let (filter, model) = Default::default();
        Claim::AnyWorker(WorkerClaim { filter, model, rule: ModelRule::Exact, idle: false, max_age: None })
    }

    fn vram(gib: u64, fit: Fit) -> Claim {
        let (hive, labels, gpu_uuid) = Default::default();
        Claim::Vram(VramClaim { bytes: gib * GIB, headroom: 0, hive, labels, gpu_uuid, fit })
    }

    fn offer(places: &[(Place, u64)]) -> Vec<Candidate> {
        places.iter().map(|(place, gib)| Candidate::of(place.clone(), gib * GIB)).collect()
    }

    fn workers(names: &[&str]) -> Vec<Candidate> {
        offer(&names.iter().map(|name| (worker(name), 0)).collect::<Vec<_>>())
    }

    #[test]
    fn claims_for_workers_are_served_wherever_that_is_possible() {
        let claims = vec![any(); 3];
        let offers = [workers(&["1", "2"]), workers(&["1"]), workers(&["2", "3"])];
        let given = assign(&claims, &offers.each_ref().map(Vec::as_slice)).unwrap();
        assert_eq!(given, ["2", "1", "3"].map(worker));
        let offers = [workers(&["1", "3"]), workers(&["2", "1"]), workers(&["1", "2"])];
        let given = assign(&claims, &offers.each_ref().map(Vec::as_slice)).unwrap();
        assert_eq!(given, ["3", "2", "1"].map(worker), "the first moves so that the last finds one");
        let offers = [workers(&["1", "2"]), workers(&["1", "2"]), workers(&["1", "2"])];
        assert!(assign(&claims, &offers.each_ref().map(Vec::as_slice)).is_err(), "two workers for three");
        let best = workers(&["9", "1"]);
        assert_eq!(assign(&claims[..1], &[&best]), Ok(vec![worker("9")]), "in the order of the offer");
    }

    #[test]
    fn memory_is_given_once() {
        let gpus = offer(&[(gpu("a"), 10), (gpu("b"), 20)]);
        let two = |first, second, fit| assign(&[vram(first, fit), vram(second, fit)], &[&gpus, &gpus]);
        assert_eq!(two(8, 8, Fit::Best), Ok(vec![gpu("a"), gpu("b")]), "8 + 8 are more than 10");
        assert_eq!(two(4, 6, Fit::Best), Ok(vec![gpu("a"), gpu("a")]));
        assert_eq!(two(4, 18, Fit::First), Ok(vec![gpu("a"), gpu("b")]), "the largest first");
        assert_eq!(two(4, 4, Fit::MostFree), Ok(vec![gpu("b"), gpu("b")]));
        assert!(two(20, 11, Fit::Best).is_err());
    }
}
