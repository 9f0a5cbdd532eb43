//! Unary calls have a deadline, and only so many run at once; what is beyond is refused at once with a retry time.
//! Questions that are too large are refused for good.

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

/// A service of unary calls behind its bounds.
#[derive(Debug, Clone)]
pub struct Bounded<S> {
    inner: S,
    calls: Arc<Bound>,
    request_bytes: Arc<Bound>,
}

impl<S> Bounded<S> {
    /// Puts a service behind the bounds, whose places all services share.
    pub fn new(inner: S, bounds: &Bounds) -> Self {
        let (calls, request_bytes) = (bounds.calls.clone(), bounds.request_bytes.clone());
        Self { inner, calls, request_bytes }
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
        let Some(place) = self.calls.enter() else {
            let sentence = format!("{} calls are already running", self.calls.limit());
            return Box::pin(async { Ok(invalid::exhausted(sentence, RETRY).into_http()) });
        };
        let (service, request_bytes) = (self.inner.clone(), self.request_bytes.clone());
        Box::pin(async move {
            let _place = place;
            let late =
                |_| Ok(Status::deadline_exceeded(format!("no answer within {} s", DEADLINE.as_secs())).into_http());
            let answer = timeout(DEADLINE, service.oneshot(request)).await.unwrap_or_else(late);
            answer.map(|answer| too_large(answer, request_bytes.limit(), &request_bytes))
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
