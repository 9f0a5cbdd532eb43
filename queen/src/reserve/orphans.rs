//! Gives back what nobody will: holds at hives that did not answer when they were abandoned, and the rest of reservations
//! whose queen died between two renewals.

use super::calls::No;
use super::recent::REMEMBERED;
use super::{Reserving, lock};
use common::HiveId;
use proto::Hold;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How often it is looked whether something is to be given back.
const EVERY: Duration = Duration::from_secs(1);
/// A hive that does not answer is asked for this long; then its holds end by themselves.
const OWED_FOR: Duration = Duration::from_secs(600);
/// At most so many are remembered; the oldest are forgotten first.
const OWED: usize = 1_024;
/// At most so many half-made reservations are watched at once; each is one for some seconds only.
const WATCHED: usize = 4_096;

/// What hives still have to give back.
#[derive(Debug, Default)]
pub struct Owed(VecDeque<(Instant, String, HiveId)>);

impl Owed {
    /// Remembers one.
    pub fn add(&mut self, now: Instant, id: &str, hive: HiveId) {
        if self.0.len() >= OWED {
            self.0.pop_front();
        }
        self.0.push_back((now, id.to_owned(), hive));
    }

    fn take(&mut self, now: Instant) -> Vec<(Instant, String, HiveId)> {
        let late = |since: Instant| now.saturating_duration_since(since) > OWED_FOR;
        self.0.drain(..).filter(|(since, ..)| !late(*since)).collect()
    }
}

/// Reservations that were seen with tentative parts, and on which hives those were.
#[derive(Debug, Default)]
struct Watched(BTreeMap<String, BTreeSet<HiveId>>);

/// A reservation of which tentative parts have gone while others are there.
#[derive(Debug, PartialEq, Eq)]
struct Half {
    id: String,
    /// Where parts were.
    gone: Vec<HiveId>,
    /// Where parts are.
    left: Vec<HiveId>,
}

impl Watched {
    /// Looks at all holds that there are. What is answered is watched on until it is whole or gone.
    fn look(&mut self, held: &[(HiveId, Hold)]) -> Vec<Half> {
        let mut by_id: BTreeMap<&str, Vec<&(HiveId, Hold)>> = BTreeMap::new();
        for part in held {
            by_id.entry(&part.1.reservation).or_default().push(part);
        }
        self.0.retain(|id, _| by_id.contains_key(id.as_str()));
        let mut halves = Vec::new();
        for (id, parts) in by_id {
            let of = |wanted: fn(&Hold) -> bool| -> BTreeSet<HiveId> {
                parts.iter().filter(|(_, hold)| wanted(hold)).map(|(hive, _)| hive.clone()).collect()
            };
            let (tentative, left) = (of(|hold| hold.tentative), of(|_| true));
            if !tentative.is_empty() {
                if self.0.len() < WATCHED || self.0.contains_key(id) {
                    self.0.entry(id.to_owned()).or_default().extend(tentative);
                }
                continue;
            }
            let Some(before) = self.0.get(id) else { continue };
            let gone: Vec<HiveId> = before.difference(&left).cloned().collect();
            if gone.is_empty() {
                self.0.remove(id);
            } else {
                halves.push(Half { id: id.to_owned(), gone, left: left.into_iter().collect() });
            }
        }
        halves
    }
}

impl Reserving {
    /// Runs until `stopping` is cancelled.
    pub async fn tidy(self: Arc<Self>, stopping: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = Watched::default();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for half in watched.look(&self.known(|_| true)) {
                self.end_half(half).await;
            }
            self.ask_again().await;
        }
    }

    /// Gives the rest back when the hives themselves say that the other parts are gone: a record may be missing.
    async fn end_half(&self, half: Half) {
        let answers = self.ways.list(half.gone.clone()).await;
        let is_gone = |holds: &Result<Vec<Hold>, No>| {
            holds.as_ref().is_ok_and(|holds| holds.iter().all(|hold| hold.reservation != half.id))
        };
        if answers.len() == half.gone.len() && answers.iter().all(|(_, holds)| is_gone(holds)) {
            info!(reservation = half.id, "half-made reservation given back");
            self.abandon(&half.id, half.left, true).await;
        }
    }

    async fn ask_again(&self) {
        let owed = lock(&self.owed).take(Instant::now());
        for (since, id, hive) in owed {
            lock(&self.recent).released(Instant::now(), &id);
            let answers = self.ways.release([hive.clone()], &id).await;
            if answers.iter().any(|(_, answer)| matches!(answer, Err(No::Silent(_)))) {
                lock(&self.owed).add(since, &id, hive);
            }
        }
    }
}

// What is given back must not be taken for answered between two rounds.
const _: () = assert!(REMEMBERED.as_millis() > EVERY.as_millis());
