//! `FindCapacity`: GPUs with room, each for itself: the one with least to spare first, the first in the order of names,
//! or the one with most to spare.

use super::PAGE_BYTES;
use super::objection::Objection;
use crate::fleet::index::{GpuKey, Need, Sieve};
use crate::fleet::room::{self, Room};
use crate::fleet::{Fleet, Moment, SeenHive};
use common::HiveId;
use prost::Message;
use proto::{Filter, Fit, Freshness, GpuCapacity};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At least and at most so many are looked up at a time: most that are looked up fit.
const AT_ONCE: (usize, usize) = (16, 1_024);

/// A whole question about GPUs.
#[derive(Debug, Clone)]
pub struct CapacityQuery {
    /// Which hives are looked at: their names and labels count.
    pub filter: Filter,
    /// Hives whose newest sample is older are left out.
    pub max_age: Duration,
    /// Whether hives in doubt (STALE) may be answered because the caller asked for older samples.
    pub stale_too: bool,
    /// How much, in bytes.
    pub required: u64,
    /// How much must stay free beside it, in bytes.
    pub headroom: u64,
    /// Which comes first.
    pub fit: Fit,
    /// 0: all.
    pub limit: usize,
    /// At most so many in this answer; 0: all.
    pub page_size: usize,
    /// Where the page before ended.
    pub after: Option<GpuCursor>,
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuCursor {
    given: usize,
    free: u64,
    hive: HiveId,
    position: u32,
}

/// An answer, or a part of one.
#[derive(Debug, Default)]
pub struct GpuPage {
    /// In order.
    pub gpus: Vec<GpuCapacity>,
    /// Where to go on, when there are more.
    pub next: Option<GpuCursor>,
}

impl GpuCursor {
    /// Reads what [`GpuCursor`]'s `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [given, free, hive, position] = parts.as_slice() else { return None };
        Some(Self {
            given: given.parse().ok()?,
            free: free.parse().ok()?,
            hive: HiveId::parse(hive).ok()?,
            position: position.parse().ok()?,
        })
    }

    fn key(&self) -> GpuKey {
        GpuKey { free: self.free, hive: Some(Arc::new(self.hive.clone())), position: self.position }
    }
}

impl fmt::Display for GpuCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.given, self.free, self.hive, self.position)
    }
}

/// Whether the filter leaves the GPUs of a hive in.
pub fn is_candidate(hive: &SeenHive<'_>, filter: &Filter) -> bool {
    let labels = &hive.record().labels;
    (filter.hive.is_empty() || filter.hive == hive.id().as_str())
        && filter.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Tells everything that speaks against a GPU.
pub fn objections<'a>(hive: &SeenHive<'a>, at: usize, query: &CapacityQuery, say: &mut impl FnMut(Objection<'a>)) {
    let (age, freshness) = (hive.age(), hive.freshness());
    if age > query.max_age {
        say(Objection::TooOld { age, max_age: query.max_age });
    } else if !query.stale_too && freshness != Freshness::Live {
        say(Objection::Doubtful { freshness, broken: hive.is_broken() });
    }
    let uuid = hive.record().gpus.get(at).map_or("", |gpu| gpu.uuid.as_str());
    match room::of(hive.record(), at) {
        Ok(room) if room.free >= query.required.saturating_add(query.headroom) => {}
        Ok(room) => say(Objection::NoRoom { uuid, room, required: query.required, headroom: query.headroom }),
        Err(unfit) => say(Objection::Unfit { uuid, unfit }),
    }
}

/// The GPUs that have room, in order.
pub fn find_capacity(fleet: &Fleet, now: Instant, query: &CapacityQuery) -> GpuPage {
    let given = query.after.as_ref().map_or(0, |after| after.given);
    let left = if query.limit == 0 { usize::MAX } else { query.limit.saturating_sub(given) };
    let wanted = if query.page_size == 0 { left } else { left.min(query.page_size) };
    if wanted == 0 {
        return GpuPage::default();
    }
    let sieve = Sieve {
        need: Need::Ready,
        held_too: true,
        models: None,
        least_room: Some(query.required.saturating_add(query.headroom)),
        oldest: fleet.index().oldest(now.checked_sub(query.max_age)),
        broken_too: query.stale_too,
    };
    let search = Search { fleet, moment: fleet.moment(now), query, sieve };
    let enough = wanted.saturating_add(1);
    let found = match (query.fit, query.filter.hive.is_empty()) {
        (Fit::First, true) => search.by_name(enough),
        (_, true) => search.by_room(enough),
        (_, false) => search.on_one(enough),
    };
    page(found, given, left, wanted, query.page_size > 0)
}

fn page(found: Vec<(GpuKey, GpuCapacity)>, given: usize, left: usize, wanted: usize, bounded: bool) -> GpuPage {
    let (total, mut bytes, mut last) = (found.len(), 0, None);
    let mut gpus = Vec::with_capacity(total.min(wanted));
    for (key, gpu) in found.into_iter().take(wanted) {
        if bounded {
            bytes += gpu.encoded_len();
            if bytes > PAGE_BYTES && !gpus.is_empty() {
                break;
            }
        }
        last = Some(key);
        gpus.push(gpu);
    }
    let more = gpus.len() < total && gpus.len() < left;
    let given = given + gpus.len();
    let cursor = |key: GpuKey| {
        let hive = key.hive?.as_ref().clone();
        Some(GpuCursor { given, free: key.free, hive, position: key.position })
    };
    GpuPage { gpus, next: last.filter(|_| more).and_then(cursor) }
}

struct Search<'a> {
    fleet: &'a Fleet,
    moment: Moment,
    query: &'a CapacityQuery,
    sieve: Sieve,
}

