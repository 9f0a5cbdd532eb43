//! A peer that says whatever a test wants, frame by frame, and the queen's end of its connection.

use super::super::frame::{Head, flag, kind};
use super::super::hpack::{self, Decoder};
use super::super::{Connection, Cut, Lanes, Patient, Shared};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;

/// Far above what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The limits of these connections.
pub const STREAMS: usize = 4;
pub const HEADER_BYTES: usize = 20_000;
/// What `/large` answers with.
pub const LARGE: usize = 300_000;
/// What `/huge` does.
pub const HUGE: usize = 1_000_000;
/// Room for what nobody reads.
pub const UNREAD: usize = HUGE + LARGE;

/// How a connection ended.
pub type Ended = JoinHandle<Result<(), String>>;

/// What answers, and what does not.
pub fn router() -> Router {
    Router::new()
        .route("/echo", post(|request: Request| async { request.into_body() }))
        .route("/large", get(|| async { vec![7_u8; LARGE] }))
        .route("/huge", get(|| async { vec![7_u8; HUGE] }))
        .route("/patient", get(|| async { (Extension(Patient), vec![7_u8; LARGE]) }))
        .route("/never", get(std::future::pending::<()>).post(std::future::pending::<()>))
        .route("/held", post(|request: Request| async { (request, std::future::pending::<()>().await).1 }))
        .route("/taken", post(|request: Request| async { request.into_body().collect().await.unwrap().to_bytes() }))
        .route("/counted", post(count))
        .route("/elsewhere", post(async |request: Request| tokio::spawn(count(request)).await.unwrap()))
        .route("/inside", post(async |request: Request| Body::from_stream(tokio_stream::once(request).then(count))))
        .route("/panics", get(panics))
        .route("/unread", post(|| async { "no" }))
        .route("/cut/{bytes}", get(cut))
        .route("/fields", get(|request: Request| async move { format!("{:?}", request.headers()) }))
}

async fn panics() -> String {
    panic!("as it was asked to")
}

/// Two pieces of so many bytes, and how it ended, for a reader who is cut off.
async fn cut(Path(bytes): Path<usize>) -> Response {
    let (piece, cut) = (vec![7_u8; bytes], Cut::default());
    cut.now();
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("8"))]);
    let frames = [Frame::data(piece.clone().into()), Frame::data(piece.into()), Frame::trailers(trailers)];
    let frames = tokio_stream::iter(frames.map(Ok::<Frame<Bytes>, Infallible>));
    let mut answer = Response::new(Body::new(StreamBody::new(frames)));
    answer.extensions_mut().insert(cut);
    answer
}

/// How long a body is, found out within the answer.
async fn count(request: Request) -> Result<String, Infallible> {
    Ok(request.into_body().collect().await.unwrap().to_bytes().len().to_string())
}

/// What the connections of a test share.
pub fn shared() -> Arc<Shared> {
    Arc::new(Shared::new(HEADER_BYTES, STREAMS, UNREAD))
}

/// Runs the queen's end of a connection, which leaves when it is told to.
pub fn serve(io: DuplexStream, leave: Arc<Notify>) -> Ended {
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let (lanes, (told, mut ended)) = (Lanes::new(Instant::now()), oneshot::channel());
    let connection = |bells: &_| Connection::new(io, router(), from, shared(), bells);
    lanes.carry(connection, |ended| told.send(ended.map_err(|error| error.to_string())).unwrap());
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = &mut ended => ended,
            () = leave.notified() => {
                lanes.leave();
                ended.await
            }
        };
        ended.expect("an end")
    })
}

/// A frame as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub head: Head,
    pub payload: Bytes,
}

/// A peer.
pub struct Peer {
    pub io: DuplexStream,
    pub decoder: Decoder,
    pub ended: Ended,
    pub leave: Arc<Notify>,
    kept: Vec<Heard>,
}

