//! `HiveService`: Register. The stream of frames is taken by `push`, which stands before it.

use super::Shared;
use proto::hive_service_server::HiveService;
use proto::{PushTelemetryRequest, PushTelemetryResponse, RegisterRequest, RegisterResponse};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;
use tonic::{Request, Response, Status, Streaming};
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
        let request = request.into_inner();
        let hive: String = request.hive.iter().flat_map(|hive| hive.id.chars()).take(NAMED).collect();
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

    type AttachStream = tokio_stream::Empty<Result<proto::AttachResponse, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<proto::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("this queen has no tunnels yet"))
    }

    async fn push_telemetry(
        &self,
        _: Request<Streaming<PushTelemetryRequest>>,
    ) -> Result<Response<PushTelemetryResponse>, Status> {
        // `PushFirst` stands before this service and takes the call.
        Err(Status::internal("telemetry came past the place where it is taken"))
    }
}
