//! Gives back what nobody will: holds at hives that did not answer when they were abandoned, and the rest of reservations
//! whose queen died between two renewals. That one has, the hives tell: where a part of it ended before it was confirmed, its
//! ledger remembers that. So it does not matter which queen looks, or when; one who was not there then does as well.
//!
//! A hive that says so without truth can end reservations whose ids it has learned, having been asked to hold a part or
//! to bear witness for the key; all others have ids of 64 bits of chance.

use super::calls::No;
use super::recent::REMEMBERED;
use super::{Reserving, lock};
use crate::fleet::index::Among;
use common::HiveId;
use proto::Hold;
use std::collections::{BTreeMap, VecDeque};
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

impl Reserving {
    /// Runs until `stopping` is cancelled.
    pub async fn tidy(self: Arc<Self>, stopping: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for (id, hives) in self.halves() {
                info!(reservation = id, "half-made reservation given back");
                self.abandon(&id, hives, true).await;
            }
            self.ask_again().await;
        }
    }

    /// Reservations that are confirmed in part and were aborted elsewhere, and where parts are.
    pub(super) fn halves(&self) -> BTreeMap<String, Vec<HiveId>> {
        let mut parts: BTreeMap<String, Vec<HiveId>> = BTreeMap::new();
        let confirmed = |hold: &Hold| hold.reservation_size > 1 && !hold.tentative && hold.used_by.is_empty();
        for (hive, hold) in self.known(Among::All, confirmed) {
            parts.entry(hold.reservation).or_default().push(hive);
        }
        let mut halves = BTreeMap::new();
        if parts.is_empty() {
            return halves;
        }
        self.fleet.walk_hives(Instant::now(), |hive, _| {
            for id in &hive.aborted_reservations {
                halves.extend(parts.remove_entry(id));
            }
        });
        for hives in halves.values_mut() {
            hives.dedup();
        }
        halves
    }

    async fn ask_again(&self) {
        let owed = lock(&self.owed).take(Instant::now());
        for (since, id, hive) in owed {
            lock(&self.recent).released(Instant::now(), &id, std::slice::from_ref(&hive));
            let answers = self.ways.release([hive.clone()], &id, true).await;
            if answers.iter().any(|(_, answer)| matches!(answer, Err(No::Silent(_)))) {
                lock(&self.owed).add(since, &id, hive);
            }
        }
    }
}

// What is given back must not be taken for answered between two rounds.
const _: () = assert!(REMEMBERED.as_millis() > EVERY.as_millis());
