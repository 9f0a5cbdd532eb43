//! `PushTelemetry`, in: stands before the rest of `HiveService` and takes frames as the bytes they came as.

mod books;
mod frames;
mod seldom;

use super::first::Call;
use super::telemetry::retry_window;
use super::{Shared, owner};
use crate::Config;
use crate::fleet::{Outcome, Refusal, hive_of};
use crate::guard::Caller;
use crate::server::Ended;
use books::Books;
use common::HiveId;
use common::wire::fields;
use frames::Frames;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use proto::PushTelemetryResponse;
use seldom::Seldom;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::{info, warn};

/// A frame above the limit, but not above this many times the limit, is read and refused by itself, so that its
/// stream can go on.
const DECODED: usize = 2;
/// How long a stream may be open before its first frame is there, which says whose it is.
const FIRST: Duration = Duration::from_secs(5);
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

    /// Begins to take frames.
    fn begin(self, request: Request<Body>) -> Result<Books, Status> {
        let ended = request.extensions().get::<Ended>().cloned();
        let (caller, books) = (owner::caller_of(&request)?, PushTelemetryResponse::default());
        let frames = Frames::new(request.into_body(), decoded(&self.shared.config));
        let push = Push { shared: self.shared, caller, session: None, books, ended };
        Ok(Books::of(push.run(frames)))
    }
}

impl Call for PushTelemetry {
    const PATH: &'static str = "/rbee.v1.HiveService/PushTelemetry";

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        match self.begin(request) {
            Ok(books) => {
                let mut answer = Response::new(Body::new(books));
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::clone(&GRPC_CONTENT_TYPE));
                answer
            }
            Err(status) => status.into_http(),
        }
    }
}

/// Why a stream ends that has more to say.
enum Interrupted {
    Stopping,
    Superseded,
}

/// A session that has a stream.
struct Attached {
    session: String,
    hive: HiveId,
}

/// One stream. Detaches from its session when it is dropped, however that comes about.
struct Push {
    shared: Shared,
    caller: Caller,
    session: Option<Attached>,
    books: PushTelemetryResponse,
    /// Whether its client has said that nothing more follows; `None` where that cannot be known.
    ended: Option<Ended>,
}

impl Push {
    async fn run(mut self, mut frames: Frames) -> Result<PushTelemetryResponse, Status> {
        let stopping = self.shared.stopping.clone();
        let first = tokio::select! {
            () = stopping.cancelled() => return Err(self.at_stop()),
            first = timeout(FIRST, frames.next()) => first.map_err(|_| late())?.inspect_err(|status| self.unread(status))?,
        };
        let Some(first) = first else { return Ok(self.books) };
        let fence = self.attach(&first)?;
        self.take(&first)?;
        let interrupted = Seldom::of(async {
            tokio::select! {
                () = stopping.cancelled() => Interrupted::Stopping,
                () = fence.cancelled() => Interrupted::Superseded,
            }
        });
        tokio::pin!(interrupted);
        loop {
            // Frames first: whether the stream is to end is asked when it has nothing more to say for now.
            let frame = tokio::select! {
                biased;
                frame = frames.next() => frame.inspect_err(|status| self.unread(status))?,
                interrupted = &mut interrupted => return Err(match interrupted {
                    Interrupted::Stopping => self.at_stop(),
                    Interrupted::Superseded => Refusal::Superseded.into(),
                }),
            };
            match frame {
                Some(frame) => self.take(&frame)?,
                None => {
                    if self.ended.as_ref().is_some_and(Ended::in_order) {
                        self.detach(true);
                    }
                    return Ok(self.books);
                }
            }
        }
    }

    /// A message that was not even read counts as one that was refused.
    fn unread(&self, status: &Status) {
        if status.code() == Code::ResourceExhausted {
            self.shared.fleet.count_unread_frame();
        }
    }

    /// A large fleet comes back spread over a while.
    fn at_stop(&self) -> Status {
        let sentence = "the queen is stopping";
        let Some((min, max)) = retry_window(self.shared.fleet.known()) else { return Status::unavailable(sentence) };
        let share = RandomState::new().hash_one(self.hive()) as f64 / u64::MAX as f64;
        let details = ErrorDetails::with_retry_info(Some(min + (max - min).mul_f64(share)));
        Status::with_error_details(Code::Unavailable, sentence, details)
    }

    /// The first frame says which session this is.
    fn attach(&mut self, frame: &[u8]) -> Result<CancellationToken, Status> {
        let session = session_in(frame).unwrap_or_default().to_owned();
        owner::check(&self.shared, &self.caller, owner::hive_of(&session))?;
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

impl Drop for Push {
    fn drop(&mut self) {
        if self.session.is_some() {
            info!(hive = self.hive(), "telemetry stream ended");
        }
        self.detach(false);
    }
}

fn late() -> Status {
    Status::deadline_exceeded(format!("no frame within {} s", FIRST.as_secs()))
}

/// The session that a frame names: encoders write it first.
fn session_in(frame: &[u8]) -> Option<&str> {
    fields(frame).find_map(|field| field.ok().filter(|(number, _)| *number == SESSION)?.1.text().ok())
}
