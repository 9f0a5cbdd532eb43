//! The port: accepts, bounds and ends connections.

mod begin;
mod connection;
pub mod http2;
mod listen;
mod open;
mod turned;

pub use http2::{Cut, Ended, Patient};
pub use listen::listen;
pub use open::Addresses;

use crate::bound::Bounds;
use crate::guard::Shown;
use axum::Router;
use connection::Port;
use open::Open;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use turned::Turned;

/// Streams end themselves when the queen stops; what is still open after this long is dropped.
const GOODBYE: Duration = Duration::from_millis(700);
/// How long to wait when the system has no file descriptor left. What is connected goes on.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);

/// What the port needs besides its listener.
#[derive(Debug)]
pub struct Doors {
    /// What answers.
    pub router: Router,
    /// The certificate, where TLS is spoken.
    pub shown: Shown,
    /// How many may come in.
    pub bounds: Bounds,
    /// Who has how many connections.
    pub addresses: Arc<Addresses>,
}

/// Serves until `stopping` is cancelled, then at most [`GOODBYE`] longer.
pub async fn serve(listener: TcpListener, doors: Doors, stopping: CancellationToken) {
    let Doors { router, shown, bounds, addresses } = doors;
    let port = Arc::new(Port::new(router, shown, &bounds, stopping.clone()));
    let (mut open, mut tasks, mut starved) = (Open::new(bounds.clone(), addresses), JoinSet::new(), false);
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                starved = false;
                let port = Arc::clone(&port);
                match open.enter(peer.ip()) {
                    Some(place) => drop(tasks.spawn(async move { port.connection(stream, peer, None, place).await })),
                    // A refusal in the caller's language costs a little; when too many wait for one, it is a bare end.
                    None => {
                        if let Some(place) = open.turn_away() {
                            tasks.spawn(async move { port.connection(stream, peer, Some(Turned::Full), place).await });
                        }
                    }
                }
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut starved, true) {
                    warn!(%error, "cannot accept connections");
                }
                sleep(NO_DESCRIPTORS).await;
            }
        }
    }
    drop(listener);
    port.leave();
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            note(ended);
        }
        port.left().await;
    };
    if timeout(GOODBYE, all).await.is_err() {
        info!(connections = bounds.connections.taken(), "connections dropped at stop");
        tasks.shutdown().await;
        port.end().await;
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "a connection failed inside the queen");
    }
}

/// Errors of `accept` that concern one peer only.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
