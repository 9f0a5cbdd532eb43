//! What is granted, and what may be: the pure half of the ledger. Time is passed, nothing is written and nothing waits;
//! each question is answered with the change that it would make.

use super::ask::{Ask, HOLDS_MAX, Wish};
use super::grant::{Change, Grant, Thing, Use};
use super::refusal::Refusal;
use super::scene::{Now, Scene};
use crate::worker::vram::{self, Promise};
use common::WorkerId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// So many aborted reservations are remembered, the newest. Each is the trace of a queen that died or of a hive that did
/// not answer, and matters until some queen has seen it.
const ABORTED: usize = 64;

/// All grants of a hive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    grants: BTreeMap<u64, Grant>,
    /// The newest fencing token that was ever given.
    last_token: u64,
    /// Reservations of several grants of which one here ended before it was confirmed.
    aborted: VecDeque<String>,
}

/// What a worker is to be started with.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The reservation.
    pub reservation: &'a str,
    /// One of its fencing tokens, if the caller named one.
    pub token: Option<u64>,
    /// The worker.
    pub worker: &'a WorkerId,
    /// It was started with it before, and is the same worker still.
    pub again: bool,
    /// GPU memory that the worker asks for itself, in bytes.
    pub bytes: Option<u64>,
}

/// A change that is decided, and the tokens of the grants that are its answer.
pub type Decided = Result<(Change, Vec<u64>), Refusal>;

impl Ledger {
    /// Tokens go on after this one, if they are not beyond it.
    pub fn skip_to(&mut self, last_token: u64) {
        self.last_token = self.last_token.max(last_token);
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &Change) {
        for grant in &change.set {
            self.last_token = self.last_token.max(grant.token);
            self.grants.insert(grant.token, grant.clone());
        }
        for token in &change.ended {
            self.grants.remove(token);
        }
        change.aborted.iter().cloned().for_each(|reservation| self.abort(reservation));
    }

    /// Drops what has expired; whether anything had. None of it needs to be on disk: it follows from what is, and the time.
    pub fn expire(&mut self, now: Duration) -> bool {
        let over: Vec<u64> = self.grants().filter(|grant| grant.is_over(now)).map(|grant| grant.token).collect();
        self.apply(&self.over(over.clone()));
        !over.is_empty()
    }

    /// The machine was started anew: every grant is over.
    pub fn reboot(&mut self) {
        self.apply(&self.over(self.grants.keys().copied().collect()));
    }

    /// Reservations of several grants of which one here ended before it was confirmed.
    pub fn aborted(&self) -> impl Iterator<Item = &String> {
        self.aborted.iter()
    }

    fn abort(&mut self, reservation: String) {
        if self.aborted.contains(&reservation) {
            return;
        }
        if self.aborted.len() == ABORTED {
            self.aborted.pop_front();
        }
        self.aborted.push_back(reservation);
    }

    /// These grants end without their queen having said so.
    fn over(&self, ended: Vec<u64>) -> Change {
        let aborts = ended.iter().filter_map(|token| self.grants.get(token)).filter(|grant| grant.aborts());
        let aborted = aborts.map(|grant| grant.reservation.clone()).collect();
        Change { set: Vec::new(), ended, aborted }
    }

