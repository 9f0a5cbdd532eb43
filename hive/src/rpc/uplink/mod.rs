//! Rounds to one queen: registers, pushes frames for ever, dials again when that ends. Keeps no backlog: what a queen
//! missed is computed anew against what it was last handed.

mod books;
mod frames;
mod handed;
#[cfg(test)]
mod tests;
mod trouble;

pub use books::{Account, Books};
pub use frames::Sources;
pub(super) use trouble::SessionError;

use crate::worker::procfs::since_boot;
use books::OpenAccount;
use common::link::{Access, Channel, LinkError};
use common::{Backoff, from_duration};
use frames::{Frames, Pulse};
use handed::Handed;
use proto::PushTelemetryResponse;
use proto::hive_service_client::HiveServiceClient;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::{info, warn};
use trouble::REGISTER;

/// Connecting, Register and Attach may take this long.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// A push that takes no frame for this long although there are new ones is given up and dialled again.
const STALL_LIMIT: Duration = Duration::from_secs(5);
/// How often that is looked at.
const STALL_CHECK: Duration = Duration::from_secs(1);
/// HTTP/2 pings find a dead link within five seconds: 2 s of silence, then 2.5 s without an answer.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_ANSWER: Duration = Duration::from_millis(2_500);
/// How long a stopping hive waits for the queen's summary.
const FAREWELL: Duration = Duration::from_secs(1);

/// How the link to one queen stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// The queen.
    pub url: String,
    /// Registered and pushing.
    pub connected: bool,
    /// Why not.
    pub error: Option<String>,
}

/// A session that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name on the wire.
    pub name: String,
    /// How long the queen wants to be left alone between two tries, if she said so.
    pub window: Option<(Duration, Duration)>,
}

/// One queen's uplink.
pub struct Uplink {
    url: String,
    access: Access,
    journal_id: String,
    sources: Sources,
    state: watch::Sender<LinkState>,
    opened: watch::Sender<Option<Session>>,
    window: Option<(Duration, Duration)>,
    books: Option<Arc<Books>>,
}

impl Uplink {
    /// To the queen at `url`. Nothing is dialled before [`Uplink::run`].
    pub fn new(url: String, access: Access, journal_id: String, sources: Sources) -> Self {
        let state = watch::Sender::new(LinkState { url: url.clone(), connected: false, error: None });
        Self { url, access, journal_id, sources, state, opened: watch::Sender::default(), window: None, books: None }
    }

    /// Keeps the books of its sessions there.
    pub fn counted(self, books: Arc<Books>) -> Self {
        Self { books: Some(books), ..self }
    }

    /// How the link stands, now and later.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The newest session, now and later. One that broke stays until the next is opened.
    pub fn opened(&self) -> watch::Receiver<Option<Session>> {
        self.opened.subscribe()
    }

    /// Reports until `stopping` is cancelled. No answer of a queen ends it.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stopping.is_cancelled() {
            let Err(error) = self.session(&mut backoff, &stopping).await else { break };
            if stopping.is_cancelled() {
                break;
            }
            let wait = backoff.next(random(), error.window().or(self.window));
            self.lost(&error, wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => {}
            }
        }
    }

    /// Says a new trouble once, and keeps silent while it stays the same.
    fn lost(&self, error: &SessionError, wait: Duration) {
        let text = error.to_string();
        let news = self.state.send_if_modified(|state| {
            let news = state.connected || state.error.as_deref() != Some(&text);
            state.connected = false;
            state.error = Some(text.clone());
            news
        });
        if news {
            let wait = format!("{:.1} s", wait.as_secs_f64());
            warn!(queen = %self.url, %error, wait, "not reporting; trying again");
        }
    }

    async fn session(&mut self, backoff: &mut Backoff, stopping: &CancellationToken) -> Result<(), SessionError> {
        let Some(channel) = until(stopping, connect(&self.url, &self.access)).await.transpose()? else { return Ok(()) };
        let mut client = HiveServiceClient::new(channel);
        let hive = self.sources.hive.borrow().as_ref().clone();
        let opened = Instant::now();
        let mut request = tonic::Request::new(proto::RegisterRequest {
            hive: Some(hive.clone()),
            journal_id: self.journal_id.clone(),
            sent_boottime_ns: boottime_ns(),
        });
        request.set_timeout(CALL_DEADLINE);
        let Some(answer) = until(stopping, client.register(request)).await else { return Ok(()) };
        let session = answer.map_err(|status| SessionError::refused(&self.url, REGISTER, status))?.into_inner();
        let bound = |d: &Option<prost_types::Duration>| d.as_ref().and_then(from_duration);
        self.window = bound(&session.retry_min).zip(bound(&session.retry_max));
        let name = session.session.clone();
        self.opened.send_replace(Some(Session { name, window: self.window }));
        let pulse = Pulse::new();
        let account = OpenAccount::new(self.books.clone(), &session.session);
        let handed = Handed::new(session.session, opened, hive);
        let frames = Frames::new(handed, self.sources.clone(), pulse.clone(), account.clone(), stopping.clone());
        backoff.reset();
        self.state.send_replace(LinkState { url: self.url.clone(), connected: true, error: None });
        info!(queen = %self.url, epoch = session.epoch, "reporting");
        let summary = self.push(client, frames, &pulse, stopping).await?;
        if let Some(summary) = summary {
            account.sum_up(summary);
            return if stopping.is_cancelled() { Ok(()) } else { Err(SessionError::Ended) };
        }
        Ok(())
    }

    /// Pushes until the session is over; answers the queen's summary, if there was one.
    async fn push(
        &self,
        mut client: HiveServiceClient<Channel>,
        frames: Frames,
        pulse: &Pulse,
        stopping: &CancellationToken,
    ) -> Result<Option<PushTelemetryResponse>, SessionError> {
        let answer = client.push_telemetry(frames);
        tokio::select! {
            answer = answer => match answer {
                Ok(summary) => Ok(Some(summary.into_inner())),
                Err(status) => Err(SessionError::refused(&self.url, "PushTelemetry", status)),
            },
            () = self.stalled(pulse) => Err(SessionError::Stalled),
            () = farewell(stopping) => Ok(None),
        }
    }

    /// Returns when there have been new rounds for [`STALL_LIMIT`] and the transport asked for none of them.
    async fn stalled(&self, pulse: &Pulse) {
        let mut check = tokio::time::interval(STALL_CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            check.tick().await;
            let newest = self.sources.rounds.borrow().taken;
            if newest.checked_duration_since(pulse.last()).is_some_and(|late| late > STALL_LIMIT) {
                return;
            }
        }
    }
}

/// A connection of its own to the queen at `url`.
pub(super) async fn connect(url: &str, access: &Access) -> Result<Channel, SessionError> {
    let set = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(CALL_DEADLINE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true)
    };
    // The handshake is not a part of what the endpoint calls connecting.
    let connected = tokio::time::timeout(CALL_DEADLINE, access.connect(url, set)).await;
    let late = || LinkError::Connect(format!("no connection within {} s", CALL_DEADLINE.as_secs()));
    connected.unwrap_or_else(|_| Err(late())).map_err(|reason| SessionError::Connect { url: url.to_owned(), reason })
}

async fn until<T>(stopping: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stopping.cancelled() => None,
    }
}

async fn farewell(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(FAREWELL).await;
}

/// What tells the queen which of two calls of this machine is the later one.
pub(super) fn boottime_ns() -> Option<u64> {
    since_boot().and_then(|span| u64::try_from(span.as_nanos()).ok())
}

/// Uniform in 0..1, from the seed that the standard library draws for its hash maps.
pub(super) fn random() -> f64 {
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
