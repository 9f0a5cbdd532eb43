//! Calls by method and status, how long unary ones took, and how many run. Stands inside of grpc-web, where every
//! status is still a header or trailer.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::{Code, Status};

/// Upper ends of the classes of durations, in seconds.
const SECONDS: [f64; 12] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];
/// What a path is called that no service has: anybody can make up paths, and each series costs memory for ever.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    method: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: String,
}

type Durations = Family<Method, Histogram, fn() -> Histogram>;

/// The counts. Cheap to share.
#[derive(Debug, Clone)]
pub struct Calls {
    ended: Family<Ended, Counter>,
    durations: Durations,
    open: Gauge,
    /// Every path that is served, and whether its calls are unary.
    known: Arc<HashMap<String, bool>>,
}

impl Calls {
    /// Of all services that are described.
    pub fn new() -> Self {
        let mut known = HashMap::new();
        for described in [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let set = prost_types::FileDescriptorSet::decode(described).unwrap_or_default();
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        known.insert(path, !method.client_streaming() && !method.server_streaming());
                    }
                }
            }
        }
        let durations = Durations::new_with_constructor(|| Histogram::new(SECONDS));
        Self { ended: Family::default(), durations, open: Gauge::default(), known: Arc::new(known) }
    }

    /// Shows the counts in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("calls", "Calls that ended, by method and gRPC status", self.ended.clone());
        registry.register("call_duration_seconds", "How long unary calls took", self.durations.clone());
        registry.register("streams", "Calls that are open, streams among them", self.open.clone());
    }

    fn begin(&self, path: &str) -> Running {
        let unary = self.known.get(path).copied();
        let method = if unary.is_some() { path.trim_start_matches('/') } else { OTHER };
        self.open.inc();
        let began = unary.unwrap_or(false).then(Instant::now);
        Running { calls: self.clone(), method: method.to_owned(), began, code: None }
    }
}

/// A call from its beginning to its end, whichever way it ends.
struct Running {
    calls: Calls,
    method: String,
    began: Option<Instant>,
    code: Option<Code>,
}

impl Running {
    /// Takes the status out of headers or trailers.
    fn read(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = Some(status.code());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.open.dec();
        // Without a status the caller left, or the connection did.
        let code = word(self.code.unwrap_or(Code::Cancelled));
        let method = std::mem::take(&mut self.method);
        if let Some(began) = self.began {
            self.calls
                .durations
                .get_or_create(&Method { method: method.clone() })
                .observe(began.elapsed().as_secs_f64());
        }
        self.calls.ended.get_or_create(&Ended { method, code }).inc();
    }
}

/// The layer.
pub async fn count(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let mut running = calls.begin(request.uri().path());
    let response = next.run(request).await;
    running.read(response.headers());
    response.map(|body| Body::new(Counted { body, running }))
}

struct Counted {
    body: Body,
    running: Running,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.running.read(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As the gRPC documents write it.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_somebody_makes_up_are_one_series() {
        let calls = Calls::new();
        for path in ["/a/b", "/rbee.v1.FleetService/Nothing", "/"] {
            drop(calls.begin(path));
        }
        let mut watch = calls.begin("/rbee.v1.FleetService/Watch");
        watch.code = Some(Code::Unavailable);
        assert_eq!(calls.open.get(), 1);
        drop(watch);
        drop(calls.begin("/rbee.v1.FleetService/ListHives"));
        let count = |method: &str, code| calls.ended.get(&Ended { method: method.to_owned(), code }).map(|c| c.get());
        assert_eq!(count(OTHER, "CANCELLED"), Some(3));
        assert_eq!(count("rbee.v1.FleetService/Watch", "UNAVAILABLE"), Some(1));
        assert_eq!(calls.open.get(), 0);
        let took = |method: &str| calls.durations.get(&Method { method: method.to_owned() }).is_some();
        assert!(took("rbee.v1.FleetService/ListHives") && !took(OTHER) && !took("rbee.v1.FleetService/Watch"));
    }
}
