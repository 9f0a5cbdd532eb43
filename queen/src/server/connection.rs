//! One connection: TLS where there is a certificate, then HTTP/1.1 and HTTP/2 told apart by their first bytes.

use super::begin::{Again, Begun, speaks_tls};
use super::http2::{self, Buffers, Gone, Lanes};
use super::listen::set_up;
use super::turned::{self, Turned};
use crate::bound::Bounds;
use crate::guard::{Peer, Shown};
use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

/// A connection that has said nothing after this long is closed; so is one whose TLS handshake or headers are not
/// complete.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A connection that is not served gets this long to hear why.
const TURNED: Duration = Duration::from_secs(2);
/// hyper's HTTP/1.1 reads no fewer bytes of headers than this.
const HTTP1_HEADERS_MIN: usize = 8 * 1024;

/// What all connections share.
#[derive(Debug)]
pub struct Port {
    router: Router,
    shown: Shown,
    http2: Arc<http2::Shared>,
    lanes: Lanes,
    stopping: CancellationToken,
}

impl Port {
    /// A port behind which `router` answers.
    pub fn new(router: Router, shown: Shown, bounds: &Bounds, stopping: CancellationToken) -> Self {
        let http2 = http2::Shared {
            buffers: Buffers::default(),
            header_bytes: Arc::clone(&bounds.header_bytes),
            streams: Arc::clone(&bounds.streams),
            unread_bytes: Arc::clone(&bounds.unread_bytes),
        };
        Self { router, shown, http2: Arc::new(http2), lanes: Lanes::new(Instant::now()), stopping }
    }

    /// Runs one connection to its end, or to where it is carried on with others; `place` is dropped when it is over. With
    /// `turned` it is only told why it is not served.
    pub async fn connection<P>(&self, stream: TcpStream, peer: SocketAddr, turned: Option<Turned>, place: P)
    where
        P: Send + 'static,
    {
        if let Err(error) = set_up(&stream) {
            debug!(%peer, %error, "connection refused");
            return;
        }
        let begun = tokio::select! {
            () = self.stopping.cancelled() => return,
            begun = timeout(HANDSHAKE, self.begin(stream, turned)) => begun,
        };
        match begun {
            Ok(Ok(Some(Spoken::Clear(begun, turned)))) => self.serve(begun, Peer(peer), turned, place).await,
            Ok(Ok(Some(Spoken::Tls(begun)))) => self.serve(*begun, Peer(peer), turned, place).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => debug!(%peer, %error, "connection refused"),
            Err(_) => debug!(%peer, "connection refused: nothing whole was said in time"),
        }
    }

    async fn begin(&self, stream: TcpStream, turned: Option<Turned>) -> io::Result<Option<Spoken>> {
        let Some(shown) = &self.shown else {
            return Ok(Begun::read(stream).await?.map(|begun| Spoken::Clear(begun, turned)));
        };
        match speaks_tls(&stream).await? {
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

    /// Has every connection end when its calls have ended, and carries no further ones.
    pub fn leave(&self) {
        self.lanes.leave();
    }

    /// Until all that are carried have ended, once they were told to.
    pub async fn left(&self) {
        self.lanes.empty().await;
    }

    /// Drops those that there still are.
    pub async fn end(&self) {
        self.lanes.end().await;
    }

    async fn serve<S, P>(&self, begun: Begun<S>, peer: Peer, turned: Option<Turned>, place: P)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Send + 'static,
    {
        let router = turned.map_or_else(|| self.router.clone(), turned::router);
        match begun {
            Begun::Two(stream) => self.carry(stream, router, peer, turned, place),
            // Boxed: there are ten thousand hives to each browser.
            Begun::One(stream) => Box::pin(self.serve_one(stream, router, peer, turned)).await,
        }
    }

    fn carry<S, P>(&self, stream: S, router: Router, Peer(peer): Peer, turned: Option<Turned>, place: P)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Send + 'static,
    {
        let shared = Arc::clone(&self.http2);
        let until = turned.map(|_| Instant::now() + TURNED);
        let ended = move |ended| {
            match ended {
                Ok(()) => {}
                Err(Gone::Fault) => warn!(%peer, "a connection failed inside the queen"),
                Err(error) => debug!(%peer, %error, "connection ended"),
            }
            drop(place);
        };
        self.lanes.carry(|bells| http2::Connection::new(stream, router, peer, shared, bells).until(until), ended);
    }

    async fn serve_one<S>(&self, stream: Again<S>, router: Router, peer: Peer, turned: Option<Turned>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let patience = async {
            match turned {
                Some(_) => tokio::time::sleep(TURNED).await,
                None => self.stopping.cancelled().await,
            }
        };
        let service = TowerToHyperService::new(router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.map(Body::new)
        }));
        let headers = HTTP1_HEADERS_MIN.max(self.http2.header_bytes.limit());
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE).max_buf_size(headers);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = patience => {
                connection.as_mut().graceful_shutdown();
                if turned.is_some() { return }
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(peer = %peer.0, %error, "connection ended");
        }
    }
}

/// A connection whose first bytes are there.
enum Spoken {
    /// In the clear, perhaps where it should not be.
    Clear(Begun<TcpStream>, Option<Turned>),
    /// In TLS.
    Tls(Box<Begun<TlsStream<TcpStream>>>),
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::listen;
    use super::*;
    use crate::Config;
    use socket2::SockRef;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn a_peer_that_is_gone_is_given_up_by_the_kernel_within_half_a_minute() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (silent, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (stream, peer) = accepted.unwrap();
        let theirs = silent.unwrap();
        // The same socket under another descriptor: the first one goes with the connection.
        let socket = SockRef::from(&stream).try_clone().unwrap();
        let port = Port::new(Router::new(), None, &Bounds::new(&Config::default()), CancellationToken::new());
        let mut connection = Box::pin(port.connection(stream, peer, None, ()));
        assert!(connection.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let half_a_minute = Duration::from_secs(30);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(half_a_minute));
        let asked = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap() + asked, half_a_minute);
        drop(theirs);
    }
}
