//! What speaks against a worker: the one place that decides who is found and that says why another is not.

use super::objection::Objection;
use super::{Query, Want, idle, model, room};
use crate::fleet::{Seen, matches};
use proto::{Freshness, Readiness, WorkerState};

/// Whether the filter leaves a worker in.
pub fn is_candidate(seen: &Seen<'_>, query: &Query) -> bool {
    matches(&query.filter, seen.spec(), seen.state())
}

/// Whether nothing speaks against it.
pub fn fits(seen: &Seen<'_>, query: &Query) -> bool {
    let mut fits = is_candidate(seen, query);
    if fits {
        objections(seen, query, &mut |_| fits = false);
    }
    fits
}

/// Tells everything that speaks against a worker.
pub fn objections<'a>(seen: &Seen<'a>, query: &'a Query, say: &mut impl FnMut(Objection<'a>)) {
    freshness(seen, query, say);
    if seen.state() != i32::from(WorkerState::Running) {
        say(Objection::NotRunning(seen.state()));
    }
    if seen.stats().is_some_and(|stats| stats.readiness() == Readiness::NotReady) {
        say(Objection::NotReady);
    }
    let mut said_busy = false;
    match &query.want {
        Want::Idle => said_busy = idle::objections(seen, say),
        Want::UnusedGpu => said_busy = idle::gpu_objections(seen, say),
        Want::Model { name, rule, idle } => {
            if *idle {
                said_busy = idle::objections(seen, say);
            }
            model::objections(seen, name, *rule, say);
        }
        Want::Capacity { required, headroom, idle } => {
            if *idle {
                said_busy = idle::objections(seen, say);
            }
            room::objections(seen, *required, *headroom, say);
        }
    }
    if let Some(least) = query.min_idle {
        idle::too_short(seen, least, said_busy, say);
    }
    if let (Some(hold), false) = (seen.hold(), query.held_too) {
        say(Objection::Held(hold));
    }
}

/// By age first: a find goes by it alone unless something worse is known.
fn freshness<'a>(seen: &Seen<'a>, query: &Query, say: &mut impl FnMut(Objection<'a>)) {
    match seen.age() {
        None => return say(Objection::Unsampled),
        Some(age) if age > query.max_age => return say(Objection::TooOld { age, max_age: query.max_age }),
        Some(_) => {}
    }
    if query.stale_too {
        return;
    }
    let freshness = seen.freshness();
    if freshness != Freshness::Live {
        say(Objection::Doubtful { freshness, broken: seen.on().is_broken() });
    }
}
