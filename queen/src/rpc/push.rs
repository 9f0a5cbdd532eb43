//! `PushTelemetry`, in: stands before the rest of `HiveService` and takes frames as the bytes they came as.

use super::farewell::Ended;
use super::{Shared, owner};
use crate::Config;
use crate::fleet::{Outcome, Refusal, hive_of};
use crate::guard::Caller;
use bytes::{Buf, Bytes};
use common::HiveId;
use common::wire::fields;
use http::{Request, Response};
use proto::PushTelemetryResponse;
use proto::hive_service_server::SERVICE_NAME;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::server::{ClientStreamingService, Grpc, NamedService};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstEncoder;
use tower::Service;
use tracing::{info, warn};

/// The path of the one call that is taken here.
const PUSH: &str = "/rbee.v1.HiveService/PushTelemetry";
/// A frame above the limit, but not above this many times the limit, is read and refused by itself, so that its
/// stream can go on.
const DECODED: usize = 2;
/// Room for frames that are coming in, to begin with, in bytes: there are as many as hives.
const BUFFER: usize = 2 * 1024;
/// `PushTelemetryRequest.session`.
const SESSION: u32 = 1;

/// The largest message that is read, in bytes.
pub fn decoded(config: &Config) -> usize {
    config.max_frame_bytes.saturating_mul(DECODED)
}

/// Takes `PushTelemetry`; gives every other call to `inner`.
#[derive(Debug, Clone)]
pub struct PushFirst<S> {
    inner: S,
    shared: Shared,
}

impl<S> PushFirst<S> {
    /// Stands before `inner`.
    pub fn new(inner: S, shared: Shared) -> Self {
        Self { inner, shared }
    }
}

impl<S> NamedService for PushFirst<S> {
    const NAME: &'static str = SERVICE_NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for PushFirst<S>
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
        if request.uri().path() != PUSH {
            return Box::pin(self.inner.call(request));
        }
        let open = Open { shared: self.shared.clone() };
        let limit = decoded(&self.shared.config);
        Box::pin(async move {
            Ok(Grpc::new(AsTheyCome).max_decoding_message_size(limit).client_streaming(open, request).await)
        })
    }
}

struct Open {
    shared: Shared,
}

impl ClientStreamingService<Bytes> for Open {
    type Response = PushTelemetryResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<PushTelemetryResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let ended = request.extensions().get::<Ended>().cloned().unwrap_or_default();
            let (caller, books) = (owner::caller(&request)?, PushTelemetryResponse::default());
            let mut push = Push { shared: &shared, caller, session: None, books, ended };
            push.run(request.into_inner()).await.map(tonic::Response::new)
        })
    }
}

/// Frames in as they are, the summary out as usual.
#[derive(Debug, Clone, Copy)]
struct AsTheyCome;

impl Codec for AsTheyCome {
    type Encode = PushTelemetryResponse;
    type Decode = Bytes;
    type Encoder = ProstEncoder<PushTelemetryResponse>;
    type Decoder = AsTheyCome;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self
    }
}

impl Decoder for AsTheyCome {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(frame.copy_to_bytes(frame.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
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
    async fn run(&mut self, mut frames: Streaming<Bytes>) -> Result<PushTelemetryResponse, Status> {
        let shared = self.shared;
        let stopping = &shared.stopping;
        let first = tokio::select! {
            () = stopping.cancelled() => return Err(at_stop()),
            first = frames.message() => first.map_err(too_large)?,
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
                frame = frames.message() => frame.map_err(too_large)?,
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

/// A message beyond even the decoder's limit ends the stream: it cannot be skipped over.
fn too_large(error: Status) -> Status {
    if error.code() == Code::OutOfRange { Status::resource_exhausted(error.message()) } else { error }
}

fn at_stop() -> Status {
    Status::unavailable("the queen is stopping")
}

/// The session that a frame names: encoders write it first.
fn session_in(frame: &[u8]) -> Option<&str> {
    fields(frame).find_map(|field| field.ok().filter(|(number, _)| *number == SESSION)?.1.text().ok())
}
