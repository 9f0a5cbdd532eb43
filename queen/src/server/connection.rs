//! One connection: TLS where there is a certificate, then HTTP/1.1 and HTTP/2 told apart by their first bytes.

use super::begin::{Begun, speaks_tls};
use super::coarse::Coarse;
use super::socket::Socket;
use super::turned::{self, Turned};
use crate::Config;
use crate::guard::{Peer, Shown};
use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

/// A connection that has said nothing after this long is closed; so is one whose TLS handshake or headers are not
/// complete.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection that is not served gets this long to hear why.
const TURNED: Duration = Duration::from_secs(2);
/// A peer is asked for a sign of life this often …
const PING: Duration = Duration::from_secs(2);
/// … and given this long to answer, so a half-open link is dead within five seconds, both by a coarse clock.
const PING_ANSWER: Duration = Duration::from_millis(2_500);
/// What a sender may send ahead on one stream, in bytes: little, so that a stalled queen replays no minutes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered for one slow reader, in bytes.
const SEND_BUFFER: usize = 256 * 1024;
/// hyper's HTTP/1.1 reads no fewer bytes of headers than this.
const HTTP1_HEADERS_MIN: usize = 8 * 1024;

/// What all connections share.
#[derive(Debug)]
pub struct Port {
    router: Router,
    shown: Shown,
    clock: Coarse,
    max_header_bytes: u32,
    max_streams: u32,
    stopping: CancellationToken,
}

impl Port {
    /// A port behind which `router` answers.
    pub fn new(router: Router, shown: Shown, config: &Config, stopping: CancellationToken) -> Self {
        let (max_header_bytes, max_streams) = (config.max_header_bytes, config.max_streams);
        let clock = Coarse::new(Instant::now());
        Self { router, shown, clock, max_header_bytes, max_streams, stopping }
    }

    /// Runs one connection to its end. With `turned` it is only told why it is not served.
    pub async fn connection(&self, stream: TcpStream, peer: SocketAddr, turned: Option<Turned>) {
        // Small messages go out at once: Nagle's algorithm costs 40 ms a call.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let socket = Socket::new(stream);
        let begun = tokio::select! {
            () = self.stopping.cancelled() => return,
            begun = timeout(HANDSHAKE, self.begin(socket.clone(), turned)) => begun,
        };
        match begun {
            Ok(Ok(Some(Spoken::Clear(stream, turned)))) => self.serve(stream, socket, peer, turned).await,
            Ok(Ok(Some(Spoken::Tls(stream)))) => self.serve(*stream, socket, peer, turned).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => debug!(%peer, %error, "connection refused"),
            Err(_) => debug!(%peer, "connection refused: nothing whole was said in time"),
        }
    }

    async fn begin(&self, stream: Socket, turned: Option<Turned>) -> io::Result<Option<Spoken>> {
        let Some(shown) = &self.shown else {
            return Ok(Begun::read(stream).await?.map(|begun| Spoken::Clear(begun, turned)));
        };
        match speaks_tls(stream.stream()).await? {
            None => return Ok(None),
            Some(false) => {
                return Ok(Begun::read(stream).await?.map(|begun| Spoken::Clear(begun, Some(Turned::Clear))));
            }
            Some(true) => {}
        }
        let server = shown.borrow().server.clone();
        let stream = TlsAcceptor::from(server).accept(stream).await?;
        Ok(Begun::read(stream).await?.map(|begun| Spoken::Tls(Box::new(begun))))
    }

    async fn serve<S>(&self, stream: S, socket: Socket, peer: SocketAddr, turned: Option<Turned>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = turned.map_or_else(|| self.router.clone(), turned::router);
        let service = TowerToHyperService::new(router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.map(Body::new)
        }));
        let builder = self.builder();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let patience = async {
            match turned {
                Some(_) => tokio::time::sleep(TURNED).await,
                None => self.stopping.cancelled().await,
            }
        };
        let ended = tokio::select! {
            ended = socket.drive(connection.as_mut()) => ended,
            () = patience => {
                connection.as_mut().graceful_shutdown();
                if turned.is_some() { return }
                socket.drive(connection).await
            }
        };
        if let Err(error) = ended {
            debug!(error, "connection ended");
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        let headers = HTTP1_HEADERS_MIN.max(self.max_header_bytes as usize);
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE).max_buf_size(headers);
        builder
            .http2()
            .timer(self.clock.clone())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING_ANSWER)
            .max_header_list_size(self.max_header_bytes)
            .max_concurrent_streams(self.max_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        builder
    }
}

/// A connection whose first bytes are there.
enum Spoken {
    /// In the clear, perhaps where it should not be.
    Clear(Begun<Socket>, Option<Turned>),
    /// In TLS.
    Tls(Box<Begun<tokio_rustls::server::TlsStream<Socket>>>),
}
