//! Reservations: the queen's half. She plans from the fleet, asks the hives, and answers; the hives alone grant, each
//! for itself, in ledgers on their disks. Here nothing is on disk: a reservation is what the hives report, and for some
//! seconds what this queen has in flight or has just answered ([`recent`]).
//!
//! **Two steps.** [`make`] asks every hive of a plan at once for tentative holds of 5 s, and when all have granted,
//! renews them to the asked time at all of them; only then is the caller answered. One Hold carries everything that one
//! hive shall grant. A refusal (somebody was quicker, a record was old) gives everything back and leads to the next
//! plan without what was refused, never to over-commitment. A call ends whatever its caller does: it runs in a task of
//! its own.
//!
//! **One key, one answered grant** (G2):
//! - Two calls with one key at one queen: the second waits for the answer of the first.
//! - A key whose holds are in the records: their hives are asked how it stands, and the reservation is answered again.
//! - Two queens, the same hive: the second gets the holds of the first from the hive. It does not take them over, since
//!   the first may yet give them back; it waits until they are renewed (and answers them) or gone (and goes on).
//! - Two queens, different hives: after its own holds are granted and before it renews them, each asks the other hives
//!   for holds with its key ([`rivals`]); in a large fleet it has its key held by three of them, the same at every queen
//!   ([`witnesses`]). Whoever was granted later sees the earlier one, so at least one of the two sees the other. Of two
//!   that hold, the greater id gives way; the lesser waits until the other has given way, or finds it renewed, gives way
//!   itself and answers that one.
//! - The queen dies between hold and renewal: nothing was answered, and all is gone within 5 s. A retry elsewhere waits
//!   for that, or is told to come back. Between renewal and answer: a retry finds the reservation and is answered it.
//!   Between two renewals: the part that was not renewed ends within 5 s, and its hive says so in its record from then
//!   on; every queen that reads it, one that was started later too, gives the rest back ([`orphans`]), and so does one
//!   that is asked with its key. Where no queen hears both hives the rest lasts until its own end.
//! - A queen that has just started does not know all holds: with a key, and for an id that she does not know, she
//!   answers UNAVAILABLE for a moment, unless the hives that are named are here.
//!
//! What remains. Two queens may both answer one key while the part of the fleet that each reaches differs so much that
//! they share none of a key's three witnesses, or only one that does not answer them; or where one of them counts at
//! most a quarter of [`rivals::ASKED`] hives and the other more than that bound. A hive decides about what it was asked to
//! hold or to witness, and one that lies can hinder those keys and end those reservations, but no others.

mod calls;
mod keep;
mod make;
mod orphans;
mod plan;
mod recent;
mod rivals;
mod survey;
#[cfg(test)]
mod tests;
mod wish;
mod witnesses;

pub use crate::tunnel::NoTunnel;
pub use calls::Ways;
pub use wish::{Wish, parse_ttl};

use crate::bound::Bound;
use crate::fleet::Fleet;
use common::HiveId;
use orphans::Owed;
use proto::{Endpoint, Hold, Reservation, ReservedHold};
use recent::Recent;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Why a reservation is not made, kept or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A field of the request.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: String,
        /// What is wrong, and what would be accepted.
        reason: String,
    },
    /// Nothing fits; the sentence says why the nearest do not.
    #[error("{0}")]
    NothingFits(String),
    /// A bound of this queen.
    #[error("{0}")]
    TooMuch(String),
    /// What was named does not exist.
    #[error("{0}")]
    Unknown(String),
    /// What was named cannot be held now.
    #[error("{0}")]
    NotNow(String),
    /// The key was used for another wish.
    #[error("key {0:?} was used for another wish: use a new key")]
    KeyUsed(String),
    /// Hives cannot be reached, or the queen does not know yet.
    #[error("{0}")]
    Unreachable(String),
}

impl Refused {
    fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What is held.
    pub reservation: Reservation,
    /// Its key was answered before.
    pub existing: bool,
}

/// A part of a reservation, and whose it is.
type Held = (HiveId, Hold);
type Outcome = Option<Result<Answered, Refused>>;

/// A key whose call is in flight.
#[derive(Debug)]
struct InFlight {
    digest: u64,
    outcome: watch::Receiver<Outcome>,
}

/// Makes, keeps and lists reservations.
#[derive(Debug)]
pub struct Reserving {
    fleet: Arc<Fleet>,
    ways: Ways,
    max_age: Duration,
    grace: Duration,
    seed: RandomState,
    count: AtomicU64,
    recent: Mutex<Recent>,
    keys: Mutex<HashMap<String, InFlight>>,
    owed: Mutex<Owed>,
    places: Arc<Bound>,
}