    /// Every grant, in the order of their tokens.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.values()
    }

    /// The newest fencing token that was ever given; 0 before the first.
    pub fn last_token(&self) -> u64 {
        self.last_token
    }

    /// These grants, in this order.
    pub fn named(&self, tokens: &[u64]) -> Vec<Grant> {
        tokens.iter().filter_map(|token| self.grants.get(token).cloned()).collect()
    }

    /// What the grants take of the GPUs. `used` tells how many bytes a worker uses of a GPU.
    pub fn promises(&self, used: &dyn Fn(&str, &str) -> u64) -> Vec<Promise> {
        promises(self.grants(), used)
    }

    /// Grants all wishes, or none. Whoever asks again with the same key, or for the same reservation, gets the same.
    pub fn hold(&self, now: Now, ask: &Ask, scene: &Scene, owned: &dyn Fn(&str) -> Result<(), String>) -> Decided {
        let known = self.asked_before(ask);
        if let Some(first) = known.first() {
            if first.wish == ask.wish {
                return Ok(prolonged(&known, now, ask));
            }
            return Err(match first.key == ask.key && !ask.key.is_empty() {
                true => Refusal::KeyTaken(ask.key.clone()),
                false => Refusal::ReservationTaken(ask.reservation.clone()),
            });
        }
        let alike = self.grants().filter(|grant| (grant.thing == Thing::Key) == ask.is_key()).count();
        if alike + ask.wishes.len() > HOLDS_MAX {
            return Err(Refusal::TooManyHolds(alike));
        }
        let mut promises = scene.promises.clone();
        promises.extend(self.promises(&|worker, gpu| scene.used(worker, gpu)));
        let mut change = Change::default();
        for (wish, part) in ask.wishes.iter().zip(0_u32..) {
            let thing = match wish {
                Wish::Worker(worker) => {
                    let granted = self.grants().chain(&change.set);
                    free(granted, scene, worker)?;
                    Thing::Worker(worker.to_string())
                }
                Wish::Vram { bytes, gpu, headroom } => {
                    let gpu = room(scene, &promises, (*bytes, gpu, *headroom), owned)?;
                    promises.push(Promise { uuid: gpu.clone(), asked: *bytes, used: 0, held: true });
                    Thing::Vram { gpu, bytes: *bytes }
                }
                Wish::Key => Thing::Key,
            };
            let token = self.last_token + 1 + u64::from(part);
            change.set.push(grant(token, part, thing, now, ask));
        }
        let tokens = change.set.iter().map(|grant| grant.token).collect();
        Ok((change, tokens))
    }

    /// Moves the end of a reservation's grants.
    pub fn renew(&self, now: Now, reservation: &str, ttl: Duration, confirm: bool) -> Decided {
        let (until, until_unix) = now.after(ttl);
        let moved = self.of(reservation).cloned().map(|grant| Grant {
            until,
            until_unix,
            tentative: grant.tentative && !confirm,
            ..grant
        });
        let change = Change { set: moved.collect(), ..Change::default() };
        if change.set.is_empty() {
            return Err(Refusal::Unknown(reservation.to_owned()));
        }
        let tokens = change.set.iter().map(|grant| grant.token).collect();
        Ok((change, tokens))
    }

    /// Gives back what no worker uses. `aborting`: its queen gives it up, and other hives may have confirmed it.
    pub fn release(&self, reservation: &str, aborting: bool) -> Change {
        let free = self.of(reservation).filter(|grant| grant.used.is_none());
        let ended: Vec<u64> = free.map(|grant| grant.token).collect();
        let aborted = if aborting && !ended.is_empty() { vec![reservation.to_owned()] } else { Vec::new() };
        Change { set: Vec::new(), ended, aborted }
    }

    /// Hands the GPU memory that a reservation holds to a worker that is being started. It counts as before: what the
    /// worker uses of it, once it does, is then no longer due.
    pub fn take(&self, start: Start<'_>) -> Decided {
        let reservation = start.reservation.to_owned();
        let all: Vec<&Grant> = self.of(&reservation).collect();
        let newest = all.iter().map(|grant| grant.token).max().ok_or(Refusal::Unknown(reservation.clone()))?;
        if let Some(token) = start.token.filter(|token| all.iter().all(|grant| grant.token != *token)) {
            return Err(Refusal::Fenced { token, reservation, newest });
        }
        let memory: Vec<&Grant> = all.into_iter().filter(|grant| grant.vram().is_some()).collect();
        let takes = |grant: &&Grant| grant.used.is_none() || (start.again && grant.is_used_by(start.worker));
        let taken: Vec<&Grant> = memory.iter().copied().filter(takes).collect();
        if taken.is_empty() {
            let by = memory.iter().find_map(|grant| grant.used.as_ref()).map(|used| used.by.clone());
            return Err(by.map_or(Refusal::NoMemory(reservation.clone()), |by| Refusal::Used { reservation, by }));
        }
        let held = taken.iter().filter_map(|grant| grant.vram()).map(|(_, bytes)| bytes).fold(0, u64::saturating_add);
        if let Some(asked) = start.bytes.filter(|asked| *asked > held) {
            return Err(Refusal::TooLittle { reservation, held, asked });
        }
        let tokens = taken.iter().map(|grant| grant.token).collect();
        let news = taken.into_iter().filter(|grant| grant.used.is_none());
        let used = Some(Use { by: start.worker.to_string(), started: false });
        let set = news.map(|grant| Grant { used: used.clone(), tentative: false, ..grant.clone() }).collect();
        Ok((Change { set, ..Change::default() }, tokens))
    }

    /// A start was answered: what it was given lives as long as the worker.
    pub fn started(&self, worker: &WorkerId) -> Change {
        let new = self.begun(worker);
        let used = Some(Use { by: worker.to_string(), started: true });
        Change { set: new.map(|grant| Grant { used: used.clone(), ..grant.clone() }).collect(), ..Change::default() }
    }

    /// A start failed: what it was given is its holder's again, until its old end.
    pub fn give_back(&self, worker: &WorkerId) -> Change {
        let back = self.begun(worker);
        Change { set: back.map(|grant| Grant { used: None, ..grant.clone() }).collect(), ..Change::default() }
    }

    /// A worker has ended for good: so has what it used, and whatever held it. A start that has not been answered yet
    /// decides itself what becomes of what it was given.
    pub fn end(&self, worker: &WorkerId) -> Change {
        let over = |grant: &&Grant| grant.concerns(worker) && grant.used.as_ref().is_none_or(|used| used.started);
        self.over(self.grants().filter(over).map(|grant| grant.token).collect())
    }

    /// When the next grant expires, on the clock of [`Now::boot`].
    pub fn next_end(&self) -> Option<Duration> {
        let ends = self.grants().filter(|grant| grant.used.is_none());
        ends.map(|grant| Duration::from_nanos(grant.until)).min()
    }

    /// What the same key was answered with; else what the reservation has here.
    fn asked_before<'a>(&'a self, ask: &'a Ask) -> Vec<&'a Grant> {
        let keyed = |grant: &&Grant| !ask.key.is_empty() && grant.key == ask.key;
        let known: Vec<&Grant> = self.grants().filter(keyed).collect();
        if known.is_empty() { self.of(&ask.reservation).collect() } else { known }
    }

    fn of<'a>(&'a self, reservation: &'a str) -> impl Iterator<Item = &'a Grant> {
        self.grants().filter(move |grant| grant.reservation == reservation)
    }

    fn begun<'a>(&'a self, worker: &'a WorkerId) -> impl Iterator<Item = &'a Grant> {
        let begun = |grant: &&Grant| grant.used.as_ref().is_some_and(|used| !used.started);
        self.grants().filter(begun).filter(|grant| grant.is_used_by(worker))
    }
}

