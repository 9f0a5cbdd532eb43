//! The same key elsewhere: reservations of other queens, or of this one before she was started again.

use super::make::Plan;
use super::wish::Wish;
use super::witnesses::{Others, is_witness};
use super::{Held, Refused, Reserving, in_order, lock};
use crate::fleet::index::Among;
use common::HiveId;
use proto::{Hold, Reservation};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// At most so many hives are asked whether they hold something for a key.
pub const ASKED: usize = 32;
/// How often a rival is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Parts of a reservation that no record has shown for this long are not there.
const WHOLE: Duration = Duration::from_millis(1_500);

/// Whether holds may be renewed.
pub enum Way {
    /// Nobody else has the key.
    Free,
    /// They were given back, and whom they gave way to is gone: plan anew.
    Again,
    /// They were given back: the key has been answered with this.
    Answered(Reservation),
}

impl Reserving {
    /// The reservation with the wish's key, when there is one.
    pub(super) async fn answered_before(&self, wish: &Wish, deadline: Instant) -> Result<Option<Reservation>, Refused> {
        let known = self.known(Among::Key(&wish.key), |_| true);
        let Some(id) = known.iter().map(|(_, hold)| hold.reservation.clone()).min() else { return Ok(None) };
        self.outcome(&id, Vec::new(), wish, deadline).await
    }

    /// Lets another queen's holds with the same key go first, where that is the rule.
    pub(super) async fn give_way(&self, plan: &Plan, wish: &Wish, deadline: Instant) -> Result<Way, Refused> {
        loop {
            let rivals = match self.rivals(plan, wish).await {
                Ok(rivals) => rivals,
                Err(refused) => {
                    self.give_up(plan, wish, false).await;
                    return Err(refused);
                }
            };
            let Some((id, hives)) = rivals.into_iter().next() else { return Ok(Way::Free) };
            let gives_way = id < plan.id;
            if gives_way {
                self.give_up(plan, wish, false).await;
            }
            let outcome = self.outcome(&id, hives, wish, deadline).await;
            if matches!(outcome, Ok(None)) {
                if gives_way {
                    return Ok(Way::Again);
                }
                continue;
            }
            if !gives_way {
                self.give_up(plan, wish, false).await;
            }
            return outcome.map(|reservation| reservation.map_or(Way::Again, Way::Answered));
        }
    }

    /// Other reservations with the wish's key, by id, and the hives that say so. Asked are all hives, in a large fleet the
    /// key's witnesses, and those whose records show the key.
    async fn rivals(&self, plan: &Plan, wish: &Wish) -> Result<Others, Refused> {
        let is_rival = |hold: &Hold| hold.key == wish.key && hold.reservation != plan.id;
        let key = Among::Key(&wish.key);
        // Counted once: whoever is not asked as one of all is asked as a witness.
        let live = self.live();
        let mut rivals = self.bear_witness(plan, wish, live).await?;
        let mut asked = if live <= ASKED { self.all_live() } else { HashSet::new() };
        // The hives of the plan have been asked with the key: they would have answered with the other's holds.
        asked.retain(|hive| plan.parts.iter().all(|(own, _)| own != hive));
        asked.extend(self.known(key, is_rival).into_iter().map(|(hive, _)| hive));
        for (hive, hold) in self.fresh(asked, key, is_rival).await {
            rivals.entry(hold.reservation).or_default().push(hive);
        }
        Ok(rivals)
    }

    fn all_live(&self) -> HashSet<HiveId> {
        let moment = self.fleet.moment(Instant::now());
        let all = self.fleet.index().first_live(&moment, 2 * ASKED, |_| 0);
        all.iter().map(|hive| hive.as_ref().clone()).collect()
    }

    /// What becomes of a reservation with the wish's key: it when it is renewed, `None` when it is gone.
    pub(super) async fn outcome(
        &self,
        id: &str,
        mut hives: Vec<HiveId>,
        wish: &Wish,
        deadline: Instant,
    ) -> Result<Option<Reservation>, Refused> {
        let mut partly_since = None;
        loop {
            hives.extend(self.known(Among::Reservation(id), |_| true).into_iter().map(|(hive, _)| hive));
            let own = |hold: &Hold| hold.reservation == id;
            let known = self.fresh(hives.drain(..).collect(), Among::Reservation(id), own).await;
            if known.is_empty() {
                return Ok(None);
            }
            if known.iter().any(|(_, hold)| hold.wish != wish.digest) {
                return Err(Refused::KeyUsed(wish.key.clone()));
            }
            hives.extend(known.iter().map(|(hive, _)| hive.clone()));
            // Of one that is only witnessed the records do not say yet where it is.
            let held: Vec<Held> = known.into_iter().filter(|(_, hold)| !is_witness(hold)).collect();
            if !held.is_empty() && held.iter().all(|(_, hold)| !hold.tentative) {
                let used = held.iter().any(|(_, hold)| !hold.used_by.is_empty());
                // One whose workers have ended in part is answered with what is left.
                if held.len() >= wish.claims.len() || used {
                    return Ok(Some(self.tell(id, &held)));
                }
                if self.was_aborted(id) {
                    // Whoever made it did not come to its end: nobody has been answered.
                    self.abandon(id, hives.clone(), true).await;
                    return Ok(None);
                }
                if partly_since.get_or_insert_with(Instant::now).elapsed() > WHOLE {
                    // What is missing has ended since it was answered, or is where nobody can look.
                    return Ok(Some(self.tell(id, &held)));
                }
            }
            if Instant::now() >= deadline {
                return Err(Refused::Unreachable("another queen is about to answer this key: try again".to_owned()));
            }
            sleep(LOOK).await;
        }
    }

    /// Whether a hive tells that its part of it ended before it was confirmed.
    fn was_aborted(&self, id: &str) -> bool {
        let mut aborted = false;
        self.fleet
            .walk_hives(Instant::now(), |hive, _| aborted |= hive.aborted_reservations.iter().any(|one| one == id));
        aborted
    }

    /// Holds as these hives list them just now; of hives that do not answer, and of all others, as records say.
    async fn fresh(&self, hives: HashSet<HiveId>, among: Among<'_>, wanted: impl Fn(&Hold) -> bool) -> Vec<Held> {
        let mut held = self.known(among, &wanted);
        if hives.is_empty() {
            return held;
        }
        for (hive, answer) in self.ways.list(hives).await {
            let Ok(holds) = answer else { continue };
            held.retain(|(known, _)| *known != hive);
            let recent = lock(&self.recent);
            let lasting = holds.into_iter().filter(|hold| wanted(hold) && !recent.is_released(&hold.reservation));
            held.extend(lasting.map(|hold| (hive.clone(), hold)));
        }
        in_order(&mut held);
        held
    }
}
