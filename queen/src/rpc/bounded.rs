//! Unary calls have a deadline, and only so many run at once; what is beyond is refused at once with a retry time.

use super::invalid;
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::timeout::{Timeout, error::Elapsed};
use tower::{Service, ServiceBuilder, ServiceExt};

/// A call whose answer has not begun by then ends with DEADLINE_EXCEEDED.
const DEADLINE: Duration = Duration::from_secs(5);
/// At most this many calls of one service run at once.
const AT_ONCE: usize = 512;
/// What a refused caller is told to wait.
const RETRY: Duration = Duration::from_secs(1);

/// A service of unary calls behind its bounds.
#[derive(Debug, Clone)]
pub struct Bounded<S> {
    inner: LoadShed<ConcurrencyLimit<Timeout<S>>>,
}

impl<S> Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    /// Puts a service behind the bounds.
    pub fn new(service: S) -> Self {
        let inner = ServiceBuilder::new().load_shed().concurrency_limit(AT_ONCE).timeout(DEADLINE).service(service);
        Self { inner }
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
        let service = self.inner.clone();
        Box::pin(async move {
            Ok(service.oneshot(request).await.unwrap_or_else(|error| {
                let status = if error.is::<Elapsed>() {
                    Status::deadline_exceeded(format!("no answer within {} s", DEADLINE.as_secs()))
                } else {
                    invalid::exhausted(format!("{AT_ONCE} calls are already running"), RETRY)
                };
                status.into_http()
            }))
        })
    }
}
