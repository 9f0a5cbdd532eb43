//! Unary calls have a deadline, and only so many run at once; what is beyond is refused at once with a retry time.
//! Questions that are too large are refused for good, also those of calls that may last.

use super::invalid;
use crate::bound::{Bound, Bounds};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

/// A call whose answer has not begun by then ends with DEADLINE_EXCEEDED.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a refused caller is told to wait.
const RETRY: Duration = Duration::from_secs(1);

/// A service behind its bounds.
#[derive(Debug, Clone)]
pub struct Bounded<S> {
    inner: S,
    /// The places of its calls; `None` where they may last.
    calls: Option<Arc<Bound>>,
    /// How long it may be until an answer begins.
    begins: Option<Duration>,
    /// What it reads, in bytes, and who counts what it does not.
    limit: usize,
    request_bytes: Arc<Bound>,
}

impl<S> Bounded<S> {
    /// A service of unary calls. All such services share the places.
    pub fn unary(inner: S, bounds: &Bounds) -> Self {
        let (calls, request_bytes) = (Some(bounds.calls.clone()), bounds.request_bytes.clone());
        Self { inner, calls, begins: Some(DEADLINE), limit: request_bytes.limit(), request_bytes }
    }

    /// One whose calls may last. It reads questions of at most `limit` bytes.
    pub fn lasting(inner: S, limit: usize, bounds: &Bounds) -> Self {
        Self { inner, calls: None, begins: None, limit, request_bytes: bounds.request_bytes.clone() }
    }

    /// Its answers begin within this.
    pub fn begins_within(self, time: Duration) -> Self {
        Self { begins: Some(time), ..self }
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Readiness is asked for inside the call, where a refusal can be answered.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = self.calls.as_ref().map(|calls| (calls.enter(), calls.limit()));
        if let Some((None, limit)) = place {
            let sentence = format!("{limit} calls are already running");
            return Box::pin(async { Ok(invalid::exhausted(sentence, RETRY).into_http()) });
        }
        let Self { inner, begins, limit, request_bytes, .. } = self.clone();
        Box::pin(async move {
            let _place = place;
            let answering = inner.oneshot(request);
            let late = |time: Duration| Status::deadline_exceeded(format!("no answer within {} s", time.as_secs()));
            let answer = match begins {
                Some(time) => timeout(time, answering).await.unwrap_or_else(|_| Ok(late(time).into_http())),
                None => answering.await,
            };
            answer.map(|answer| too_large(answer, limit, &request_bytes))
        })
    }
}

/// The decoder refuses what has more than `limit` bytes with OUT_OF_RANGE, which nothing else here does. It will not fit
/// later either: there is no retry time.
pub fn too_large(answer: Response<Body>, limit: usize, bound: &Bound) -> Response<Body> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() == Code::OutOfRange => {
            bound.refuse();
            Status::resource_exhausted(format!("a question of more than {limit} bytes is not read")).into_http()
        }
        _ => answer,
    }
}
