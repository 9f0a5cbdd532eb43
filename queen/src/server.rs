//! The port: accepts, bounds and ends connections. HTTP/1.1 and HTTP/2 are told apart by their first bytes.

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

/// At most this many connections; further ones are closed at once.
const CONNECTIONS: usize = 16_384;
/// At most this many from one address; this machine itself is not counted.
const PER_ADDRESS: u32 = 1_024;
/// A connection that has said nothing after this long is closed; so is one whose headers are not complete.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// What HTTP/2 begins with. Whoever stops within it has not spoken yet.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often an unfinished beginning is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A peer is asked for a sign of life this often …
const PING: Duration = Duration::from_secs(2);
/// … and given this long to answer, so a half-open link is dead within five seconds.
const PING_ANSWER: Duration = Duration::from_millis(2_500);
/// The most that the headers of one request may hold, in bytes.
const HEADERS: u32 = 16 * 1024;
/// Calls at once on one connection.
const STREAMS: u32 = 256;
/// What a sender may send ahead on one stream, in bytes: little, so that a stalled queen replays no minutes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered for one slow reader, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// Streams end themselves when the queen stops; what is still open after this long is dropped.
const GOODBYE: Duration = Duration::from_millis(700);
/// How long to wait when the system has no file descriptor left. What is connected goes on.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Serves until `stopping` is cancelled, then at most [`GOODBYE`] longer.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let (mut open, mut starved) = (Open::default(), false);
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = open.tasks.join_next_with_id(), if !open.tasks.is_empty() => {
                open.ended(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if open.has_room(peer.ip()) => {
                let connection = connection(stream, router.clone(), stopping.clone());
                open.begin(peer.ip(), connection);
                starved = false;
            }
            Ok((_, peer)) => debug!(%peer, "connection refused: too many"),
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
    let ended = timeout(GOODBYE, async { while open.tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        info!(connections = open.tasks.len(), "connections dropped at stop");
        open.tasks.shutdown().await;
    }
}

/// The connections there are.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    peers: HashMap<Id, IpAddr>,
    counts: HashMap<IpAddr, u32>,
    full: bool,
}

impl Open {
    fn has_room(&mut self, peer: IpAddr) -> bool {
        let count = self.counts.get(&peer).copied().unwrap_or(0);
        let room = self.tasks.len() < CONNECTIONS && (peer.is_loopback() || count < PER_ADDRESS);
        if !room && !self.full {
            warn!(%peer, connections = self.tasks.len(), from_it = count, "too many connections: refusing further ones");
        }
        self.full = !room;
        room
    }

    fn begin(&mut self, peer: IpAddr, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.peers.insert(task.id(), peer);
        *self.counts.entry(peer).or_default() += 1;
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Err(error) = ended {
            warn!(%peer, %error, "a connection failed inside the queen");
        }
        if let Some(count) = self.counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&peer);
            }
        }
    }
}

/// Errors of `accept` that concern one peer only.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(stream: TcpStream, router: Router, stopping: CancellationToken) {
    // Small messages go out at once: Nagle's algorithm costs 40 ms a call.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let spoke = tokio::select! {
        () = stopping.cancelled() => return,
        spoke = timeout(HANDSHAKE, speaks(&stream)) => spoke,
    };
    if !matches!(spoke, Ok(Ok(true))) {
        return;
    }
    let service = TowerToHyperService::new(router.map_request(|request: Request<Incoming>| request.map(Body::new)));
    let builder = builder();
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error, "connection ended");
    }
}

/// Waits until it is clear whether a peer speaks HTTP/1.1 or HTTP/2; false when it left before.
async fn speaks(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let said = stream.peek(&mut first).await?;
        if said == 0 || said == PREFACE.len() || !PREFACE.starts_with(&first[..said]) {
            return Ok(said > 0);
        }
        // What is there already keeps the socket readable, so more of it sends no event.
        sleep(LOOK).await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE).max_buf_size(HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}
