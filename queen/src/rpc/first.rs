//! One call that is taken before the generated service sees it: for streams whose messages are handed on as the bytes they
//! are.

use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// The call.
pub trait Call: Clone + Send + 'static {
    /// Its path.
    const PATH: &'static str;

    /// Answers it.
    fn answer(self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// Takes the call; gives every other one to `inner`.
#[derive(Debug, Clone)]
pub struct First<S, C> {
    inner: S,
    call: C,
}

impl<S, C> First<S, C> {
    /// Stands before `inner`.
    pub fn new(inner: S, call: C) -> Self {
        Self { inner, call }
    }
}

impl<S: NamedService, C> NamedService for First<S, C> {
    const NAME: &'static str = S::NAME;
}

impl<S, C> Service<Request<Body>> for First<S, C>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
    C: Call,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != C::PATH {
            return Box::pin(self.inner.call(request));
        }
        let call = self.call.clone();
        Box::pin(async move { Ok(call.answer(request).await) })
    }
}
