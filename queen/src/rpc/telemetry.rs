//! `HiveService`: Register, and the stream of frames in. `attach` has its tunnels.

use super::farewell::Ended;
use super::{Shared, attach, owner};
use crate::fleet::{Outcome, Refusal};
use crate::guard::Caller;
use proto::hive_service_server::HiveService;
use proto::{PushTelemetryRequest, PushTelemetryResponse, RegisterRequest, RegisterResponse};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

/// So many characters of a hive's name are logged, whether or not it is one.
const NAMED: usize = 80;

/// Serves hives.
#[derive(Debug, Clone)]
pub struct Ingest {
    shared: Shared,
}

impl Ingest {
    /// Serves from what is shared.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }
}

/// 64 bits that nobody can guess, as text: the standard library seeds its hashers from the system.
pub fn token() -> String {
    format!("{:016x}", RandomState::new().hash_one("rbee"))
}

#[tonic::async_trait]
impl HiveService for Ingest {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let fleet = &self.shared.fleet;
        let caller = owner::caller(&request)?;
        let request = request.into_inner();
        let hive: String = request.hive.iter().flat_map(|hive| hive.id.chars()).take(NAMED).collect();
        owner::check(&self.shared, &caller, request.hive.as_ref().map_or("", |hive| &hive.id))?;
        let opened = fleet.register(Instant::now(), request, &token()).inspect_err(|error| {
            warn!(?hive, %error, "hive refused");
        })?;
        info!(hive, epoch = opened.epoch, new = opened.new, "hive registered");
        Ok(Response::new(RegisterResponse {
            session: opened.session,
            epoch: opened.epoch,
            queen_instance: fleet.feed().instance().to_owned(),
            max_frame_bytes: self.shared.config.max_frame_bytes as u64,
            max_workers: self.shared.config.max_workers,
            retry_min: None,
            retry_max: None,
        }))
    }

    type AttachStream = attach::Outgoing;

    async fn attach(
        &self,
        request: Request<Streaming<proto::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        attach::attach(&self.shared, request).await.map(Response::new)
    }

    async fn push_telemetry(
        &self,
        request: Request<Streaming<PushTelemetryRequest>>,
    ) -> Result<Response<PushTelemetryResponse>, Status> {
        let ended = request.extensions().get::<Ended>().cloned().unwrap_or_default();
        let (caller, books) = (owner::caller(&request)?, PushTelemetryResponse::default());
        let mut stream = Push { shared: &self.shared, caller, session: None, books, ended };
        stream.run(request.into_inner()).await.map(Response::new)
    }
}

/// One stream. Detaches from its session when it is dropped, however that comes about.
struct Push<'a> {
    shared: &'a Shared,
    caller: Caller,
    session: Option<(String, CancellationToken)>,
    books: PushTelemetryResponse,
    ended: Ended,
}

impl Push<'_> {
    async fn run(&mut self, mut frames: Streaming<PushTelemetryRequest>) -> Result<PushTelemetryResponse, Status> {
        loop {
            let fence = self.session.as_ref().map(|(_, fence)| fence.clone()).unwrap_or_default();
            let frame = tokio::select! {
                biased;
                () = self.shared.stopping.cancelled() => return Err(Status::unavailable("the queen is stopping")),
                () = fence.cancelled() => return Err(Refusal::Superseded.into()),
                frame = frames.message() => frame.map_err(too_large)?,
            };
            let Some(frame) = frame else {
                if self.ended.in_order() {
                    self.detach(true);
                }
                return Ok(self.books);
            };
            self.take(frame)?;
        }
    }

    fn take(&mut self, frame: PushTelemetryRequest) -> Result<(), Status> {
        match &self.session {
            None => {
                owner::check(self.shared, &self.caller, owner::hive_of(&frame.session))?;
                let fence = self.shared.fleet.attach(&frame.session)?;
                self.session = Some((frame.session.clone(), fence));
            }
            Some((session, _)) if *session != frame.session => {
                return Err(super::invalid::field("session", "a stream carries the frames of one session"));
            }
            Some(_) => {}
        }
        match self.shared.fleet.apply(Instant::now(), frame)? {
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
        self.session.as_ref().map_or("", |(session, _)| owner::hive_of(session))
    }

    fn detach(&mut self, goodbye: bool) {
        if let Some((session, _)) = self.session.take() {
            self.shared.fleet.detach(Instant::now(), &session, goodbye);
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
