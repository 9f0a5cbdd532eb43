//! Whatever happened, the index answers exactly what a walk over everything answers, and `Explain` agrees with both.

use super::history::{HIVES, Step, World, short_fleet, step};
use super::{reference, *};
use crate::fleet::index::{Flags, IdleFrom, Need, Sieve};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::time::Duration;

/// Histories that are tried; many more with LONG=1.
fn cases() -> u32 {
    if std::env::var_os("LONG").is_some_and(|long| long == "1") { 20_000 } else { 100 }
}

fn wants() -> Vec<Want> {
    let model = |name: &str, rule, idle| Want::Model { name: name.into(), rule, idle };
    let room = |required, headroom, idle| Want::Capacity { required, headroom, idle };
    vec![
        Want::Idle,
        Want::UnusedGpu,
        model("llama-3", ModelRule::Exact, false),
        model("llama-3", ModelRule::IgnoreCase, true),
        model("*l*", ModelRule::Glob, false),
        room(4, 0, false),
        room(0, 3, true),
        room(u64::MAX, 9, false),
    ]
}

fn queries() -> Vec<Query> {
    let orders = [FindOrder::Name, FindOrder::LongestIdle, FindOrder::LeastCpu, FindOrder::MostFreeVram];
    let mut queries: Vec<Query> = wants()
        .into_iter()
        .zip(orders.into_iter().cycle())
        .map(|(want, order)| Query { order, ..query(want) })
        .collect();
    queries.extend(wants().into_iter().map(|want| Query { order: FindOrder::LongestIdle, ..query(want) }));
    queries.push(Query { held_too: true, max_age: SECOND * 30, stale_too: true, ..query(Want::Idle) });
    queries.push(Query { min_idle: Some(SECOND), order: FindOrder::LongestIdle, ..query(Want::Idle) });
    let filter = Filter { hive: HIVES[1].into(), model: "qwen".into(), ..Filter::default() };
    queries.push(Query { filter, ..query(Want::UnusedGpu) });
    let filter = Filter { model: "phi".into(), ..Filter::default() };
    queries.push(Query { filter, held_too: true, ..query(Want::Idle) });
    queries
}

fn capacities() -> Vec<CapacityQuery> {
    let filter = Filter { hive: HIVES[2].into(), ..Filter::default() };
    vec![
        capacity(4, proto::Fit::Best),
        CapacityQuery { headroom: 2, ..capacity(3, proto::Fit::MostFree) },
        CapacityQuery { stale_too: true, max_age: SECOND * 20, ..capacity(0, proto::Fit::First) },
        CapacityQuery { filter, ..capacity(1, proto::Fit::MostFree) },
    ]
}

fn names(workers: &[proto::Worker]) -> Vec<String> {
    let specs = workers.iter().filter_map(|worker| worker.spec.as_ref());
    specs.map(|spec| format!("{}/{}/{}", spec.hive, spec.group, spec.instance)).collect()
}

fn chosen(fleet: &Fleet, now: Instant, question: &Question) -> BTreeSet<String> {
    let all = explain(fleet, now, question, usize::MAX, None).verdicts;
    assert!(all.iter().all(|verdict| verdict.chosen == verdict.objections.is_empty()));
    all.into_iter().filter(|verdict| verdict.chosen).map(|verdict| verdict.name).collect()
}

fn workers_agree(fleet: &Fleet, now: Instant, query: &Query) {
    let expected = reference::workers(fleet, now, query);
    assert_eq!(names(&find(fleet, now, query).workers), expected, "{query:?}");
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = find(fleet, now, &Query { page_size: 2, limit: 5, after, ..query.clone() });
        paged.extend(names(&page.workers));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(paged, expected[..expected.len().min(5)], "in pages: {query:?}");
    let chosen = chosen(fleet, now, &Question::Workers(query.clone()));
    assert_eq!(chosen, expected.into_iter().collect(), "explained: {query:?}");
}

fn gpus_agree(fleet: &Fleet, now: Instant, query: &CapacityQuery) {
    let position = |gpu: &proto::GpuCapacity| gpu.gpu.as_ref().unwrap().uuid[1..].parse::<u32>().unwrap();
    let places = |page: &GpuPage| page.gpus.iter().map(|gpu| (gpu.hive.clone(), position(gpu))).collect::<Vec<_>>();
    let expected = reference::gpus(fleet, now, query);
    assert_eq!(places(&find_capacity(fleet, now, query)), expected, "{query:?}");
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = find_capacity(fleet, now, &CapacityQuery { page_size: 2, after, ..query.clone() });
        paged.extend(places(&page));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(paged, expected, "in pages: {query:?}");
    let chosen = chosen(fleet, now, &Question::Gpus(query.clone()));
    assert_eq!(chosen, expected.iter().map(|(hive, at)| format!("{hive}/G{at}")).collect(), "explained: {query:?}");
}

