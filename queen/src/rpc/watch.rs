//! `Watch`, out: stands before the rest of `FleetService` and sends messages that were encoded once, as bytes.

use super::watcher::Watcher;
use super::{Shared, bounded, invalid};
use crate::bound::Bound;
use bytes::{BufMut, Bytes};
use http::{Request, Response};
use proto::WatchRequest;
use proto::fleet_service_server::SERVICE_NAME;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic_prost::ProstDecoder;
use tower::Service;

/// The path of the one call that is taken here.
const WATCH: &str = "/rbee.v1.FleetService/Watch";
/// Messages made ahead of a reader: one. A slower reader is shown newer states instead.
const AHEAD: usize = 1;
/// How long a caller may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(5);
/// What a caller is told to wait when all places are taken.
const RETRY: Duration = Duration::from_secs(5);

/// Takes `Watch`; gives every other call to `inner`.
#[derive(Debug, Clone)]
pub struct WatchFirst<S> {
    inner: S,
    shared: Shared,
    request_bytes: Arc<Bound>,
}

impl<S> WatchFirst<S> {
    /// Stands before `inner`.
    pub fn new(inner: S, shared: Shared, request_bytes: Arc<Bound>) -> Self {
        Self { inner, shared, request_bytes }
    }
}

impl<S> NamedService for WatchFirst<S> {
    const NAME: &'static str = SERVICE_NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for WatchFirst<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        if request.uri().path() != WATCH {
            return Box::pin(self.inner.call(request));
        }
        let open = Open { shared: self.shared.clone() };
        let request_bytes = self.request_bytes.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Encoded).max_decoding_message_size(request_bytes.limit());
            let begun = timeout(REQUEST, grpc.server_streaming(open, request)).await;
            let late = |_| Status::deadline_exceeded(format!("no request within {} s", REQUEST.as_secs())).into_http();
            Ok(bounded::too_large(begun.unwrap_or_else(late), &request_bytes))
        })
    }
}

struct Open {
    shared: Shared,
}

impl ServerStreamingService<WatchRequest> for Open {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = std::future::Ready<Result<tonic::Response<Messages>, Status>>;

    fn call(&mut self, request: tonic::Request<WatchRequest>) -> Self::Future {
        std::future::ready(open(&self.shared, request.into_inner()).map(tonic::Response::new))
    }
}

/// Begins a watch, if there is a place for it.
pub(super) fn open(shared: &Shared, request: WatchRequest) -> Result<Messages, Status> {
    let limit = shared.config.max_watchers;
    let full = || invalid::exhausted(format!("this queen serves {limit} watches and has them"), RETRY);
    let place = shared.places.enter().ok_or_else(full)?;
    let (out, messages) = mpsc::channel(AHEAD);
    let watcher = Watcher::new(shared.clone(), request, out)?;
    // The place goes with the watcher: one that was cut is over, although its client may never read that.
    let watching = async move {
        let _place = place;
        watcher.run().await
    };
    Ok(Messages { messages, watcher: tokio::spawn(watching), over: false })
}

/// The messages of one watch, then how it ended. Dropped when the client is gone, which ends the watcher.
#[derive(Debug)]
pub struct Messages {
    messages: mpsc::Receiver<Bytes>,
    watcher: JoinHandle<Result<(), Status>>,
    over: bool,
}

impl Stream for Messages {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(message) = ready!(self.messages.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let ended = ready!(Pin::new(&mut self.watcher).poll(cx));
        self.over = true;
        Poll::Ready(match ended {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(Err(status)),
            Err(_) => Some(Err(Status::internal("the watch failed inside the queen"))),
        })
    }
}

/// Bytes out as they are, requests in as usual.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = WatchRequest;
    type Encoder = AsIs;
    type Decoder = ProstDecoder<WatchRequest>;

    fn encoder(&mut self) -> AsIs {
        AsIs
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

#[derive(Debug)]
struct AsIs;

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(message.len());
        into.put(message);
        Ok(())
    }
}
