//! The finds of workers: the index names candidates hive by hive, each is judged under its hive's lock, and those that
//! fit are answered in order, page by page.

use super::judge::fits;
use super::order::{Cursor, Rank};
use super::{PAGE_BYTES, Query, Want, rows_with_model};
use crate::fleet::index::{Candidates, IdleFrom, Need, Sieve};
use crate::fleet::{Fleet, Moment, Seen, SeenHive, Spec};
use common::{HiveId, WorkerId};
use prost::Message;
use proto::FindOrder;
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

/// Where more of the longest idle are asked for, all who are idle are looked at.
const BY_INDEX: usize = 4_096;

/// An answer, or a part of one.
#[derive(Debug, Default)]
pub struct Page {
    /// In order.
    pub workers: Vec<proto::Worker>,
    /// Where to go on, when there are more.
    pub next: Option<Cursor>,
}

/// One that fits. Its spec is copied only if it is answered.
#[derive(Debug)]
struct Found {
    place: (Rank, HiveId, WorkerId),
    spec: Arc<Spec>,
    bare: proto::Worker,
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

/// The workers that fit, in order. What comes after the page is not looked at, where the order allows that.
pub fn find(fleet: &Fleet, now: Instant, query: &Query) -> Page {
    let given = query.after.as_ref().map_or(0, |after| after.given);
    let left = if query.limit == 0 { usize::MAX } else { query.limit.saturating_sub(given) };
    let wanted = if query.page_size == 0 { left } else { left.min(query.page_size) };
    if wanted == 0 {
        return Page::default();
    }
    let search = Search { fleet, moment: fleet.moment(now), query, sieve: sieve(fleet, now, query) };
    // One more than is answered tells whether there are more.
    let enough = wanted.saturating_add(1);
    let by_index = query.filter.hive.is_empty() && enough <= BY_INDEX;
    let found = match query.order {
        FindOrder::Unspecified | FindOrder::Name => search.by_name(query.after.as_ref(), enough, |_| true),
        FindOrder::LongestIdle if by_index => search.by_idleness(enough),
        _ => search.by_rank(enough),
    };
    page(found, given, left, wanted, query.page_size > 0)
}

fn page(found: Vec<Found>, given: usize, left: usize, wanted: usize, bounded: bool) -> Page {
    let (total, mut bytes, mut last) = (found.len(), 0, None);
    let mut workers = Vec::with_capacity(total.min(wanted));
    for found in found.into_iter().take(wanted) {
        let worker = proto::Worker { spec: Some(found.spec.whole()), ..found.bare };
        if bounded {
            bytes += worker.encoded_len();
            if bytes > PAGE_BYTES && !workers.is_empty() {
                break;
            }
        }
        last = Some(found.place);
        workers.push(worker);
    }
    let more = workers.len() < total && workers.len() < left;
    let given = given + workers.len();
    let next = last.filter(|_| more).map(|(rank, hive, id)| Cursor { given, rank, hive, id });
    Page { workers, next }
}

/// What the index can tell of a question.
fn sieve(fleet: &Fleet, now: Instant, query: &Query) -> Sieve {
    let index = fleet.index();
    let (need, named, least_room) = match &query.want {
        Want::Idle => (Need::Idle, None, None),
        Want::UnusedGpu => (Need::Unused, None, None),
        Want::Model { name, rule, idle } => (idle_if(*idle), Some((name.as_str(), *rule)), None),
        // More must be free than is asked for.
        Want::Capacity { required, headroom, idle } => {
            let least = required.saturating_add(*headroom).saturating_add(1);
            (idle_if(*idle), None, Some(least))
        }
    };
    Sieve {
        need,
        held_too: query.held_too,
        models: rows_with_model(index, &query.filter.model, named),
        least_room,
        // A worker's sample is never newer than its hive's.
        oldest: index.oldest(now.checked_sub(query.max_age)),
        broken_too: query.stale_too,
    }
}

fn idle_if(idle: bool) -> Need {
    if idle { Need::Idle } else { Need::Ready }
}

struct Search<'a> {
    fleet: &'a Fleet,
    moment: Moment,
    query: &'a Query,
    sieve: Sieve,
}