impl Reserving {
    /// Plans from `fleet` and asks by `ways`. Workers whose last sample is older than `max_age` are left out unless a
    /// claim says otherwise; for `grace` after its start the queen does not answer what she may not know yet. Of calls
    /// to Reserve no more are worked on at once than there are `places`, those whose callers have left among them.
    pub fn new(fleet: Arc<Fleet>, ways: Ways, max_age: Duration, grace: Duration, places: Arc<Bound>) -> Self {
        Self {
            fleet,
            ways,
            max_age,
            grace,
            seed: RandomState::new(),
            count: AtomicU64::new(0),
            recent: Mutex::default(),
            keys: Mutex::default(),
            owed: Mutex::default(),
            places,
        }
    }

    /// Holds everything that is wished for, or nothing.
    ///
    /// # Errors
    /// [`Refused`] says why not.
    pub async fn reserve(self: &Arc<Self>, wish: Wish) -> Result<Answered, Refused> {
        let (mut outcome, joined) = self.begin(wish)?;
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        let broken = || Refused::Unreachable("this call broke down; what it held ends within seconds".to_owned());
        let answered = told.ok_or_else(broken)??;
        Ok(Answered { existing: answered.existing || joined, ..answered })
    }

    /// Starts the work in a task of its own, or joins the one with the same key.
    fn begin(self: &Arc<Self>, wish: Wish) -> Result<(watch::Receiver<Outcome>, bool), Refused> {
        let mut keys = lock(&self.keys);
        if let Some(in_flight) = keys.get(&wish.key) {
            let same = in_flight.digest == wish.digest;
            return if same { Ok((in_flight.outcome.clone(), true)) } else { Err(Refused::KeyUsed(wish.key)) };
        }
        let full = || Refused::TooMuch(format!("{} reservations are already being made", self.places.limit()));
        let place = self.places.enter().ok_or_else(full)?;
        let (sender, outcome) = watch::channel(None);
        if !wish.key.is_empty() {
            keys.insert(wish.key.clone(), InFlight { digest: wish.digest, outcome: outcome.clone() });
        }
        let reserving = Arc::clone(self);
        tokio::spawn(async move {
            let key = Key { reserving: &reserving, key: &wish.key };
            let told = reserving.answer(&wish).await;
            // From here on the key is found among what was answered.
            drop(key);
            let nobody = wish.key.is_empty() && sender.receiver_count() == 0;
            if let (true, Ok(lost)) = (nobody, &told) {
                // Its caller has left, and without a key nobody can ask for it again.
                reserving.abandon(&lost.reservation.id, hives(&lost.reservation), true).await;
            }
            sender.send_replace(Some(told));
            drop(place);
        });
        Ok((outcome, false))
    }

    /// An id that no other queen has.
    fn fresh_id(&self) -> String {
        format!("r{:016x}", self.seed.hash_one(self.count.fetch_add(1, Ordering::Relaxed)))
    }

    /// How much longer this queen may not know everything; `None` when she does.
    fn settling(&self, now: Instant) -> Option<Duration> {
        let left = self.grace.checked_sub(now.saturating_duration_since(self.fleet.started()))?;
        (!left.is_zero()).then_some(left)
    }

    /// As the wire tells it; `held` in the order that it shall have.
    fn tell(&self, id: &str, held: &[Held]) -> Reservation {
        let now = Instant::now();
        let endpoint = |hive: &HiveId, hold: &Hold| -> Option<Endpoint> {
            let (_, worker) = common::WorkerId::parse(&hold.worker).ok()?;
            self.fleet.worker(now, hive, &worker)?.spec?.endpoint
        };
        let part = |(hive, hold): &Held| ReservedHold {
            hive: hive.to_string(),
            endpoint: endpoint(hive, hold),
            hold: Some(hold.clone()),
        };
        let first = held.first().map(|(_, hold)| hold);
        let ends = held.iter().filter(|(_, hold)| hold.used_by.is_empty()).filter_map(|(_, hold)| hold.expire_time);
        Reservation {
            id: id.to_owned(),
            key: first.map(|hold| hold.key.clone()).unwrap_or_default(),
            holder: first.map(|hold| hold.holder.clone()).unwrap_or_default(),
            expire_time: ends.min_by_key(|end| (end.seconds, end.nanos)),
            holds: held.iter().map(part).collect(),
        }
    }
}

/// Takes a key out of those in flight, however its call ends.
struct Key<'a> {
    reserving: &'a Reserving,
    key: &'a str,
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        if !self.key.is_empty() {
            lock(&self.reserving.keys).remove(self.key);
        }
    }
}

/// The hives of a reservation, each once.
fn hives(reservation: &Reservation) -> Vec<HiveId> {
    let mut hives: Vec<HiveId> = reservation.holds.iter().filter_map(|held| HiveId::parse(&held.hive).ok()).collect();
    hives.sort_unstable();
    hives.dedup();
    hives
}

/// By hive and part.
fn in_order(held: &mut [Held]) {
    held.sort_by(|(a, one), (b, other)| (a, one.part).cmp(&(b, other.part)));
}

/// Nothing of a caller's runs inside, so what a poisoned lock guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
