//! What loads the peers: hives that push and watchers that read, in the way of each peer.

mod bare;
mod call;
mod http;
mod nats;
pub mod ours;
mod plain;

use crate::child::Server;
use crate::fleet::{Form, Load};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The document's queen.
    SseEach,
    /// The same, events encoded once.
    SseOnce,
    /// Plain generated tonic.
    Plain,
    /// Debian's nats-server.
    Nats,
    /// The bytes of rbee's watchers written on by nothing but system calls: not a queen, but the floor.
    Bare,
    /// rbee with the document's fields.
    Ours,
    /// rbee with all fields that a hive measures.
    OursFull,
}

impl Peer {
    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SseEach => "JSON and SSE, as the document has it",
            Self::SseOnce => "JSON and SSE, encoded once",
            Self::Plain => "plain generated tonic",
            Self::Nats => "nats-server",
            Self::Bare => "the same bytes, only written: the floor",
            Self::Ours => "rbee",
            Self::OursFull => "rbee, all 29 fields",
        }
    }

    /// The one that the command line calls so.
    pub fn of(name: &str) -> Option<Self> {
        let peers = [Self::SseEach, Self::SseOnce, Self::Plain, Self::Nats, Self::Bare, Self::Ours];
        peers.into_iter().find(|peer| peer.word() == name)
    }

    fn word(self) -> &'static str {
        match self {
            Self::SseEach => "sse-each",
            Self::SseOnce => "sse-once",
            Self::Plain => "plain",
            Self::Nats => "nats",
            Self::Bare => "bare",
            Self::Ours | Self::OursFull => "ours",
        }
    }

    /// Starts it; `None` where it is not installed.
    pub fn start(self) -> Option<Server> {
        if self == Self::Nats { Server::nats() } else { Some(Server::start(self.word())) }
    }

    fn form(self) -> Form {
        if self == Self::OursFull { Form::Full } else { Form::Document }
    }
}

/// Counters that all tasks of a load share.
#[derive(Debug, Default)]
pub struct Counts {
    /// Batches that were handed over.
    pub pushed: AtomicU64,
    /// Workers that were delivered to watchers.
    pub delivered: AtomicU64,
    /// Bytes that were.
    pub bytes: AtomicU64,
    /// Microseconds from the hive's send to the watcher, once they count.
    latencies: Mutex<Vec<u64>>,
    timing: AtomicBool,
}

impl Counts {
    /// From now on latencies count.
    pub fn start_timing(&self) {
        self.timing.store(true, Ordering::Relaxed);
    }

    /// Those that counted, the shortest first.
    pub fn latencies(&self) -> Vec<u64> {
        let mut took = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        took.sort_unstable();
        took
    }

    fn push(&self) {
        self.pushed.fetch_add(1, Ordering::Relaxed);
    }

    fn deliver(&self, workers: u64, bytes: usize) {
        self.delivered.fetch_add(workers, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn times(&self) -> bool {
        self.timing.load(Ordering::Relaxed)
    }

    fn time(&self, sent_ns: u64) {
        let took = crate::fleet::now_ns().saturating_sub(sent_ns) / 1_000;
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    }
}

/// What a load consists of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Hives, each with a connection.
    pub hives: u32,
    /// Workers of each.
    pub workers: u32,
    /// Between two batches of a hive; flat out without.
    pub every: Option<Duration>,
    /// Watchers, each with a connection.
    pub watchers: u32,
    /// Their flush class.
    pub class: Duration,
}

/// A load on a peer.
pub struct Running {
    /// What it counts.
    pub counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends it, before its peer ends: who is cut off in the middle of a call panics.
    pub async fn end(mut self) -> Arc<Counts> {
        self.tasks.shutdown().await;
        self.counts
    }
}

/// Watchers first, then hives, spread over their interval.
pub async fn start(peer: Peer, address: &str, shape: Shape, timed: bool) -> Running {
    let (counts, mut tasks) = (Arc::new(Counts::default()), JoinSet::new());
    for _ in 0..shape.watchers {
        let (counts, address) = (counts.clone(), address.to_owned());
        match peer {
            Peer::SseEach | Peer::SseOnce => tasks.spawn(http::watch(address, counts, shape.workers, timed)),
            Peer::Plain => tasks.spawn(plain::watch(address, counts)),
            Peer::Nats => tasks.spawn(nats::watch(address, counts, shape.workers)),
            Peer::Bare => tasks.spawn(bare::watch(address, counts, shape.workers)),
            Peer::Ours | Peer::OursFull => tasks.spawn(ours::watch(address, counts, shape.class, timed)),
        };
    }
    if shape.watchers > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for index in 0..shape.hives {
        let load = Load::new(index, shape.workers, peer.form());
        let (counts, address) = (counts.clone(), address.to_owned());
        let pace = Pacing::new(shape, index);
        match peer {
            Peer::SseEach | Peer::SseOnce => tasks.spawn(http::push(address, load, pace, counts)),
            Peer::Plain => tasks.spawn(plain::push(address, load, pace, counts)),
            Peer::Nats => tasks.spawn(nats::push(address, load, pace, counts)),
            Peer::Bare => tasks.spawn(bare::push(address, load, pace, counts)),
            Peer::Ours | Peer::OursFull => tasks.spawn(ours::push(address, load, pace, counts)),
        };
    }
    Running { counts, tasks }
}

/// When a hive's next batch is due.
pub struct Pacing(Option<Interval>);

impl Pacing {
    fn new(shape: Shape, index: u32) -> Self {
        Self(shape.every.map(|every| {
            let begins = every.mul_f64(f64::from(index) / f64::from(shape.hives.max(1)));
            let mut ticks = interval_at(Instant::now() + begins, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Waits until it is; flat out not at all.
    async fn due(&mut self) {
        if let Some(ticks) = &mut self.0 {
            ticks.tick().await;
        }
    }
}