impl Search<'_> {
    /// Goes through the hives in the order of their names and stops when there are enough.
    fn by_name(&self, after: Option<&Cursor>, enough: usize, wanted: impl Fn(&Seen<'_>) -> bool) -> Vec<Found> {
        let mut found = Vec::new();
        self.each_hive(after.map(|after| &after.hive), enough, |hive, places| {
            let mut fit: Vec<Seen<'_>> = self.fitting(hive, places).filter(&wanted).collect();
            fit.sort_unstable_by_key(|seen| seen.id());
            let seen_before =
                |seen: &&Seen<'_>| after.is_some_and(|after| (seen.hive(), seen.id()) <= (&after.hive, &after.id));
            let rest = fit.iter().filter(|seen| !seen_before(seen)).take(enough - found.len());
            found.extend(rest.map(|seen| self.found(seen)));
            found.len() < enough
        });
        found
    }

    /// Goes through the idle ones in the order of their idleness, then by name through those of which it is not known.
    fn by_idleness(&self, enough: usize) -> Vec<Found> {
        let after = self.query.after.as_ref();
        let mut found = Vec::new();
        if after.is_none_or(|after| after.rank.idle_from().is_some()) {
            found = self.idle(after, enough);
        }
        let unknown_after = after.filter(|after| after.rank.idle_from().is_none());
        if found.len() < enough {
            found.extend(self.by_name(unknown_after, enough - found.len(), |seen| seen.idle_from().is_none()));
        }
        found
    }

    /// Those of which it is known since when they are idle.
    fn idle(&self, after: Option<&Cursor>, enough: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let from = after.and_then(|after| after.rank.idle_from()).unwrap_or(IdleFrom::FIRST);
        self.fleet.visit_longest_idle(&self.moment, &self.sieve, from, enough, |seen| {
            let rank = Rank::of(seen, FindOrder::LongestIdle, self.fleet.started());
            let seen_before =
                after.is_some_and(|after| (&rank, seen.hive(), seen.id()) <= (&after.rank, &after.hive, &after.id));
            let takes = !seen_before && fits(seen, self.query);
            if takes {
                found.push(self.found(seen));
            }
            takes
        });
        found.sort_unstable();
        found.truncate(enough);
        found
    }

    /// Looks at every candidate and keeps the first ones.
    fn by_rank(&self, enough: usize) -> Vec<Found> {
        let mut best: BinaryHeap<Found> = BinaryHeap::new();
        let after = self.query.after.as_ref().map(|after| (&after.rank, &after.hive, &after.id));
        self.each_hive(None, usize::MAX, |hive, places| {
            for seen in self.fitting(hive, places) {
                let rank = Rank::of(&seen, self.query.order, self.fleet.started());
                let place = (&rank, seen.hive(), seen.id());
                let (full, before) = (best.len() >= enough, after.is_some_and(|after| place <= after));
                let beaten = |worst: &Found| place >= (&worst.place.0, &worst.place.1, &worst.place.2);
                if before || (full && best.peek().is_some_and(beaten)) {
                    continue;
                }
                if full {
                    best.pop();
                }
                best.push(self.found(&seen));
            }
            true
        });
        best.into_sorted_vec()
    }

    /// Shows each hive with candidates, in the order of their names and beginning with one, until `look` has seen enough.
    fn each_hive(
        &self,
        first: Option<&HiveId>,
        enough: usize,
        mut look: impl FnMut(SeenHive<'_>, &[Candidates]) -> bool,
    ) {
        if !self.query.filter.hive.is_empty() {
            let Ok(only) = HiveId::parse(&self.query.filter.hive) else { return };
            self.fleet.visit(&self.moment, &only, |hive| look(hive, &Candidates::all(&only, hive.places())));
            return;
        }
        let from = first.map_or(Bound::Unbounded, Bound::Included);
        self.fleet.visit_named(&self.moment, &self.sieve, from, enough, look);
    }

    fn fitting<'b>(&self, hive: SeenHive<'b>, named: &[Candidates]) -> impl Iterator<Item = Seen<'b>> {
        let places = named.iter().flat_map(Candidates::places);
        places.filter_map(move |place| hive.worker(place)).filter(|seen| fits(seen, self.query))
    }

    fn found(&self, seen: &Seen<'_>) -> Found {
        let rank = Rank::of(seen, self.query.order, self.fleet.started());
        let place = (rank, seen.hive().clone(), seen.id().clone());
        Found { place, spec: Arc::clone(seen.spec()), bare: seen.to_wire_bare() }
    }
}
