//! Whatever happened, the best that are offered are those of a walk over everything, and what is told of the others is
//! true.

use super::misses::Miss;
use super::*;
use crate::fleet::index::Near;
use crate::fleet::sample::SECOND;
use crate::placement::ModelRule;
use crate::placement::tests::history::{HIVES, Step, World, short_fleet, step};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::Filter;

/// Histories that are tried; many more with LONG=1.
fn cases() -> u32 {
    if std::env::var_os("LONG").is_some_and(|long| long == "1") { 10_000 } else { 60 }
}

fn hive(at: usize) -> HiveId {
    HiveId::parse(HIVES[at]).unwrap()
}

fn workers() -> Vec<WorkerClaim> {
    let any = || WorkerClaim {
        filter: Filter::default(),
        model: String::new(),
        rule: ModelRule::Exact,
        idle: false,
        max_age: None,
    };
    vec![
        any(),
        WorkerClaim { idle: true, ..any() },
        WorkerClaim { model: "llama-3".into(), rule: ModelRule::IgnoreCase, ..any() },
        WorkerClaim { model: "*l*".into(), rule: ModelRule::Glob, idle: true, max_age: Some(SECOND / 2), ..any() },
        WorkerClaim { filter: Filter { hive: HIVES[1].into(), ..Filter::default() }, ..any() },
        WorkerClaim { filter: Filter { model: "qwen".into(), instance: "3".into(), ..Filter::default() }, ..any() },
    ]
}

fn memory() -> Vec<VramClaim> {
    let on =
        |bytes, fit| VramClaim { bytes, headroom: 1, hive: None, labels: HashMap::new(), gpu_uuid: String::new(), fit };
    vec![
        on(3, Fit::Best),
        on(4, Fit::MostFree),
        on(1, Fit::First),
        on(50, Fit::Best),
        VramClaim { hive: Some(hive(2)), ..on(2, Fit::Best) },
        VramClaim { gpu_uuid: "G1".into(), ..on(2, Fit::Unspecified) },
        VramClaim { labels: [("zone".to_owned(), "a".to_owned())].into(), ..on(2, Fit::Best) },
    ]
}

/// What this queen knows beyond the records, by the number of the step.
fn beyond(step: usize) -> (Overlay, Learned) {
    let (mut overlay, mut learned) = (Overlay::default(), Learned::default());
    let worker = |at: usize| Place::Worker(hive(at % 4), WorkerId::new("llm", &(step % 5 + 1).to_string()).unwrap());
    if step.is_multiple_of(2) {
        overlay.taken.insert(worker(0), "r7".into());
        learned.refused.insert(worker(1), "it said so".into());
        overlay.vram.extend((0..HIVES.len()).map(|at| (Place::Gpu(hive(at), format!("G{}", at % 2)), 3)));
    }
    if step.is_multiple_of(3) {
        // All holds of these histories are its.
        overlay.released.insert("r1".into());
        overlay.released_on.extend((0..HIVES.len()).map(hive));
    }
    if step.is_multiple_of(5) {
        learned.silent.insert(hive(3), "it is away".into());
    }
    (overlay, learned)
}

/// The same by looking at everybody.
fn walk(survey: &Survey<'_>, claim: &Claim) -> (Vec<Candidate>, Vec<Miss>) {
    let mut all = Vec::new();
    match claim {
        Claim::Worker(..) => {}
        Claim::AnyWorker(claim) => {
            survey.fleet.walk(survey.moment.now(), None, |seen| all.extend(survey.worker(seen, claim)));
        }
        Claim::Vram(claim) => survey.fleet.visit_all(&survey.moment, |hive| {
            survey.gpus_on(&hive, claim, |gpu| all.push(gpu));
            true
        }),
    }
    let fit = if let Claim::Vram(claim) = claim { claim.fit } else { Fit::Unspecified };
    let mut found: Vec<Candidate> = all.iter().filter_map(|one| one.clone().ok()).collect();
    found.sort_unstable_by(|a, b| compare(a, b, fit));
    (found, all.into_iter().filter_map(Result::err).collect())
}

fn agrees(survey: &Survey<'_>, claim: &Claim) {
    let (all, misses) = walk(survey, claim);
    for kept in [1, 3, 40] {
        let offer = survey.offer(claim, kept);
        let expected = &all[..all.len().min(kept)];
        if matches!(claim, Claim::Vram(_)) {
            // Of those with the same room any will do.
            let free = |some: &[Candidate]| some.iter().map(|one| one.free).collect::<Vec<_>>();
            assert_eq!(free(&offer), free(expected), "{kept} of {claim:?}");
            assert!(offer.iter().all(|one| all.contains(one)), "{claim:?}: {offer:?}");
        } else {
            assert_eq!(offer, expected, "{kept} of {claim:?}");
        }
    }
    let told = survey.told(claim);
    let true_of_some = |sentence: &str| misses.iter().any(|miss| miss.is(sentence));
    assert_eq!(told.starts_with("nothing like it"), misses.is_empty(), "{claim:?}: {told}");
    assert!(misses.is_empty() || told.split("; ").all(true_of_some), "{claim:?}: {told}");
}

#[test]
fn the_index_offers_what_a_walk_offers() {
    let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    let histories = proptest::collection::vec(step(), 1..40);
    let claims: Vec<Claim> =
        workers().into_iter().map(Claim::AnyWorker).chain(memory().into_iter().map(Claim::Vram)).collect();
    let outcome = TestRunner::new(config).run(&histories, |steps: Vec<Step>| {
        let now = Instant::now();
        let fleet = short_fleet(now);
        let mut world = World::new(&fleet, now);
        for (at, step) in steps.into_iter().enumerate() {
            world.take(step);
            let (overlay, learned) = beyond(at);
            let survey = Survey::new(&fleet, world.now, SECOND * 3, &overlay, &learned);
            claims.iter().for_each(|claim| agrees(&survey, claim));
            let kinds = [Near::Held, Near::Free, Near::Unready];
            let rows = kinds.iter().flat_map(|kind| fleet.index().near(*kind, None, usize::MAX));
            let (mut known, mut named) = (0, 0);
            fleet.walk(world.now, None, |_| known += 1);
            for some in rows {
                let there =
                    |hive: crate::fleet::SeenHive<'_>| some.places().filter(|at| hive.worker(*at).is_some()).count();
                named += fleet.visit(&fleet.moment(world.now), &some.hive, there).unwrap_or(0);
            }
            assert_eq!(named, known, "everybody is of one kind");
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
