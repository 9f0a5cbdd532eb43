//! Grants of this hive's workers and of its GPUs' memory: what they are decided from, and what becomes of them when workers
//! come and go. What is granted is the [`ledger`](crate::ledger)'s.
//!
//! Locks are taken in one order: the ledger's, then the table's. Whoever holds the table's may only call
//! [`Keeper::ended`](crate::ledger::Keeper::ended).

use super::entry::Entry;
use super::room::{self, Taken};
use super::{Inner, Life};
use crate::gpus::GpuView;
use crate::ledger::{self, Ask, Grant, Granted, Held, Refusal, Scene, Wish};
use crate::roster::Slot;
use common::WorkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch::Receiver;
use tracing::{info, warn};

/// What has expired is ended within this time, also when nobody asks; a machine that slept is late by no more.
const LOOK_AT_MOST_AFTER: Duration = Duration::from_millis(500);

impl Life {
    /// Grants all wishes of a request, or none; on disk when it returns.
    pub async fn hold(&self, request: proto::HoldRequest) -> Result<Vec<proto::Hold>, Refusal> {
        let ask = Ask::new(request)?;
        self.granting(move |inner| {
            let view = if ask.needs_gpu() { room::answered(inner) } else { Arc::default() };
            let taken = Taken::new(inner, view);
            let granted = inner.ledger.hold(&ask, || inner.scene(&ask, &taken))?;
            inner.still_there(&granted);
            Ok(taken.shown(&granted))
        })
        .await
    }

    /// Moves the end of what a reservation has here. `confirm`: it is not tentative any more.
    pub async fn renew_hold(&self, request: proto::RenewHoldRequest) -> Result<Vec<proto::Hold>, Refusal> {
        let ttl = ledger::ttl(request.ttl.as_ref())?;
        ledger::reservation(&request.reservation)?;
        self.granting(move |inner| {
            let renewed = inner.ledger.renew(&request.reservation, ttl, request.confirm)?;
            Ok(Taken::new(inner, inner.gpus.borrow().clone()).shown(&renewed))
        })
        .await
    }

    /// Gives back what a reservation has here and no worker uses; how many holds that were.
    pub async fn release_hold(&self, request: proto::ReleaseHoldRequest) -> Result<u32, Refusal> {
        ledger::reservation(&request.reservation)?;
        self.granting(move |inner| {
            let released = inner.ledger.release(&request.reservation, request.aborting);
            Ok(u32::try_from(released).unwrap_or(u32::MAX))
        })
        .await
    }

    /// Everything that is granted now.
    pub async fn list_holds(&self) -> Result<Vec<proto::Hold>, Refusal> {
        self.granting(|inner| {
            let granted = inner.ledger.granted();
            Ok(Taken::new(inner, inner.gpus.borrow().clone()).shown(&granted.grants))
        })
        .await
    }

    /// Every grant, now and whenever that changes.
    pub fn grants(&self) -> Receiver<Arc<Granted>> {
        self.inner().ledger.subscribe()
    }

    /// What is granted, and how many bytes of each GPU are granted or promised and not used yet.
    pub fn held(&self, view: &Arc<GpuView>) -> Held {
        let inner = self.inner();
        let granted = inner.ledger.granted();
        let Granted { grants, last_token, aborted } = granted.as_ref();
        let nothing = Held { last_token: *last_token, aborted: aborted.clone(), ..Held::default() };
        if grants.is_empty() && room::promised_gpus(&mut inner.table(), grants).is_empty() {
            return nothing;
        }
        let taken = Taken::new(inner, view.clone());
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for promise in taken.promises(inner, None, grants) {
            let sum = bytes.entry(promise.uuid.clone()).or_default();
            *sum = sum.saturating_add(promise.due());
        }
        // Of a key that is in use here nobody needs to be told but who asks here with it.
        let mut holds = taken.shown(grants);
        holds.retain(|hold| !hold.worker.is_empty() || !hold.gpu_uuid.is_empty());
        Held { holds, bytes, ..nothing }
    }

    /// Where it may block.
    async fn granting<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let inner = self.inner().clone();
        if inner.stopping.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or(Err(Refusal::Stopping))
    }
}

impl Taken {
    /// Grants as the world is told of them.
    fn shown(&self, grants: &[Grant]) -> Vec<proto::Hold> {
        ledger::shown(grants, &|worker, gpu| self.used(worker, gpu))
    }
}

