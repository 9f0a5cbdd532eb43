//! `HiveService`: Register. The stream of frames is taken by `push`, which stands before it; `attach` has its tunnels.

use super::{Shared, attach, owner};
use crate::server::Patient;
use proto::hive_service_server::HiveService;
use proto::{PushTelemetryRequest, PushTelemetryResponse, RegisterRequest, RegisterResponse};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

/// So many characters of a hive's name are logged, whether or not it is one.
const NAMED: usize = 80;

/// So many hives may come back in a second; the rest waits, or all of them wait for one another.
const BACK_PER_SECOND: usize = 2_000;
/// The least that they wait then.
const RETRY_MIN: Duration = Duration::from_millis(800);

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
        let window = retry_window(fleet.known());
        Ok(Response::new(RegisterResponse {
            session: opened.session,
            epoch: opened.epoch,
            queen_instance: fleet.feed().instance().to_owned(),
            max_frame_bytes: self.shared.config.max_frame_bytes as u64,
            max_workers: self.shared.config.max_workers,
            retry_min: window.map(|(min, _)| common::duration(min)),
            retry_max: window.map(|(_, max)| common::duration(max)),
        }))
    }

    type AttachStream = attach::Outgoing;

    async fn attach(
        &self,
        request: Request<Streaming<proto::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut answer = Response::new(attach::attach(&self.shared, request).await?);
        // What calls to the hive wait for may come late; of one that is gone its connection tells.
        answer.extensions_mut().insert(Patient);
        Ok(answer)
    }

    async fn push_telemetry(
        &self,
        _: Request<Streaming<PushTelemetryRequest>>,
    ) -> Result<Response<PushTelemetryResponse>, Status> {
        // `push` stands before this service and takes the call.
        Err(Status::internal("telemetry came past the place where it is taken"))
    }
}

/// When hives of a fleet this large shall come back after this queen was gone; a small one by its own rule.
pub(super) fn retry_window(known: usize) -> Option<(Duration, Duration)> {
    let spread = Duration::from_secs_f64(known as f64 / BACK_PER_SECOND as f64);
    (known > BACK_PER_SECOND).then(|| (RETRY_MIN, RETRY_MIN + spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q2_the_more_hives_the_wider_they_spread_when_they_come_back() {
        assert_eq!(retry_window(BACK_PER_SECOND), None);
        assert_eq!(retry_window(10_000), Some((RETRY_MIN, RETRY_MIN + Duration::from_secs(5))));
    }
}
