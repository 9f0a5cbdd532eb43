//! The queen as a whole: bind, then run until told to stop.

use crate::bound::Bounds;
use crate::fleet::{Census, Fleet, LOOK};
use crate::guard::{Guard, GuardError, Renewal, renew};
use crate::metrics::{Calls, Counts, Metrics, Sources};
use crate::reserve::{Reserving, Ways};
use crate::rpc::watch::rhythm;
use crate::rpc::{Shared, telemetry};
use crate::server::{Addresses, Doors};
use crate::services::Around;
use crate::tunnel::Tunnels;
use crate::{Config, server, services};
use bytes::Bytes;
use prost::Message;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// So long a bookmark waits for an update that it may go along with: hives are heard from each second.
const BOOKMARK_WAITS: Duration = Duration::from_secs(1);
/// No bookmarks are sent faster than this.
const BOOKMARK_MIN: Duration = Duration::from_millis(10);

/// Why a queen cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Everybody on the network could use it.
    #[error(
        "listen on {address}: other machines can reach that address, and {missing}; or listen on 127.0.0.1, or set --insecure if it is meant to be open (a lab)"
    )]
    Exposed {
        /// The address that was asked for.
        address: SocketAddr,
        /// What must be set.
        missing: &'static str,
    },
    /// A certificate, a key or a token cannot be used.
    #[error(transparent)]
    Guard(GuardError),
    /// Somebody else has the port.
    #[error("listen on {address}: the port is taken; stop what listens there or set another one with --listen")]
    Taken {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Anything else the system refuses.
    #[error("listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The embedded description of the services cannot be read.
    #[error("describe the services")]
    Describe(#[source] tonic_reflection::server::Error),
}

/// Why a queen ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// One of its tasks failed.
    #[error("keep the {task} running")]
    Task {
        /// Which.
        task: &'static str,
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// A queen that listens. Connections wait until [`Queen::run`].
#[derive(Debug)]
pub struct Queen {
    address: SocketAddr,
    listener: TcpListener,
    doors: Doors,
    renewal: Renewal,
    shared: Shared,
    bookmarks: watch::Sender<Bytes>,
}

impl Queen {
    /// Opens the port. An address that other machines can reach needs TLS and tokens, unless the configuration says
    /// `insecure`.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let asked = config.listen;
        if let Some(missing) = missing(&config) {
            return Err(BindError::Exposed { address: asked, missing });
        }
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address: asked, source },
            _ => BindError::Listen { address: asked, source },
        };
        let listener = server::listen(asked).map_err(refused)?;
        let address = listener.local_addr().map_err(|source| BindError::Listen { address: asked, source })?;
        let (bookmarks, receiver) = watch::channel(Bytes::new());
        let fleet = Fleet::new(&config, telemetry::token(), Instant::now());
        fleet.feed().link_when_watched();
        let (bounds, counts, addresses) = (Bounds::new(&config), Arc::new(Counts::default()), Arc::default());
        let (fleet, tunnels) = (Arc::new(fleet), Arc::new(Tunnels::new(bounds.tunnels.clone())));
        let ways = tunnels.clone();
        let ways = Ways::new(move |hive| ways.channel(hive));
        let (guard, renewal) = Guard::new(address, &config, Arc::clone(&counts)).map_err(BindError::Guard)?;
        let (max_age, grace, places) = (config.max_age, config.grace, bounds.reserving.clone());
        let reserving = Reserving::new(fleet.clone(), ways, max_age, grace, places);
        let shared = Shared {
            reserving: Arc::new(reserving),
            fleet,
            tunnels,
            config: Arc::new(config),
            stopping: CancellationToken::new(),
            bookmarks: receiver,
            places: bounds.watchers.clone(),
            seats: Arc::default(),
            cut: Arc::new(AtomicU64::new(0)),
            counts,
        };
        let calls = Calls::new();
        let metrics = Metrics::new(sources(&shared, &bounds, &addresses), &calls);
        let around = Around { guard, bounds: bounds.clone(), calls, metrics };
        let router = services::router(shared.clone(), around).await.map_err(BindError::Describe)?;
        let doors = Doors { router, shown: renewal.shown(), bounds, addresses };
        Ok(Self { address, listener, doors, renewal, shared, bookmarks })
    }

    /// Where it listens: with port 0 asked for, the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its tokens are, when it wants any.
    pub fn token_dir(&self) -> Option<&Path> {
        self.shared.config.token_dir.as_deref()
    }

    /// Whether it shows a certificate.
    pub fn speaks_tls(&self) -> bool {
        self.doors.shown.is_some()
    }

    /// Serves until `stopping` is cancelled; with open streams that takes less than a second.
    pub async fn run(self, stopping: CancellationToken) -> Result<(), ServeError> {
        let Self { address, listener, doors, renewal, shared, bookmarks } = self;
        info!(%address, instance = shared.fleet.feed().instance(), "queen listens");
        let ending = shared.stopping.clone();
        let ageing = tokio::spawn(age(shared.fleet.clone(), ending.clone()));
        let every = shared.config.bookmark.max(BOOKMARK_MIN);
        let counting = tokio::spawn(count(shared.fleet.clone(), bookmarks, every, ending.clone()));
        let timing = tokio::spawn(rhythm::keep(shared.clone()));
        let tidying = tokio::spawn(shared.reserving.clone().tidy(ending.clone()));
        let renewing = tokio::spawn(renew(renewal, ending.clone()));
        let stop = ending.clone();
        let mut serving = tokio::spawn(async move { server::serve(listener, doors, stop).await });
        // Streams hold `ending` rather than `stopping`, so that they also end when a task of ours fails.
        let served = tokio::select! {
            () = stopping.cancelled() => None,
            ended = &mut serving => Some(ended),
        };
        ending.cancel();
        let served = match served {
            Some(ended) => ended,
            None => serving.await,
        };
        let failed = |task| move |source| ServeError::Task { task, source };
        let (aged, counted, timed) = (ageing.await, counting.await, timing.await);
        let (tidied, renewed) = (tidying.await, renewing.await);
        served.map_err(failed("server"))?;
        tidied.map_err(failed("tidying"))?;
        aged.map_err(failed("ageing"))?;
        renewed.map_err(failed("renewal"))?;
        timed.map_err(failed("rhythm of watches"))?;
        counted.map_err(failed("bookmarks"))
    }
}

