//! The finds as a walk over every worker and GPU, in the plainest words: what the index must answer exactly. Shares no
//! predicate with it.

use crate::fleet::{Fleet, Seen, SeenHive};
use crate::placement::{CapacityQuery, ModelRule, Query, Want};
use common::{HiveId, WorkerId};
use proto::{Activity, Fit, Freshness, Gpu, GpuSampleState, OperationalStatus, Readiness, WorkerState};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

type Place = (HiveId, WorkerId);

/// Names of the workers that fit, in order; limit and pages do not count.
pub fn workers(fleet: &Fleet, now: Instant, query: &Query) -> Vec<String> {
    struct Candidate {
        place: Place,
        idle: Option<Duration>,
        cpu: Option<f64>,
        free: Option<u64>,
    }
    let mut found = Vec::new();
    fleet.walk(now, None, |seen| {
        if is_candidate(seen, query) && is_wanted(seen, &query.want) {
            let free = gpus_of(seen).filter_map(|gpu| free(&seen.on(), gpu)).max();
            let (idle, cpu) = (seen.idle_for(), seen.stats().and_then(|stats| stats.cpu_pct()));
            found.push(Candidate { place: (seen.hive().clone(), seen.id().clone()), idle, cpu, free });
        }
    });
    fn known_first<T>(a: Option<T>, b: Option<T>, by: impl Fn(&T, &T) -> Ordering) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => by(&a, &b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
    found.sort_by(|a, b| {
        let wanted = match query.order {
            proto::FindOrder::Unspecified | proto::FindOrder::Name => Ordering::Equal,
            proto::FindOrder::LongestIdle => known_first(a.idle, b.idle, |a, b| b.cmp(a)),
            proto::FindOrder::LeastCpu => known_first(a.cpu, b.cpu, f64::total_cmp),
            proto::FindOrder::MostFreeVram => known_first(a.free, b.free, |a, b| b.cmp(a)),
        };
        wanted.then_with(|| a.place.cmp(&b.place))
    });
    found.into_iter().map(|found| format!("{}/{}", found.place.0, found.place.1)).collect()
}

fn is_candidate(seen: &Seen<'_>, query: &Query) -> bool {
    let filter = &query.filter;
    let held = seen.on().record().holds.iter().any(|hold| hold.worker == seen.id().to_string());
    seen.state() == i32::from(WorkerState::Running)
        && seen.stats().is_none_or(|stats| stats.readiness() != Readiness::NotReady)
        && seen.age().is_some_and(|age| age <= query.max_age)
        && (query.stale_too || seen.freshness() == Freshness::Live)
        && query.min_idle.is_none_or(|least| seen.idle_for().is_some_and(|idle| idle >= least))
        && (query.held_too || !held)
        && (filter.hive.is_empty() || filter.hive == seen.hive().as_str())
        && (filter.model.is_empty() || names(seen).contains(&filter.model.as_str()))
}

fn names<'a>(seen: &Seen<'a>) -> Vec<&'a str> {
    let spec = seen.spec();
    spec.model.iter().chain(&spec.model_names).map(AsRef::as_ref).collect()
}

fn is_wanted(seen: &Seen<'_>, want: &Want) -> bool {
    let is_idle = || seen.stats().is_some_and(|stats| stats.activity() == Activity::Idle);
    match want {
        Want::Idle => is_idle(),
        Want::UnusedGpu => seen.stats().is_some_and(|stats| {
            let told = matches!(stats.gpu_sample_state(), GpuSampleState::Ok | GpuSampleState::Unspecified);
            told && stats.gpu_util_pct() == Some(0.0)
        }),
        Want::Model { name, rule, idle } => {
            let fits = |is: &&str| match rule {
                ModelRule::Exact => name == is,
                ModelRule::IgnoreCase => name.to_lowercase() == is.to_lowercase(),
                ModelRule::Glob => rule.fits(name, is),
            };
            (!idle || is_idle()) && names(seen).iter().any(fits)
        }
        Want::Capacity { required, headroom, idle } => {
            let enough = |gpu: &Gpu| {
                let wanted = u128::from(*required) + u128::from(*headroom);
                free(&seen.on(), gpu).is_some_and(|free| wanted < u128::from(free))
            };
            (!idle || is_idle()) && gpus_of(seen).any(enough)
        }
    }
}

fn gpus_of<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a Gpu> {
    let used: BTreeSet<String> =
        seen.stats().into_iter().flat_map(|s| s.gpus()).map(|use_| use_.uuid.clone()).collect();
    let its: BTreeSet<String> = used.into_iter().chain(seen.spec().gpu_uuids.iter().map(ToString::to_string)).collect();
    seen.on().record().gpus.iter().filter(move |gpu| its.is_empty() || its.contains(&gpu.uuid))
}

fn free(hive: &SeenHive<'_>, gpu: &Gpu) -> Option<u64> {
    let record = hive.record();
    let believed = matches!(
        record.gpu_sample_state(),
        GpuSampleState::Ok | GpuSampleState::Unspecified | GpuSampleState::NoGpu | GpuSampleState::Unsupported
    );
    let leaves = matches!(record.operational_status(), OperationalStatus::Draining | OperationalStatus::Stopping);
    let divided = record.gpus.iter().any(|part| part.parent_uuid.as_deref() == Some(&gpu.uuid));
    if !believed || leaves || divided || gpu.error.is_some() {
        return None;
    }
    let taken = gpu.memory_used_bytes?.max(gpu.observed_bytes.unwrap_or(0)).saturating_add(gpu.held_bytes);
    Some(gpu.memory_total_bytes?.saturating_sub(taken))
}

/// Hives and positions of the GPUs that fit, in order; limit and pages do not count.
pub fn gpus(fleet: &Fleet, now: Instant, query: &CapacityQuery) -> Vec<(String, u32)> {
    let moment = fleet.moment(now);
    let mut found = Vec::new();
    for hive in fleet.hives_after(now, None, usize::MAX) {
        let id = HiveId::parse(&hive.id).unwrap();
        fleet.visit(&moment, &id, |hive| {
            let fresh = hive.age() <= query.max_age && (query.stale_too || hive.freshness() == Freshness::Live);
            let named = query.filter.hive.is_empty() || query.filter.hive == id.as_str();
            let wanted = query.required.saturating_add(query.headroom);
            for (at, gpu) in hive.record().gpus.iter().enumerate() {
                if let Some(free) = free(&hive, gpu).filter(|free| fresh && named && *free >= wanted) {
                    found.push((free, id.as_str().to_owned(), at as u32));
                }
            }
        });
    }
    match query.fit {
        Fit::First => {}
        Fit::MostFree => found.sort_by(|a, b| b.cmp(a)),
        Fit::Unspecified | Fit::Best => found.sort(),
    }
    found.into_iter().map(|(_, hive, at)| (hive, at)).collect()
}
