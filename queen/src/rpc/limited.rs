//! Services whose calls may last: only what is asked is bounded, and, where it is asked, when an answer has to begin.

use super::bounded::too_large;
use crate::bound::Bound;
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Service, ServiceExt};

/// Such a service.
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
    /// What it reads, in bytes, and who counts what it does not.
    limit: usize,
    refused: Arc<Bound>,
    /// How long it may be until an answer begins.
    begins: Option<Duration>,
}

impl<S> Limited<S> {
    /// A service that reads questions of at most `limit` bytes.
    pub fn new(inner: S, limit: usize, refused: Arc<Bound>) -> Self {
        Self { inner, limit, refused, begins: None }
    }

    /// Its answers begin within this.
    pub fn begins_within(self, time: Duration) -> Self {
        Self { begins: Some(time), ..self }
    }
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Readiness is asked for inside the call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { inner, limit, refused, begins } = self.clone();
        Box::pin(async move {
            let answering = inner.oneshot(request);
            let late = |time: Duration| Status::deadline_exceeded(format!("no answer within {} s", time.as_secs()));
            let answer = match begins {
                Some(time) => timeout(time, answering).await.unwrap_or_else(|_| Ok(late(time).into_http())),
                None => answering.await,
            };
            answer.map(|answer| too_large(answer, limit, &refused))
        })
    }
}
