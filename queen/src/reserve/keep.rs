//! Reservations that exist: found in the records of the hives, moved, given back, listed.

use super::calls::No;
use super::{Held, Refused, Reserving, in_order, lock};
use crate::fleet::index::Among;
use common::HiveId;
use proto::{Freshness, Hold, ReleaseResponse, Reservation};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// What another queen has answered is in the records by then.
const LAG: Duration = Duration::from_millis(1_500);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(250);

impl Reserving {
    /// Holds that records show, or that were answered and no record shows yet; those given back are left out. By hive
    /// and part.
    pub(super) fn known(&self, among: Among<'_>, wanted: impl Fn(&Hold) -> bool) -> Vec<Held> {
        let now = Instant::now();
        let mut recent = lock(&self.recent);
        recent.refresh(&self.fleet, now);
        let is_meant = |hold: &Hold| {
            let named = match among {
                Among::Reservation(id) => hold.reservation == id,
                Among::Key(key) => hold.key == key,
                Among::All => true,
            };
            named && wanted(hold)
        };
        let mut held: Vec<Held> = Vec::new();
        for id in self.fleet.index().holders(among) {
            self.fleet.look_at(now, &id, |hive, freshness| {
                // A tentative hold does not outlive its hive's silence.
                let ended = |hold: &Hold| hold.tentative && freshness == Freshness::Lost;
                let lasting = |hold: &&Hold| is_meant(hold) && !ended(hold) && !recent.is_released(&hold.reservation);
                held.extend(hive.holds.iter().filter(lasting).map(|hold| (id.as_ref().clone(), hold.clone())));
            });
        }
        for (id, hive, holds) in recent.unseen() {
            held.retain(|(on, hold)| !(on == hive && hold.reservation == id));
            held.extend(holds.iter().filter(|hold| is_meant(hold)).map(|hold| (hive.clone(), hold.clone())));
        }
        in_order(&mut held);
        held
    }

    /// Moves the end of a reservation on all its hives.
    ///
    /// # Errors
    /// [`Refused::Unknown`] when it, or a part of it, has expired; [`Refused::Unreachable`] when that cannot be told.
    pub async fn renew(&self, id: &str, ttl: Duration) -> Result<Reservation, Refused> {
        let hives = self.hives_of(id).await?;
        if hives.is_empty() {
            return Err(Refused::Unknown(format!("no reservation {id} is known here: it has expired or was released")));
        }
        let (mut parts, mut silent, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (hive, answer) in self.ways.renew(hives.clone(), id, ttl, false).await {
            match answer {
                Ok(holds) => parts.push((hive, holds)),
                Err(No::Silent(why)) => silent.push(format!("hive {hive}: {why}")),
                Err(No::Refused { sentence, .. }) => gone.push(format!("hive {hive}: {sentence}")),
            }
        }
        if !gone.is_empty() {
            let gone = gone.join("; ");
            return Err(Refused::Unknown(format!(
                "a part of reservation {id} has ended: {gone}; release what is left"
            )));
        }
        if parts.len() < hives.len() {
            silent.sort();
            return Err(Refused::Unreachable(format!(
                "a part of reservation {id} was not moved: {}",
                silent.join("; ")
            )));
        }
        lock(&self.recent).answered(Instant::now(), id, &parts);
        let mut held: Vec<Held> = parts
            .into_iter()
            .flat_map(|(hive, holds)| holds.into_iter().map(move |hold| (hive.clone(), hold)))
            .collect();
        in_order(&mut held);
        Ok(self.tell(id, &held))
    }

    /// Gives a reservation back. Doing it twice is harmless.
    ///
    /// # Errors
    /// [`Refused::Unreachable`] when a hive cannot be asked, or the queen may not know it yet.
    pub async fn release(&self, id: &str) -> Result<ReleaseResponse, Refused> {
        let hives = self.hives_of(id).await?;
        let held = self.known(Among::Reservation(id), |_| true);
        let in_use = held.iter().filter(|(_, hold)| !hold.used_by.is_empty()).count();
        let (mut released, mut silent) = (0_u32, Vec::new());
        for (hive, answer) in self.ways.release(hives.clone(), id, false).await {
            match answer {
                Ok(count) => released = released.saturating_add(count),
                Err(No::Silent(why)) => silent.push(format!("hive {hive}: {why}")),
                // It is not there any more, which is what is wanted.
                Err(No::Refused { .. }) => {}
            }
        }
        if !silent.is_empty() {
            let silent = silent.join("; ");
            return Err(Refused::Unreachable(format!("a part of reservation {id} was not given back: {silent}")));
        }
        // Its key is free with it.
        let key = held.first().map(|(_, hold)| hold.key.as_str()).unwrap_or_default();
        self.ways.release(self.witnesses(key, self.live()).unwrap_or_default(), id, false).await;
        if in_use == 0 {
            lock(&self.recent).released(Instant::now(), id, &hives);
        }
        Ok(ReleaseResponse { released, in_use: u32::try_from(in_use).unwrap_or(u32::MAX) })
    }

    /// The hives that a reservation has holds on; none when it is not known, after having looked for a moment whether a
    /// record shows what another queen has just answered.
    async fn hives_of(&self, id: &str) -> Result<Vec<HiveId>, Refused> {
        let begun = Instant::now();
        loop {
            let parts = self.known(Among::Reservation(id), |_| true);
            let mut hives: Vec<HiveId> = parts.into_iter().map(|(hive, _)| hive).collect();
            // Who has just answered for a part is asked what has become of it.
            hives.extend(lock(&self.recent).hives(id).cloned());
            hives.sort();
            hives.dedup();
            if !hives.is_empty() {
                return Ok(hives);
            }
            if let Some(left) = self.settling(Instant::now()) {
                let left = left.as_secs_f64();
                return Err(Refused::Unreachable(format!(
                    "this queen has just started and may not know reservation {id} yet: try again in {left:.1} s"
                )));
            }
            if begun.elapsed() >= LAG || lock(&self.recent).is_released(id) {
                return Ok(hives);
            }
            sleep(LOOK).await;
        }
    }

    /// All reservations after `after`, in the order of their ids; those whose caller has not been answered are left out.
    pub fn list(&self, after: &str) -> Vec<Reservation> {
        let mut by_id: BTreeMap<String, Vec<Held>> = BTreeMap::new();
        for (hive, hold) in self.known(Among::All, |hold| hold.reservation.as_str() > after) {
            by_id.entry(hold.reservation.clone()).or_default().push((hive, hold));
        }
        by_id.retain(|_, held| held.iter().all(|(_, hold)| !hold.tentative));
        by_id.iter().map(|(id, held)| self.tell(id, held)).collect()
    }
}
