//! `Watch`, out: stands before the rest of `FleetService` and sends messages that were encoded once, as they are.

mod body;
pub mod rhythm;
mod seat;
mod watcher;

use super::fleet::filter_hive;
use super::{Shared, bounded, invalid};
use crate::bound::Bound;
use crate::fleet::Mask;
use crate::fleet::feed::{Class, Rhythm, Wanted};
use body::Messages;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use proto::fleet_service_server::SERVICE_NAME;
use proto::{Filter, WatchRequest};
use seat::Seat;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Streaming};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use tonic_prost::ProstDecoder;
use tower::Service;
use watcher::Watcher;

/// The path of the one call that is taken here.
const WATCH: &str = "/rbee.v1.FleetService/Watch";
/// How long a caller may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(5);
/// What a caller is told to wait when all places are taken, or when it was cut.
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
        let (shared, request_bytes) = (self.shared.clone(), self.request_bytes.clone());
        Box::pin(async move {
            let begun = timeout(REQUEST, begin(&shared, request, request_bytes.limit())).await;
            let late = |_| Err(Status::deadline_exceeded(format!("no request within {} s", REQUEST.as_secs())));
            let answer = begun.unwrap_or_else(late).unwrap_or_else(Status::into_http);
            Ok(bounded::too_large(answer, &request_bytes))
        })
    }
}

/// Reads what is wanted, and answers with the watch.
async fn begin(shared: &Shared, request: Request<Body>, limit: usize) -> Result<Response<Body>, Status> {
    let decoder = ProstDecoder::new(BufferSettings::default());
    let mut asked = Streaming::<WatchRequest>::new_request(decoder, request.into_body(), None, Some(limit));
    let asked = asked.message().await?.ok_or_else(|| Status::invalid_argument("the call has no request"))?;
    let mut answer = Response::new(Body::new(open(shared, asked)?));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::clone(&GRPC_CONTENT_TYPE));
    Ok(answer)
}

/// Begins a watch, if there is a place for it.
fn open(shared: &Shared, request: WatchRequest) -> Result<Messages, Status> {
    let limit = shared.config.max_watchers;
    let full = || invalid::exhausted(format!("this queen serves {limit} watches and has them"), RETRY);
    let place = shared.places.enter().ok_or_else(full)?;
    let asked = invalid::length("min_interval", request.min_interval.as_ref())?.unwrap_or_default();
    let class = class(shared, request.filter, request.fields)?;
    let seat = Arc::new(Seat::new());
    let following = shared.fleet.feed().follow(Rhythm::of(asked), seat.clone());
    // States that waited because nobody watched.
    shared.fleet.link_waiting(Instant::now());
    seat.sit(Watcher::begin(shared.clone(), class, following, &request.resume_after)?, place);
    Ok(Messages::new(seat))
}

fn class(
    shared: &Shared,
    filter: Option<Filter>,
    fields: Option<prost_types::FieldMask>,
) -> Result<Option<Arc<Class>>, Status> {
    let filter = filter.filter(|filter| *filter != Filter::default());
    filter.as_ref().map(filter_hive).transpose()?;
    let paths = fields.map(|mask| mask.paths).unwrap_or_default();
    let mask = Mask::compile(&paths).map_err(|error| invalid::field("fields", error.to_string()))?;
    let wanted = Wanted { filter, mask };
    shared.fleet.feed().class(wanted).map_err(|error| invalid::exhausted(error.to_string(), RETRY))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