/// Not what is answered, but the bits themselves: as many as a walk finds, and none for a worker that is gone.
fn bits_agree(fleet: &Fleet, now: Instant) {
    let every = |need| Sieve {
        need,
        held_too: true,
        models: None,
        least_room: None,
        oldest: fleet.index().oldest(None),
        broken_too: true,
    };
    let count = |of: fn(Flags) -> bool| {
        let mut count = 0;
        fleet.walk(now, None, |seen| {
            count += usize::from(of(Flags::of(seen.state(), seen.stats(), seen.hold().is_some())));
        });
        count
    };
    let rows = |sieve: &Sieve| fleet.index().rows(sieve).len();
    assert_eq!(rows(&every(Need::Ready)), count(|flags| flags.ready), "ready");
    assert_eq!(rows(&every(Need::Idle)), count(|flags| flags.ready && flags.idle), "idle");
    assert_eq!(rows(&every(Need::Unused)), count(|flags| flags.ready && flags.unused), "unused");
    assert_eq!(
        rows(&Sieve { held_too: false, ..every(Need::Ready) }),
        count(|flags| flags.ready && !flags.held),
        "held"
    );
    let mut idle_from = Vec::new();
    fleet.walk(now, None, |seen| {
        if Flags::of(seen.state(), seen.stats(), false).ready {
            idle_from.extend(seen.idle_from().map(|at| (fleet.index().idle_from(at), seen.hive().clone())));
        }
    });
    idle_from.sort();
    let longest = fleet.index().longest_idle(&every(Need::Ready), IdleFrom::FIRST, usize::MAX);
    let mut rows: Vec<_> = longest.rows.into_iter().map(|(from, hive, _)| (from, hive.as_ref().clone())).collect();
    rows.sort();
    assert_eq!(rows, idle_from, "since when");
    let named: u32 = fleet.index().models(|_| true).iter().map(|word| word.count_ones()).sum();
    let mut with_model = 0;
    fleet.walk(now, None, |seen| {
        with_model += u32::from(seen.spec().model.is_some() || !seen.spec().model_names.is_empty());
    });
    assert_eq!(named, with_model, "models");
    let moment = fleet.moment(now);
    let (known, live) = fleet.index().census(&moment);
    let all = fleet.hives_after(now, None, usize::MAX);
    let fresh = all.iter().filter(|hive| hive.freshness() == proto::Freshness::Live).count();
    assert_eq!((known, live), (all.len(), fresh), "hives");
}

fn all_agree(fleet: &Fleet, now: Instant) {
    bits_agree(fleet, now);
    queries().iter().for_each(|query| workers_agree(fleet, now, query));
    capacities().iter().for_each(|query| gpus_agree(fleet, now, query));
}

#[test]
fn the_index_answers_what_a_walk_answers() {
    let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    let histories = proptest::collection::vec(step(), 1..40);
    let outcome = TestRunner::new(config).run(&histories, |steps: Vec<Step>| {
        let now = Instant::now();
        let fleet = short_fleet(now);
        let mut world = World::new(&fleet, now);
        for step in steps {
            world.take(step);
            all_agree(&fleet, world.now);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn s1_no_find_answers_an_old_worker_while_frames_come_in() {
    let start = Instant::now();
    let fleet = short_fleet(start);
    let rounds = 300_u64;
    std::thread::scope(|scope| {
        for id in HIVES {
            let fleet = &fleet;
            scope.spawn(move || {
                let mut session = Session::open(fleet, hive(id), start).unwrap();
                for round in 0..rounds {
                    let at = start + Duration::from_millis(round);
                    let rows = (1..=70).filter(|slot| !(u64::from(*slot) + round).is_multiple_of(3));
                    let idle = |slot| row(id, slot, with(Activity::Idle, None));
                    session.snapshot(at, rows.map(idle).collect()).unwrap();
                }
            });
        }
        for round in 0..rounds {
            let now = start + Duration::from_millis(round);
            let found = find(&fleet, now, &query(Want::Idle)).workers;
            let places = names(&found);
            assert!(places.is_sorted_by(|a, b| a != b), "nobody twice");
            let old =
                |worker: &proto::Worker| common::from_duration(worker.age.as_ref().unwrap()).unwrap() > SECOND * 3;
            assert!(!found.iter().any(old));
        }
    });
    all_agree(&fleet, start + Duration::from_millis(rounds));
    assert_eq!(find(&fleet, start + SECOND, &query(Want::Idle)).workers.len() % 4, 0);
}