/// What these grants take of the GPUs: a worker's, which may have several, together.
pub fn promises<'a>(grants: impl Iterator<Item = &'a Grant>, used: &dyn Fn(&str, &str) -> u64) -> Vec<Promise> {
    let mut workers: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut all = Vec::new();
    for grant in grants {
        let Some((gpu, bytes)) = grant.vram() else { continue };
        match &grant.used {
            None => all.push(Promise { uuid: gpu.to_owned(), asked: bytes, used: 0, held: true }),
            Some(used) => {
                let sum = workers.entry((&used.by, gpu)).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
    }
    let promise = |((worker, gpu), asked): ((&str, &str), u64)| Promise {
        uuid: gpu.to_owned(),
        asked,
        used: used(worker, gpu),
        held: false,
    };
    all.extend(workers.into_iter().map(promise));
    all
}

/// Grants that were answered before. Those that are tentative get their whole time again: whoever asks is alive. Not a key
/// that another reservation holds: that is in no record, and who waits for its end would put it off for ever.
fn prolonged(known: &[&Grant], now: Now, ask: &Ask) -> (Change, Vec<u64>) {
    let (until, until_unix) = now.after(ask.ttl);
    let its_own = |grant: &Grant| grant.thing != Thing::Key || grant.reservation == ask.reservation;
    let short = known.iter().filter(|grant| grant.tentative && grant.until < until && its_own(grant));
    let set = short.map(|grant| Grant { until, until_unix, ..(*grant).clone() }).collect();
    (Change { set, ..Change::default() }, known.iter().map(|grant| grant.token).collect())
}

fn grant(token: u64, part: u32, thing: Thing, now: Now, ask: &Ask) -> Grant {
    let (until, until_unix) = now.after(ask.ttl);
    Grant {
        token,
        reservation: ask.reservation.clone(),
        part,
        thing,
        until,
        until_unix,
        holder: ask.holder.clone(),
        key: ask.key.clone(),
        wish: ask.wish,
        // A key ends unconfirmed every time: nothing follows from that.
        size: if ask.is_key() { 0 } else { ask.size },
        tentative: true,
        used: None,
    }
}

/// Whether a worker can be held.
fn free<'a>(mut granted: impl Iterator<Item = &'a Grant>, scene: &Scene, worker: &WorkerId) -> Result<(), Refusal> {
    match scene.workers.get(worker) {
        None => return Err(Refusal::NoSuchWorker(worker.to_string())),
        Some(Err(why)) => return Err(Refusal::NotRunning { worker: worker.to_string(), why: why.clone() }),
        Some(Ok(())) => {}
    }
    let held = Thing::Worker(worker.to_string());
    match granted.find(|grant| grant.thing == held) {
        None => Ok(()),
        Some(grant) => Err(Refusal::Held {
            worker: worker.to_string(),
            reservation: grant.reservation.clone(),
            holder: grant.holder.clone(),
        }),
    }
}

/// The GPU that has room.
fn room(
    scene: &Scene,
    promises: &[Promise],
    (bytes, gpu, headroom): (u64, &str, u64),
    owned: &dyn Fn(&str) -> Result<(), String>,
) -> Result<String, Refusal> {
    let among = if gpu.is_empty() { None } else { Some([scene.gpu(gpu)?]) };
    let ask = vram::Ask { bytes, headroom, among: among.as_ref().map(|among| among.as_slice()), owned };
    let at = vram::pick(&scene.view, scene.at, promises, &|pid| scene.ours.contains(&pid), ask);
    Ok(scene.view.round.devices[at.map_err(Refusal::NoRoom)?].uuid.clone())
}
