//! Keeps the ledger: one lock around what is granted and its file, so that whoever looks for room and whoever takes it are
//! one. Blocks, for as long as the disk takes; only [`Keeper::ended`] and what is read of the news do not.
//!
//! A change is decided, then written, then made: what was not written has not happened. What ends, though, has ended: it
//! is written as soon as the disk takes it, and before its room is given to anybody else.

use super::ask::Ask;
use super::book::{Decided, Ledger, Start};
use super::disk::{Disk, DiskError};
use super::gpu_locks::GpuLocks;
use super::grant::{Change, Grant};
use super::refusal::Refusal;
use super::scene::{Now, Scene};
use super::sync::{Guard, Mutex};
use common::WorkerId;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// What is granted at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Every grant, in the order of their tokens.
    pub grants: Vec<Grant>,
    /// The newest fencing token that was ever given; 0 before the first.
    pub last_token: u64,
    /// Reservations of several grants of which one here ended before it was confirmed.
    pub aborted: Vec<String>,
}

/// The ledger of a hive.
pub struct Keeper {
    state: Mutex<State>,
    locks: GpuLocks,
    pub(super) clock: Clock,
    /// Workers that have ended and whose grants have not been ended yet. A lock of its own, which waits for no disk.
    ended: PlainMutex<BTreeSet<WorkerId>>,
    /// Rings when there is something to do in [`Keeper::tidy`].
    bell: Notify,
    news: watch::Sender<Arc<Granted>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) disk: Disk,
    /// Made, and not on disk yet.
    pending: Change,
    /// That the disk refuses has been told.
    told: bool,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Reads what an earlier hive has granted in this boot of the machine.
    pub fn open(state_dir: &Path, boot_id: &str, locks: GpuLocks, clock: Clock) -> Self {
        Self::within(Mutex::new, state_dir, boot_id, locks, clock)
    }

    pub(super) fn within(
        lock: fn(State) -> Mutex<State>,
        state_dir: &Path,
        boot_id: &str,
        locks: GpuLocks,
        clock: Clock,
    ) -> Self {
        let (disk, ledger) = Disk::open(state_dir, boot_id);
        let state = State { ledger, disk, pending: Change::default(), told: false };
        let keeper = Self {
            state: lock(state),
            locks,
            clock,
            ended: PlainMutex::default(),
            bell: Notify::new(),
            news: watch::Sender::default(),
        };
        let state = keeper.settled();
        keeper.publish(&state);
        drop(state);
        keeper
    }

    /// Every grant, now and whenever that changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Granted>> {
        self.news.subscribe()
    }

    /// Every grant now.
    pub fn granted(&self) -> Arc<Granted> {
        self.news.borrow().clone()
    }

    /// Grants all wishes or none. `scene` is asked once nobody else can grant anything.
    pub fn hold(&self, ask: &Ask, scene: impl FnOnce() -> Scene) -> Result<Vec<Grant>, Refusal> {
        self.decide(|ledger, now| ledger.hold(now, ask, &scene(), &|gpu| self.locks.take(gpu)))
    }

    /// Moves the end of a reservation's grants.
    pub fn renew(&self, reservation: &str, ttl: Duration, confirm: bool) -> Result<Vec<Grant>, Refusal> {
        self.decide(|ledger, now| ledger.renew(now, reservation, ttl, confirm))
    }

    /// Gives back what a reservation has and no worker uses; how many grants that were. `aborting`: see
    /// [`Ledger::release`].
    pub fn release(&self, reservation: &str, aborting: bool) -> usize {
        let mut state = self.settled();
        let change = state.ledger.release(reservation, aborting);
        let count = change.ended.len();
        self.make(&mut state, change);
        count
    }

    /// Hands what a reservation holds to a worker that is being started. Until [`Keeper::started`] it can be given back.
    pub fn take(&self, start: Start<'_>) -> Result<Vec<Grant>, Refusal> {
        self.decide(|ledger, _| ledger.take(start))
    }

    /// Promises room that is no grant: `decide` is called with all grants while nobody else can grant anything.
    pub fn promise<T, E>(&self, decide: impl FnOnce(&[Grant]) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Refusal>,
    {
        let mut state = self.settled();
        // Room that was just given back is given to nobody before the disk knows.
        self.commit(&mut state, &Change::default())?;
        let grants: Vec<Grant> = state.ledger.grants().cloned().collect();
        decide(&grants)
    }

    /// Whether this hive may grant a GPU; see [`GpuLocks::take`].
    pub fn owns(&self, gpu: &str) -> Result<(), String> {
        self.locks.take(gpu)
    }

    /// The start of a worker was answered.
    pub fn started(&self, worker: &WorkerId) {
        let mut state = self.settled();
        let change = state.ledger.started(worker);
        self.make(&mut state, change);
    }

    /// The start of a worker failed.
    pub fn give_back(&self, worker: &WorkerId) {
        let mut state = self.settled();
        let change = state.ledger.give_back(worker);
        self.make(&mut state, change);
    }

    /// A worker has ended for good. From now on nothing is granted that does not know it.
    pub fn ended(&self, worker: &WorkerId) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(worker.clone());
        self.bell.notify_one();
    }

    /// Waits until a worker has ended.
    pub async fn bell(&self) {
        self.bell.notified().await;
    }

    /// Ends what is over. Locks are given back of GPUs of which nothing is granted, and of which `promised` names none.
    pub fn tidy(&self, promised: impl FnOnce() -> BTreeSet<String>) {
        let mut state = self.settled();
        self.make(&mut state, Change::default());
        if !self.locks.is_empty() {
            let mut wanted = promised();
            wanted.extend(state.ledger.grants().filter_map(Grant::vram).map(|(gpu, _)| gpu.to_owned()));
            self.locks.keep(&wanted);
        }
    }

    /// Looks at every grant of an earlier hive, and makes the change that `judge` finds right.
    pub fn review(&self, judge: impl FnOnce(&Ledger) -> Change) {
        let mut state = self.settled();
        let change = judge(&state.ledger);
        self.make(&mut state, change);
    }

    /// From now to when the next grant expires; `None` when none will.
    pub fn next_end(&self) -> Option<Duration> {
        let granted = self.granted();
        let ends = granted.grants.iter().filter(|grant| grant.used.is_none()).map(|grant| grant.until);
        Some(Duration::from_nanos(ends.min()?).saturating_sub((self.clock)().boot))
    }

    /// The ledger as it is now: without what has expired, and what ended with its worker.
    pub(super) fn settled(&self) -> Guard<'_, State> {
        let mut state = self.state.lock();
        let expired = state.ledger.expire((self.clock)().boot);
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in &ended {
            let change = state.ledger.end(worker);
            self.make(&mut state, change);
        }
        if expired {
            self.publish(&state);
        }
        state
    }

    fn decide(&self, decide: impl FnOnce(&Ledger, Now) -> Decided) -> Result<Vec<Grant>, Refusal> {
        let mut state = self.settled();
        let (change, tokens) = decide(&state.ledger, (self.clock)())?;
        self.commit(&mut state, &change)?;
        Ok(state.ledger.named(&tokens))
    }

    /// Writes a change, and what waits to be written, and makes it.
    pub(super) fn commit(&self, state: &mut State, change: &Change) -> Result<(), Refusal> {
        state.write(change).inspect_err(|error| state.tell(error)).map_err(|error| match error {
            DiskError::Write(path, source) => Refusal::Disk { path, source },
            DiskError::Unreadable(path) => Refusal::Unreadable(path),
        })?;
        if std::mem::take(&mut state.told) {
            info!(path = %state.disk.path().display(), "the ledger is written again");
        }
        if !change.is_empty() {
            state.ledger.apply(change);
            self.publish(state);
        }
        Ok(())
    }

    /// Makes a change that nothing can refuse, and writes it if the disk takes it.
    fn make(&self, state: &mut State, change: Change) {
        if self.commit(state, &change).is_err() && !change.is_empty() {
            state.ledger.apply(&change);
            state.pending.add(change);
            self.publish(state);
        }
    }

    /// Called with the lock held, so that news come in order.
    fn publish(&self, state: &State) {
        let ledger = &state.ledger;
        let granted = Granted {
            grants: ledger.grants().cloned().collect(),
            last_token: ledger.last_token(),
            aborted: ledger.aborted().cloned().collect(),
        };
        self.news.send_replace(Arc::new(granted));
    }
}

impl State {
    fn write(&mut self, change: &Change) -> Result<(), DiskError> {
        let mut line = self.pending.clone();
        line.add(change.clone());
        if line.is_empty() {
            return Ok(());
        }
        let (disk, ledger) = (&mut self.disk, &self.ledger);
        disk.write(&line, || {
            let mut after = ledger.clone();
            after.apply(change);
            after
        })?;
        self.pending = Change::default();
        Ok(())
    }

    /// Once, until it is written again.
    fn tell(&mut self, error: &DiskError) {
        if !std::mem::replace(&mut self.told, true) {
            let source = std::error::Error::source(error).map(ToString::to_string);
            warn!(%error, source, "nothing is granted until the ledger can be written");
        }
    }
}
