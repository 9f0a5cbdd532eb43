//! What a queen has in flight, has just answered or just given back, and has not yet seen in the records of the hives.
//! Bounded and short-lived: when it is gone, the records say all there is to say. Pure: `now` is passed.

use super::survey::Place;
use crate::fleet::Fleet;
use common::HiveId;
use proto::Hold;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// What was answered or given back this long ago is in the records of every hive that is heard from.
pub const REMEMBERED: Duration = Duration::from_secs(5);
/// The most that is remembered; a call beyond is refused with a retry time.
const ENTRIES: usize = 16_384;

/// How far one reservation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its hives are being asked.
    InFlight,
    /// Its caller has been answered.
    Answered,
    /// Given back, or about to be.
    Released,
}

/// A part of it, on one hive.
#[derive(Debug)]
struct Part {
    hive: HiveId,
    /// What was asked for, and how much of it in bytes.
    places: Vec<(Place, u64)>,
    /// What was granted, once it was answered.
    holds: Vec<Hold>,
    /// The hive's record has shown a trace of it, or that it has ended: the record says what it takes.
    counted: bool,
    /// The hive's record has shown it as it was answered, or that it has ended.
    seen: bool,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    parts: Vec<Part>,
    since: Instant,
}

/// What plans must not count on, and may.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Workers that are taken though no record says so, and by which reservation.
    pub taken: HashMap<Place, String>,
    /// The same for memory, in bytes.
    pub vram: HashMap<Place, u64>,
    /// Reservations that are given back though records may still show them.
    pub released: HashSet<String>,
    /// Hives of those.
    pub(super) released_on: HashSet<HiveId>,
}

impl Overlay {
    /// Hives on which memory is taken, or was given back, though no record says so.
    pub fn hives(&self) -> HashSet<HiveId> {
        self.vram.keys().map(Place::hive).chain(&self.released_on).cloned().collect()
    }

    /// Memory of a GPU that is taken though no record says so, in bytes.
    pub fn taken_vram(&self, place: &Place) -> u64 {
        self.vram.get(place).copied().unwrap_or(0)
    }

    /// Memory of a GPU that a record counts as held and that has been given back since, in bytes.
    pub fn released_vram(&self, gpu_uuid: &str, holds: &[Hold]) -> u64 {
        let free = |hold: &&Hold| {
            hold.gpu_uuid == gpu_uuid && hold.used_by.is_empty() && self.released.contains(&hold.reservation)
        };
        holds.iter().filter(free).map(|hold| hold.unused_vram_bytes).fold(0, u64::saturating_add)
    }
}

/// The memory.
#[derive(Debug, Default)]
pub struct Recent {
    entries: HashMap<String, Entry>,
    /// When what was answered or given back may be forgotten.
    ends: VecDeque<(Instant, String)>,
}

