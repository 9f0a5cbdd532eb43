//! `Watch`, out: stands before the rest of `FleetService` and sends messages that were encoded once, as they are.

mod body;
pub mod rhythm;
mod seat;
mod watcher;

use super::first::Call;
use super::fleet::filter_hive;
use super::{Shared, bounded, invalid};
use crate::bound::Bound;
use crate::fleet::Mask;
use crate::fleet::feed::{Class, Rhythm, Wanted};
use body::Messages;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use proto::{Filter, WatchRequest};
use seat::Seat;
pub use seat::Seats;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Streaming};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic_prost::ProstDecoder;
use watcher::Watcher;

/// How long a caller may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(5);
/// What a caller is told to wait when all places are taken, or when it was cut.
const RETRY: Duration = Duration::from_secs(5);

/// The call.
#[derive(Debug, Clone)]
pub struct Watch {
    shared: Shared,
    request_bytes: Arc<Bound>,
}

impl Watch {
    /// Of this queen's fleet.
    pub fn new(shared: Shared, request_bytes: Arc<Bound>) -> Self {
        Self { shared, request_bytes }
    }
}

impl Call for Watch {
    const PATH: &'static str = "/rbee.v1.FleetService/Watch";

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let begun = timeout(REQUEST, begin(&self.shared, request, self.request_bytes.limit())).await;
        let late = |_| Err(Status::deadline_exceeded(format!("no request within {} s", REQUEST.as_secs())));
        let answer = begun.unwrap_or_else(late).unwrap_or_else(Status::into_http);
        bounded::too_large(answer, self.request_bytes.limit(), &self.request_bytes)
    }
}

/// Reads what is wanted, and answers with the watch.
async fn begin(shared: &Shared, request: Request<Body>, limit: usize) -> Result<Response<Body>, Status> {
    let decoder = ProstDecoder::new(BufferSettings::default());
    let mut asked = Streaming::<WatchRequest>::new_request(decoder, request.into_body(), None, Some(limit));
    let asked = asked.message().await?.ok_or_else(|| Status::invalid_argument("the call has no request"))?;
    let messages = open(shared, asked)?;
    let cut = messages.cut();
    let mut answer = Response::new(Body::new(messages));
    answer.extensions_mut().insert(cut);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::clone(&GRPC_CONTENT_TYPE));
    Ok(answer)
}

/// Begins a watch, if there is a place for it.
fn open(shared: &Shared, request: WatchRequest) -> Result<Messages, Status> {
    let limit = shared.config.max_watchers;
    let full = || invalid::exhausted(format!("this queen serves {limit} watches and has them"), RETRY);
    let place = shared.places.enter().ok_or_else(full)?;
    let asked = invalid::length("min_interval", request.min_interval.as_ref())?.unwrap_or_default();
    let class = class(shared, request.filter, request.fields, request.columns)?;
    let seat = Arc::new(Seat::new());
    let following = shared.fleet.feed().follow(Rhythm::of(asked), seat.bell.clone());
    // States that waited because nobody watched.
    shared.fleet.link_waiting(Instant::now());
    seat.sit(Watcher::begin(shared.clone(), class, following, &request.resume_after)?, place);
    shared.seats.add(&seat);
    Ok(Messages::new(seat))
}

fn class(
    shared: &Shared,
    filter: Option<Filter>,
    fields: Option<prost_types::FieldMask>,
    columns: bool,
) -> Result<Option<Arc<Class>>, Status> {
    let filter = filter.filter(|filter| *filter != Filter::default());
    filter.as_ref().map(filter_hive).transpose()?;
    let paths = fields.map(|mask| mask.paths).unwrap_or_default();
    let mask = Mask::compile(&paths).map_err(|error| invalid::field("fields", error.to_string()))?;
    let everything = filter.is_none() && mask.is_none();
    match shared.fleet.feed().class(Wanted::new(filter, mask, columns)) {
        // Everything in full needs no class, and says the same.
        Err(_) if everything => Ok(None),
        class => class.map_err(|error| invalid::exhausted(error.to_string(), RETRY)),
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