impl Peer {
    /// One whose preface was read, and that has heard what the queen wants.
    pub async fn new() -> Self {
        let (io, ours) = tokio::io::duplex(1 << 20);
        let leave = Arc::new(Notify::new());
        let ended = serve(ours, leave.clone());
        let mut peer = Self { io, decoder: Decoder::new(), ended, leave, kept: Vec::new() };
        assert_eq!(peer.hear().await.head.kind, kind::SETTINGS);
        assert_eq!(peer.hear().await.head.kind, kind::WINDOW_UPDATE);
        peer
    }

    /// Says a frame.
    pub async fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head { length: payload.len(), kind, flags, stream };
        // Who is not listened to any more has been told why.
        let _said = self.io.write_all(&[&head.bytes()[..], payload].concat()).await;
    }

    /// Asks for a path; `end` when that is all.
    pub async fn ask(&mut self, stream: u32, method: &str, path: &str, end: bool) {
        let block = block(&[(":method", method), (":scheme", "http"), (":path", path)]);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        self.say(kind::HEADERS, flags, stream, &block).await;
    }

    /// The next frame.
    pub async fn hear(&mut self) -> Heard {
        self.try_hear().await.expect("a frame")
    }

    /// The next frame; `None` when there are no more.
    pub async fn try_hear(&mut self) -> Option<Heard> {
        let mut head = [0; Head::BYTES];
        let read = timeout(PATIENCE, self.io.read_exact(&mut head)).await.expect("in time");
        read.ok()?;
        let head = Head::read(head);
        let mut payload = vec![0; head.length];
        timeout(PATIENCE, self.io.read_exact(&mut payload)).await.expect("in time").ok()?;
        Some(Heard { head, payload: payload.into() })
    }

    /// The next frame of a stream that says something else than how far its window is open. Those of others are kept.
    pub async fn hear_of(&mut self, stream: u32) -> Heard {
        if let Some(at) = self.kept.iter().position(|heard| heard.head.stream == stream) {
            return self.kept.remove(at);
        }
        loop {
            let heard = self.hear().await;
            match heard.head {
                Head { kind: kind::WINDOW_UPDATE, .. } | Head { stream: 0, .. } => {}
                head if head.stream == stream => return heard,
                _ => self.kept.push(heard),
            }
        }
    }

    /// It is for later.
    pub fn keep(&mut self, heard: Heard) {
        self.kept.push(heard);
    }

    /// The status of the answer that begins next on a stream.
    pub async fn status(&mut self, stream: u32) -> String {
        let heard = self.hear_of(stream).await;
        assert_eq!(heard.head.kind, kind::HEADERS, "{heard:?}");
        let mut status = String::new();
        let read = self.decoder.read(&heard.payload, |name, value| {
            if name == b":status" {
                status = String::from_utf8_lossy(value).into_owned();
            }
        });
        read.unwrap();
        status
    }

    /// The body that follows, to its end.
    pub async fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let heard = self.hear_of(stream).await;
            assert_eq!(heard.head.kind, kind::DATA, "{heard:?}");
            body.extend_from_slice(&heard.payload);
            if heard.head.has(flag::END_STREAM) {
                return body;
            }
        }
    }

    /// Why the connection was ended, and that it was.
    pub async fn farewell(mut self) -> u32 {
        let mut reason = None;
        while let Some(heard) = self.try_hear().await {
            if heard.head.kind == kind::GOAWAY {
                reason = heard.payload[4..].first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            }
        }
        assert!(timeout(PATIENCE, self.ended).await.unwrap().unwrap().is_err());
        reason.expect("a farewell")
    }

    /// That everything is well: an answer comes.
    pub async fn is_well(&mut self, stream: u32) {
        self.ask(stream, "GET", "/fields", true).await;
        assert_eq!(self.status(stream).await, "200");
        assert_eq!(self.body(stream).await, b"{}");
    }
}

/// Fields, as a peer might write them.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::put(name.as_bytes(), value.as_bytes(), &mut block));
    block
}
