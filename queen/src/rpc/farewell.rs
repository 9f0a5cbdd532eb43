//! Tells a stream that its client ended in order from one that was cut: a connection that is given up (its peer answers
//! no ping) and a call that is dropped end a body without an error, like an end in order does.

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// Whether the client of a call said that nothing more follows. Found among the extensions of its request.
#[derive(Debug, Clone, Default)]
pub struct Ended(Arc<AtomicBool>);

impl Ended {
    /// It has said so.
    pub fn in_order(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A service whose requests have an [`Ended`].
#[derive(Debug, Clone)]
pub struct Farewell<S> {
    inner: S,
}

impl<S> Farewell<S> {
    /// Stands before `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for Farewell<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Farewell<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let ended = Ended::default();
        let seen = ended.clone();
        let mut request = request.map(|body| Body::new(Read { body, ended: seen }));
        request.extensions_mut().insert(ended);
        self.inner.call(request)
    }
}

/// A body that notes how it ended.
struct Read {
    body: Body,
    ended: Ended,
}

impl http_body::Body for Read {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // A stream that was reset has no end; hyper ends the body all the same when the reason is NO_ERROR or CANCEL.
        if matches!(frame, Poll::Ready(None)) && self.body.is_end_stream() {
            self.ended.0.store(true, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        // Not passed on: the end is noted when it is read.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