impl Recent {
    /// Whether there is no room for another one.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES
    }

    /// Remembers that hives are being asked for these places.
    pub fn begin(&mut self, now: Instant, id: &str, asked: Vec<(HiveId, Vec<(Place, u64)>)>) {
        let part = |(hive, places)| Part { places, ..Part::new(hive, Vec::new()) };
        let entry = Entry { stage: Stage::InFlight, parts: asked.into_iter().map(part).collect(), since: now };
        self.entries.insert(id.to_owned(), entry);
    }

    /// Remembers what is answered: also after a renewal, with the new ends.
    pub fn answered(&mut self, now: Instant, id: &str, holds: &[(HiveId, Vec<Hold>)]) {
        let entry = self.entry(now, id);
        (entry.stage, entry.since) = (Stage::Answered, now);
        for (hive, holds) in holds {
            match entry.parts.iter_mut().find(|part| part.hive == *hive) {
                Some(part) => (part.holds, part.seen) = (holds.clone(), false),
                None => entry.parts.push(Part::new(hive.clone(), holds.clone())),
            }
        }
        self.ends.push_back((now, id.to_owned()));
    }

    /// Remembers that it is given back: records that still show it are old.
    pub fn released(&mut self, now: Instant, id: &str, hives: &[HiveId]) {
        let entry = self.entry(now, id);
        (entry.stage, entry.since) = (Stage::Released, now);
        let new = |hive: &&HiveId| entry.parts.iter().all(|part| part.hive != **hive);
        let others: Vec<Part> = hives.iter().filter(new).map(|hive| Part::new(hive.clone(), Vec::new())).collect();
        entry.parts.extend(others);
        self.ends.push_back((now, id.to_owned()));
    }

    fn entry(&mut self, now: Instant, id: &str) -> &mut Entry {
        let new = || Entry { stage: Stage::InFlight, parts: Vec::new(), since: now };
        self.entries.entry(id.to_owned()).or_insert_with(new)
    }

    /// Forgets what is old, and notes what the records show by now.
    pub fn refresh(&mut self, fleet: &Fleet, now: Instant) {
        while let Some((at, id)) = self.ends.front() {
            if now.saturating_duration_since(*at) < REMEMBERED {
                break;
            }
            if self.entries.get(id).is_some_and(|entry| entry.since == *at && entry.stage != Stage::InFlight) {
                self.entries.remove(id);
            }
            self.ends.pop_front();
        }
        for (id, entry) in &mut self.entries {
            if entry.stage == Stage::Released {
                continue;
            }
            for part in entry.parts.iter_mut().filter(|part| !part.seen) {
                let look = |hive: &proto::Hive| part.look(id, hive);
                let (counted, seen) = fleet.look_at(now, &part.hive, |hive, _| look(hive)).unwrap_or_default();
                (part.counted, part.seen) = (part.counted || counted, seen && entry.stage == Stage::Answered);
            }
        }
    }

    /// What a plan must know beyond the records.
    pub fn overlay(&self) -> Overlay {
        let mut overlay = Overlay::default();
        for (id, entry) in &self.entries {
            if entry.stage == Stage::Released {
                overlay.released.insert(id.clone());
                overlay.released_on.extend(entry.parts.iter().map(|part| part.hive.clone()));
                continue;
            }
            for (place, bytes) in entry.parts.iter().filter(|part| !part.counted).flat_map(|part| &part.places) {
                match place {
                    Place::Worker(..) => drop(overlay.taken.insert(place.clone(), id.clone())),
                    Place::Gpu(..) => {
                        let taken = overlay.vram.entry(place.clone()).or_default();
                        *taken = taken.saturating_add(*bytes);
                    }
                }
            }
        }
        overlay
    }

    /// The hives that have answered for it, whatever has become of its parts since.
    pub fn hives(&self, id: &str) -> impl Iterator<Item = &HiveId> {
        let answered = self.entries.get(id).filter(|entry| entry.stage == Stage::Answered);
        answered.into_iter().flat_map(|entry| &entry.parts).map(|part| &part.hive)
    }

    /// Whether it has been given back.
    pub fn is_released(&self, id: &str) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.stage == Stage::Released)
    }

    /// Answered parts that no record shows yet: reservation, hive, holds.
    pub fn unseen(&self) -> impl Iterator<Item = (&str, &HiveId, &[Hold])> {
        let answered = self.entries.iter().filter(|(_, entry)| entry.stage == Stage::Answered);
        answered.flat_map(|(id, entry)| {
            let parts = entry.parts.iter().filter(|part| !part.seen && !part.holds.is_empty());
            parts.map(move |part| (id.as_str(), &part.hive, part.holds.as_slice()))
        })
    }
}

impl Part {
    fn new(hive: HiveId, holds: Vec<Hold>) -> Self {
        Self { hive, places: Vec::new(), holds, counted: false, seen: false }
    }

    /// Whether a record shows this part at all, and whether as new as it was answered. One that knows its tokens and
    /// shows none of it is newer: it has ended there.
    fn look(&self, id: &str, hive: &proto::Hive) -> (bool, bool) {
        let end = |hold: &Hold| hold.expire_time.as_ref().and_then(common::from_timestamp);
        let as_new = |shown: &&Hold| {
            let own = self.holds.iter().find(|own| own.part == shown.part);
            !shown.tentative && (!shown.used_by.is_empty() || own.is_none_or(|own| end(shown) >= end(own)))
        };
        let shown: Vec<&Hold> = hive.holds.iter().filter(|hold| hold.reservation == id).collect();
        let known = |hold: &Hold| (1..=hive.last_fencing_token).contains(&hold.fencing_token);
        if shown.is_empty() && !self.holds.is_empty() && self.holds.iter().all(known) {
            return (true, true);
        }
        (!shown.is_empty(), !shown.is_empty() && shown.iter().all(as_new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_ended_when_a_record_knows_its_token_and_does_not_list_it() {
        let hold = |fencing_token| Hold { reservation: "r".into(), fencing_token, ..Hold::default() };
        let looked = |token, last_fencing_token, shown: Vec<Hold>| {
            let part = Part::new(HiveId::parse("box").unwrap(), vec![hold(token)]);
            part.look("r", &proto::Hive { holds: shown, last_fencing_token, ..proto::Hive::default() })
        };
        assert_eq!(looked(5, 5, vec![]), (true, true));
        assert_eq!(looked(5, 4, vec![]), (false, false), "older than the grant");
        assert_eq!(looked(5, 0, vec![]), (false, false), "a hive that does not say");
        assert_eq!(looked(0, 5, vec![]), (false, false), "a hold without a token");
        assert_eq!(looked(5, 5, vec![hold(5)]), (true, true), "there");
        assert_eq!(looked(5, 5, vec![Hold { tentative: true, ..hold(5) }]), (true, false));
    }
}
