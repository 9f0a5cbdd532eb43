//! The tunnel to one queen: kept open beside the telemetry, on a connection of its own, so that she can call this hive.
//! The hive listens nowhere. Whatever happens here, telemetry does not notice.

mod calls;
mod connection;
#[cfg(test)]
mod tests;

use super::uplink::{Session, SessionError, random};
use common::Backoff;
use common::link::Access;
use connection::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::service::Routes;
use tracing::{info, warn};

/// A tunnel in which nothing was called for this long is left for a fresh one, in which nothing is made before the next
/// call.
pub const IDLE: Duration = Duration::from_secs(60);
/// Streams end themselves when the hive stops; what is still open after this long is broken off.
const GOODBYE: Duration = Duration::from_millis(500);

/// What is served in a tunnel: made anew for each, when it is first called.
pub type Served = Arc<dyn Fn() -> Routes + Send + Sync>;

/// The tunnel to one queen.
pub struct Tunnel {
    url: String,
    access: Access,
    sessions: watch::Receiver<Option<Session>>,
    served: Served,
    idle: Duration,
    /// The last trouble that was told.
    told: String,
}

/// Why the tunnels of a session are over.
enum Over {
    Stopping,
    /// A newer session was opened.
    Newer,
    /// The queen has none of this one: only another session can help.
    Refused,
}

/// Why one tunnel is over.
enum Ended {
    Over(Over),
    Trouble(SessionError),
}

impl Tunnel {
    /// To the queen at `url`, for whatever session is the newest. Left after `idle` without a call. Nothing is dialled
    /// before [`Tunnel::run`].
    pub fn new(
        url: String,
        access: Access,
        sessions: watch::Receiver<Option<Session>>,
        served: Served,
        idle: Duration,
    ) -> Self {
        Self { url, access, sessions, served, idle, told: String::new() }
    }

    /// Keeps a tunnel open until `stopping` is cancelled. No answer of a queen ends it.
    pub async fn run(mut self, stopping: CancellationToken) {
        loop {
            let session = self.sessions.borrow_and_update().clone();
            let mut over = match session {
                Some(session) => self.keep(&session, &stopping).await,
                None => Over::Refused,
            };
            if matches!(over, Over::Refused) {
                over = tokio::select! {
                    () = stopping.cancelled() => Over::Stopping,
                    over = newer(&mut self.sessions) => over,
                };
            }
            if matches!(over, Over::Stopping) {
                return;
            }
        }
    }

    /// Keeps tunnels of one session open, one after another.
    async fn keep(&mut self, session: &Session, stopping: &CancellationToken) -> Over {
        let mut backoff = Backoff::default();
        let mut before = None;
        loop {
            let trouble = match self.one(session, &mut before, stopping).await {
                Ok(()) => {
                    backoff.reset();
                    continue;
                }
                Err(Ended::Over(over)) => return over,
                Err(Ended::Trouble(trouble)) => trouble,
            };
            self.lost(&trouble);
            if matches!(trouble.code(), Some(Code::Aborted | Code::FailedPrecondition | Code::Unimplemented)) {
                return Over::Refused;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(random(), trouble.window().or(session.window))) => {}
                () = stopping.cancelled() => return Over::Stopping,
                over = newer(&mut self.sessions) => return over,
            }
        }
    }

    /// Opens a tunnel, then leaves the one before; waits until this one is to be left in the same way. Calls that run
    /// in the one before go on, until the queen ends it because there are two newer ones.
    async fn one(
        &mut self,
        session: &Session,
        before: &mut Option<Connection>,
        stopping: &CancellationToken,
    ) -> Result<(), Ended> {
        let mut open = tokio::select! {
            opened = Connection::open((&self.url, &self.access), &session.name, &self.served) => opened.map_err(Ended::Trouble)?,
            () = stopping.cancelled() => return Err(Ended::Over(Over::Stopping)),
            over = newer(&mut self.sessions) => return Err(Ended::Over(over)),
        };
        if !std::mem::take(&mut self.told).is_empty() || before.is_none() {
            info!(queen = %self.url, "attached: she can call this hive");
        }
        if let Some(before) = before {
            before.leave();
        }
        let calls = open.calls.clone();
        tokio::select! {
            why = open.ended() => Err(Ended::Trouble(why)),
            () = calls.idle(self.idle) => {
                *before = Some(open);
                Ok(())
            }
            () = stopping.cancelled() => {
                open.leave();
                // What is still open after that, is broken off.
                let _ = tokio::time::timeout(GOODBYE, open.ended()).await;
                Err(Ended::Over(Over::Stopping))
            }
            over = newer(&mut self.sessions) => Err(Ended::Over(over)),
        }
    }

    /// Says a new trouble once, and keeps silent while it stays the same.
    fn lost(&mut self, trouble: &SessionError) {
        let text = trouble.to_string();
        if text != self.told {
            warn!(queen = %self.url, error = %trouble, "no tunnel: she cannot call this hive");
            self.told = text;
        }
    }
}

/// Waits for the next session. Without an uplink there will be none.
async fn newer(sessions: &mut watch::Receiver<Option<Session>>) -> Over {
    if sessions.changed().await.is_ok() { Over::Newer } else { Over::Stopping }
}