/// What an address that other machines can reach still needs.
fn missing(config: &Config) -> Option<&'static str> {
    if config.listen.ip().is_loopback() || config.insecure {
        return None;
    }
    match (&config.tls, &config.token_dir) {
        (Some(_), Some(_)) => None,
        (None, None) => Some("there is neither TLS nor a token: set --tls-cert, --tls-key and --token-dir"),
        (None, Some(_)) => Some("tokens would travel in the clear: set --tls-cert and --tls-key"),
        (Some(_), None) => Some("anybody could call: set --token-dir"),
    }
}

fn sources(shared: &Shared, bounds: &Bounds, addresses: &Arc<Addresses>) -> Sources {
    Sources {
        fleet: shared.fleet.clone(),
        counts: shared.counts.clone(),
        bounds: bounds.clone(),
        addresses: Arc::clone(addresses),
        cut: shared.cut.clone(),
        proc_root: shared.config.proc_root.clone(),
    }
}

/// Ages the fleet every second, and notices when the queen itself stood still.
async fn age(fleet: Arc<Fleet>, stopping: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        if let Some(late) = fleet.look(now) {
            warn!(late_ms = late.as_millis(), "the queen stood still; all deadlines are moved");
        }
        let expired = fleet.expire(now);
        for hive in &expired.lost {
            warn!(%hive, "hive lost");
        }
        for hive in &expired.removed {
            warn!(%hive, "hive removed");
        }
        if expired.frozen {
            warn!("many hives fell silent together: removal waits");
        }
    }
}

/// Makes the bookmarks that all watchers send. Each goes along with the next update, and alone where none comes soon.
async fn count(fleet: Arc<Fleet>, bookmarks: watch::Sender<Bytes>, every: Duration, stopping: CancellationToken) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let alone = BOOKMARK_WAITS.min(every / 2);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // Everybody is counted for those who watch.
        if !fleet.feed().is_watched() {
            continue;
        }
        bookmarks.send_replace(bookmark(fleet.census(Instant::now())));
        fleet.feed().announce_bookmark();
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep(alone) => fleet.feed().wake_for_bookmark(),
        }
    }
}

/// A bookmark without its revision.
fn bookmark(census: Census) -> Bytes {
    let message = proto::Bookmark {
        revision: String::new(),
        time: Some(common::timestamp(SystemTime::now())),
        workers_online: census.workers_online,
        workers_available: census.workers_available,
        hives_online: census.hives_online,
        hives_available: census.hives_available,
        worker_ids: census.worker_ids,
        hive_ids: census.hive_ids,
        ids_truncated: census.ids_truncated,
    };
    Bytes::from(message.encode_to_vec())
}