impl Search<'_> {
    fn by_room(&self, enough: usize) -> Vec<(GpuKey, GpuCapacity)> {
        let (mut found, mut after) = (Vec::new(), self.query.after.as_ref().map(GpuCursor::key));
        let most_first = self.query.fit == Fit::MostFree;
        while found.len() < enough {
            let asked = (enough - found.len()).clamp(AT_ONCE.0, AT_ONCE.1);
            let keys = self.fleet.index().gpus(&self.sieve, after.as_ref(), most_first, asked);
            let ended = keys.len() < asked;
            after = keys.last().cloned();
            for key in keys {
                let Some(hive) = &key.hive else { continue };
                let judge = |hive: SeenHive<'_>| self.judge(&hive, key.position as usize);
                let gpu = self.fleet.visit(&self.moment, hive, judge).flatten();
                // One whose room has changed since has another place in the order.
                found.extend(gpu.filter(|(room, _)| room.free == key.free).map(|(_, gpu)| (key, gpu)));
            }
            if ended {
                break;
            }
        }
        found.truncate(enough);
        found
    }

    fn by_name(&self, enough: usize) -> Vec<(GpuKey, GpuCapacity)> {
        let mut found = Vec::new();
        let mut hives =
            self.next_hives(self.query.after.as_ref().map_or(Bound::Unbounded, |a| Bound::Included(&a.hive)));
        while let Some(last) = hives.last().cloned() {
            for id in hives {
                self.fleet.visit(&self.moment, &id, |hive| self.all_of(&hive, &mut found));
                if found.len() >= enough {
                    found.truncate(enough);
                    return found;
                }
            }
            hives = self.next_hives(Bound::Excluded(&*last));
        }
        found
    }

    fn next_hives(&self, from: Bound<&HiveId>) -> Vec<Arc<HiveId>> {
        self.fleet.index().hives(Some(&self.sieve), from, AT_ONCE.0)
    }

    /// The filter names the hive: no index is needed.
    fn on_one(&self, enough: usize) -> Vec<(GpuKey, GpuCapacity)> {
        let mut found = Vec::new();
        if let Ok(only) = HiveId::parse(&self.query.filter.hive) {
            self.fleet.visit(&self.moment, &only, |hive| self.all_of(&hive, &mut found));
        }
        match self.query.fit {
            Fit::First => {}
            Fit::MostFree => found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a)),
            Fit::Unspecified | Fit::Best => found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b)),
        }
        found.truncate(enough);
        found
    }

    /// Those of a hive that fit and come after the page before, in the order of their positions.
    fn all_of(&self, hive: &SeenHive<'_>, found: &mut Vec<(GpuKey, GpuCapacity)>) {
        let id = Arc::new(hive.id().clone());
        for at in 0..hive.record().gpus.len() {
            let Some((room, gpu)) = self.judge(hive, at) else { continue };
            let key = GpuKey { free: room.free, hive: Some(Arc::clone(&id)), position: at as u32 };
            let seen_before = self.query.after.as_ref().is_some_and(|after| match self.query.fit {
                Fit::First => (hive.id(), key.position) <= (&after.hive, after.position),
                Fit::MostFree => key >= after.key(),
                Fit::Unspecified | Fit::Best => key <= after.key(),
            });
            if !seen_before {
                found.push((key, gpu));
            }
        }
    }

    fn judge(&self, hive: &SeenHive<'_>, at: usize) -> Option<(Room, GpuCapacity)> {
        let mut fits = is_candidate(hive, &self.query.filter);
        if fits {
            objections(hive, at, self.query, &mut |_| fits = false);
        }
        let gpu = hive.record().gpus.get(at).filter(|_| fits)?;
        let room = room::of(hive.record(), at).ok()?;
        let capacity = GpuCapacity {
            hive: hive.id().as_str().to_owned(),
            gpu: Some(gpu.clone()),
            free_bytes: room.free.saturating_sub(self.query.headroom),
            age: Some(common::duration(hive.age())),
        };
        Some((room, capacity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = GpuCursor { given: 3, free: 1 << 34, hive: HiveId::parse("box").unwrap(), position: 2 };
        assert_eq!(GpuCursor::parse(&cursor.to_string()), Some(cursor));
        for bad in ["", "1/2/box", "1/2/box/x", "1/2/Box/0", "1/2/box/0/1"] {
            assert_eq!(GpuCursor::parse(bad), None, "{bad}");
        }
    }
}
