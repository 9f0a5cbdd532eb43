//! The queen as a whole: bind, then run until told to stop.

use crate::fleet::{Census, Fleet};
use crate::guard::Guard;
use crate::rpc::{Shared, telemetry};
use crate::{Config, server, services};
use axum::Router;
use bytes::Bytes;
use prost::Message;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often everything is aged.
const EXPIRE: Duration = Duration::from_secs(1);
/// If ageing itself is later than this, the queen did not run, and nobody was silent meanwhile.
const PAUSE: Duration = Duration::from_secs(2);
/// No bookmarks are sent faster than this.
const BOOKMARK_MIN: Duration = Duration::from_millis(10);

/// Why a queen cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Everybody on the network could use it.
    #[error(
        "listen on {0}: other machines can reach that address and there is neither TLS nor a token; set --insecure if that is meant (a lab), or listen on 127.0.0.1"
    )]
    Exposed(SocketAddr),
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
    router: Router,
    shared: Shared,
    bookmarks: watch::Sender<Bytes>,
}

impl Queen {
    /// Opens the port. Refuses an address that other machines can reach unless the configuration says `insecure`.
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let asked = config.listen;
        if !asked.ip().is_loopback() && !config.insecure {
            return Err(BindError::Exposed(asked));
        }
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { address: asked, source },
            _ => BindError::Listen { address: asked, source },
        };
        let listener = TcpListener::bind(asked).await.map_err(refused)?;
        let address = listener.local_addr().map_err(|source| BindError::Listen { address: asked, source })?;
        let (bookmarks, receiver) = watch::channel(Bytes::new());
        let fleet = Fleet::new(&config, telemetry::token(), Instant::now());
        fleet.feed().link_when_watched();
        let guard = Guard::new(address, config.insecure, &config.allowed_hosts);
        let places = config.max_watchers.min(Semaphore::MAX_PERMITS);
        let shared = Shared {
            fleet: Arc::new(fleet),
            tunnels: Arc::default(),
            config: Arc::new(config),
            stopping: CancellationToken::new(),
            bookmarks: receiver,
            places: Arc::new(Semaphore::new(places)),
            cut: Arc::new(AtomicU64::new(0)),
        };
        let router = services::router(shared.clone(), guard).await.map_err(BindError::Describe)?;
        Ok(Self { address, listener, router, shared, bookmarks })
    }

    /// Where it listens: with port 0 asked for, the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopping` is cancelled; with open streams that takes less than a second.
    pub async fn run(self, stopping: CancellationToken) -> Result<(), ServeError> {
        let Self { address, listener, router, shared, bookmarks } = self;
        info!(%address, instance = shared.fleet.feed().instance(), "queen listens");
        let ending = shared.stopping.clone();
        let ageing = tokio::spawn(age(shared.fleet.clone(), ending.clone()));
        let every = shared.config.bookmark.max(BOOKMARK_MIN);
        let counting = tokio::spawn(count(shared.fleet.clone(), bookmarks, every, ending.clone()));
        let mut serving = tokio::spawn(server::serve(listener, router, ending.clone()));
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
        let (aged, counted) = (ageing.await, counting.await);
        served.map_err(failed("server"))?;
        aged.map_err(failed("ageing"))?;
        counted.map_err(failed("bookmarks"))
    }
}

/// Ages the fleet every second, and notices when the queen itself stood still.
async fn age(fleet: Arc<Fleet>, stopping: CancellationToken) {
    let mut ticks = interval(EXPIRE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        let late = now.saturating_duration_since(last).saturating_sub(EXPIRE);
        if late > PAUSE {
            warn!(late_ms = late.as_millis(), "the queen stood still; all deadlines are moved");
            fleet.rearm(now, late);
        }
        last = now;
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

/// Makes the bookmarks that all watchers send.
async fn count(fleet: Arc<Fleet>, bookmarks: watch::Sender<Bytes>, every: Duration, stopping: CancellationToken) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        bookmarks.send_replace(bookmark(fleet.census(Instant::now())));
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
