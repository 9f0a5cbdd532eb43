//! `PushTelemetry`, in: stands before the rest of `HiveService` and takes frames as the bytes they came as.

mod frames;

use super::farewell::Ended;
use super::first::Call;
use super::{Shared, owner};
use crate::Config;
use crate::fleet::{Outcome, Refusal, hive_of};
use crate::guard::Caller;
use bytes::{BufMut, BytesMut};
use common::HiveId;
use common::wire::fields;
use frames::Frames;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use proto::PushTelemetryResponse;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tracing::{info, warn};

/// A frame above the limit, but not above this many times the limit, is read and refused by itself, so that its
/// stream can go on.
const DECODED: usize = 2;
/// `PushTelemetryRequest.session`.
const SESSION: u32 = 1;

/// The largest message that is read, in bytes.
pub fn decoded(config: &Config) -> usize {
    config.max_frame_bytes.saturating_mul(DECODED)
}

/// The call.
#[derive(Debug, Clone)]
pub struct PushTelemetry {
    shared: Shared,
}

impl PushTelemetry {
    /// Into this queen.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    async fn take(&self, request: Request<Body>) -> Result<PushTelemetryResponse, Status> {
        let ended = request.extensions().get::<Ended>().cloned().unwrap_or_default();
        let (caller, books) = (owner::caller_of(&request)?, PushTelemetryResponse::default());
        let frames = Frames::new(request.into_body(), decoded(&self.shared.config));
        Push { shared: &self.shared, caller, session: None, books, ended }.run(frames).await
    }
}

impl Call for PushTelemetry {
    const PATH: &'static str = "/rbee.v1.HiveService/PushTelemetry";

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let books = self.take(request).await;
        books.and_then(|books| summary(&books)).unwrap_or_else(Status::into_http)
    }
}

/// The one message of an answer, and that all went well.
fn summary(books: &PushTelemetryResponse) -> Result<Response<Body>, Status> {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(books.encoded_len()).unwrap_or(u32::MAX));
    books.encode_raw(&mut bytes);
    let mut trailers = HeaderMap::new();
    Status::ok("").add_header(&mut trailers)?;
    let body = Full::new(bytes.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut answer = Response::new(Body::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::clone(&GRPC_CONTENT_TYPE));
    Ok(answer)
}

/// A session that has a stream.
struct Attached {
    session: String,
    hive: HiveId,
}

/// One stream. Detaches from its session when it is dropped, however that comes about.
struct Push<'a> {
    shared: &'a Shared,
    caller: Caller,
    session: Option<Attached>,
    books: PushTelemetryResponse,
    ended: Ended,
}

impl Push<'_> {
    async fn run(mut self, mut frames: Frames) -> Result<PushTelemetryResponse, Status> {
        let shared = self.shared;
        let stopping = &shared.stopping;
        let first = tokio::select! {
            () = stopping.cancelled() => return Err(at_stop()),
            first = frames.next() => first?,
        };
        let Some(first) = first else { return Ok(self.books) };
        let fence = self.attach(&first)?;
        self.take(&first)?;
        let interrupted = async {
            tokio::select! {
                () = stopping.cancelled() => at_stop(),
                () = fence.cancelled() => Refusal::Superseded.into(),
            }
        };
        tokio::pin!(interrupted);
        loop {
            let frame = tokio::select! {
                biased;
                status = &mut interrupted => return Err(status),
                frame = frames.next() => frame?,
            };
            match frame {
                Some(frame) => self.take(&frame)?,
                None => {
                    if self.ended.in_order() {
                        self.detach(true);
                    }
                    return Ok(self.books);
                }
            }
        }
    }

    /// The first frame says which session this is.
    fn attach(&mut self, frame: &[u8]) -> Result<CancellationToken, Status> {
        let session = session_in(frame).unwrap_or_default().to_owned();
        owner::check(self.shared, &self.caller, owner::hive_of(&session))?;
        let hive = hive_of(&session)?;
        let fence = self.shared.fleet.attach(&session)?;
        self.session = Some(Attached { session, hive });
        Ok(fence)
    }

    fn take(&mut self, frame: &[u8]) -> Result<(), Status> {
        let Some(attached) = &self.session else { return Err(Refusal::Unknown.into()) };
        if session_in(frame) != Some(&attached.session) {
            return Err(super::invalid::field("session", "a stream carries the frames of one session"));
        }
        match self.shared.fleet.apply_bytes(Instant::now(), &attached.hive, frame)? {
            Outcome::Accepted { samples, dropped } => {
                self.books.frames_accepted += 1;
                self.books.samples_accepted += samples;
                self.books.fields_dropped += dropped;
                self.shared.counts.accepted(samples, dropped);
            }
            Outcome::Replayed => {
                self.books.frames_refused += 1;
                self.shared.counts.replayed();
            }
            Outcome::Refused(reason) => {
                let hive = self.hive();
                warn!(hive, reason, "frame refused");
                self.books.frames_refused += 1;
                self.shared.counts.refused();
            }
        }
        Ok(())
    }

    fn hive(&self) -> &str {
        self.session.as_ref().map_or("", |attached| attached.hive.as_str())
    }

    fn detach(&mut self, goodbye: bool) {
        if let Some(attached) = self.session.take() {
            self.shared.fleet.detach(Instant::now(), &attached.session, goodbye);
        }
    }
}

impl Drop for Push<'_> {
    fn drop(&mut self) {
        if self.session.is_some() {
            info!(hive = self.hive(), "telemetry stream ended");
        }
        self.detach(false);
    }
}

fn at_stop() -> Status {
    Status::unavailable("the queen is stopping")
}

/// The session that a frame names: encoders write it first.
fn session_in(frame: &[u8]) -> Option<&str> {
    fields(frame).find_map(|field| field.ok().filter(|(number, _)| *number == SESSION)?.1.text().ok())
}