impl Inner {
    /// What a grant is decided from. Called while nobody else can grant anything.
    fn scene(&self, ask: &Ask, taken: &Taken) -> Scene {
        let granted = self.ledger.granted();
        let wished = ask.wishes.iter().filter_map(|wish| match wish {
            Wish::Worker(id) => Some((id.clone(), self.holdable(id)?)),
            Wish::Vram { .. } | Wish::Key => None,
        });
        Scene {
            at: Instant::now(),
            workers: wished.collect(),
            promises: taken.without_grants(&mut self.table(), None, &granted.grants),
            view: taken.view.clone(),
            used: taken.used.clone(),
            ours: taken.owners.keys().copied().collect(),
        }
    }

    /// Whether a worker can be held, else why not; `None` when there is none of this name.
    fn holdable(&self, id: &WorkerId) -> Option<Result<(), String>> {
        let table = self.table();
        if table.starting.contains(id) {
            return Some(Err("being started".to_owned()));
        }
        if let Some(sight) = table.observed.all.get(id) {
            let runs = sight.member.is_some();
            return Some(if runs { ready(sight.readiness) } else { Err("not running".to_owned()) });
        }
        let entry = table.live.get(id).filter(|entry| !entry.leaving)?;
        Some(standing(entry))
    }

    /// A worker that ended while it was being granted is gone for its holder too.
    fn still_there(&self, granted: &[Grant]) {
        for grant in granted {
            if let ledger::Thing::Worker(name) = &grant.thing
                && let Ok((_, id)) = WorkerId::parse(name)
                && self.holdable(&id).is_none()
            {
                self.ledger.ended(&id);
            }
        }
    }

    /// Decides what becomes of the grants of an earlier hive, when its workers are known again.
    pub fn review_grants(&self) {
        // Nobody starts or ends anything yet.
        let users: BTreeSet<(String, String)> = {
            let table = self.table();
            let recorded = table.live.iter().filter_map(|(id, entry)| Some((id, entry.record.as_ref()?)));
            recorded.map(|(id, record)| (id.to_string(), record.reservation.clone())).collect()
        };
        let lives = |worker: &str, reservation: &str| users.contains(&(worker.to_owned(), reservation.to_owned()));
        self.ledger.review(|ledger| ledger.review(&lives, &|gpu| self.ledger.owns(gpu)));
        let Granted { grants, .. } = &*self.ledger.granted();
        let promised = room::promised_gpus(&mut self.table(), grants);
        for gpu in promised {
            if let Err(error) = self.ledger.owns(&gpu) {
                warn!(gpu, error, "a GPU of which workers here were promised memory is granted by another hive");
            }
        }
        if !grants.is_empty() {
            info!(count = grants.len(), "grants taken over from an earlier run of this hive");
        }
    }

    /// Answers for a start with a reservation: what it was given lives as long as the worker, if that is still there.
    pub fn keep_given(&self, id: &WorkerId, slot: Slot) {
        self.ledger.started(id);
        let there = self.table().entry(id, slot).is_some_and(|entry| !entry.leaving);
        if !there {
            self.ledger.ended(id);
        }
    }

    fn tidy(&self) {
        self.ledger.tidy(|| {
            let granted = self.ledger.granted();
            room::promised_gpus(&mut self.table(), &granted.grants)
        });
    }
}

/// Ends grants when their time or their worker is over, for as long as the hive runs.
pub async fn keep(inner: Arc<Inner>) {
    let mut grants = inner.ledger.subscribe();
    loop {
        let end = inner.ledger.next_end();
        let wait = end.unwrap_or(LOOK_AT_MOST_AFTER).min(LOOK_AT_MOST_AFTER);
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = inner.ledger.bell() => {}
            changed = grants.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait), if end.is_some() => {}
        }
        let tidying = inner.clone();
        // Its error would be a panic, which is told where it happens.
        let _ = tokio::task::spawn_blocking(move || tidying.tidy()).await;
    }
}

fn standing(entry: &Entry) -> Result<(), String> {
    use proto::WorkerState as State;
    match entry.member.state {
        State::Running => ready(entry.standing.borrow().readiness),
        State::Starting | State::Unspecified => Err("being started".to_owned()),
        State::Backoff | State::CrashLoop => Err("waiting for its next start".to_owned()),
        State::Stopping => Err("being stopped".to_owned()),
    }
}

fn ready(readiness: proto::Readiness) -> Result<(), String> {
    match readiness {
        proto::Readiness::NotReady => Err("not ready".to_owned()),
        proto::Readiness::Ready | proto::Readiness::Unspecified => Ok(()),
    }
}
