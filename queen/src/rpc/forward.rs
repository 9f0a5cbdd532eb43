//! `WorkerService` for the whole fleet: finds the hive and hands the call on, with its deadline, cancellation, stream
//! and status. What may be started or stopped from here is decided by the hive.

mod deadline;
mod own;
mod stream;

use super::fleet::worker_name;
use super::{Shared, invalid};
use crate::bound::{Bound, Bounds, Place};
use crate::server::Patient;
use crate::tunnel::{NoTunnel, was_not_sent};
use common::HiveId;
use own::Own;
use proto::worker_service_client::WorkerServiceClient;
use proto::worker_service_server::{WorkerService, WorkerServiceServer};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::Relay;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

/// What a refused caller is told to wait.
const RETRY: Duration = Duration::from_secs(1);
/// The hive itself ends a call this much after its deadline, in case it does not hear that the call was given up.
const SLACK: Duration = Duration::from_millis(500);
/// The largest answer of a hive, in bytes: 4,096 workers with long command lines.
const ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// The largest message of a stream of it, in bytes: a piece of output has 64 KiB at most, and an event a few.
const MESSAGE_BYTES: usize = 128 * 1024;

type Client = WorkerServiceClient<Channel>;

/// The service over the tunnels.
#[derive(Debug, Clone)]
pub struct Forward {
    shared: Shared,
    calls: Arc<Bound>,
    streams: Arc<Bound>,
}

/// The service, to be served beside the queen's own.
pub fn service(shared: Shared, bounds: &Bounds) -> WorkerServiceServer<Forward> {
    let (calls, streams) = (bounds.hive_calls.clone(), bounds.hive_streams.clone());
    let largest = shared.config.max_request_bytes;
    WorkerServiceServer::new(Forward { shared, calls, streams }).max_decoding_message_size(largest)
}

impl Forward {
    /// A client of a hive that reads messages of at most so many bytes.
    fn client(&self, hive: &HiveId, largest: usize) -> Result<Client, Status> {
        let channel = self.shared.tunnels.channel(hive).map_err(|error| self.not_called(hive, &error))?;
        Ok(Client::new(channel).max_decoding_message_size(largest))
    }

    fn not_called(&self, hive: &HiveId, error: &NoTunnel) -> Status {
        match error {
            NoTunnel::Full(_) => {
                self.streams.refuse();
                invalid::exhausted(error.to_string(), RETRY)
            }
            NoTunnel::Absent(_) if self.shared.fleet.hive(Instant::now(), hive).is_some() => {
                Status::unavailable(error.to_string())
            }
            NoTunnel::Absent(_) => Status::not_found(format!("no hive {hive} is known here")),
        }
    }

    /// Hands a unary call on. `usual` is how long it may take when its caller does not say.
    async fn unary<Q: Clone, A: Own>(
        &self,
        hive: HiveId,
        usual: Duration,
        request: Request<Q>,
        call: impl AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<Response<A>, Status> {
        let limit = deadline::asked(request.metadata())?.unwrap_or(usual).min(deadline::LONGEST);
        let _place = place(&self.calls, "calls to hives")?;
        let message = request.into_inner();
        let calling = self.sent(
            (&hive, ANSWER_BYTES),
            || {
                let mut request = Request::new(message.clone());
                request.set_timeout(limit + SLACK);
                request
            },
            call,
        );
        let mut answer = tokio::select! {
            () = self.shared.stopping.cancelled() => return Err(Status::unavailable("the queen is stopping")),
            answer = timeout(limit, calling) => answer.unwrap_or_else(|_| Err(late(&hive, limit)))?,
        };
        answer.get_mut().own(&hive)?;
        Ok(answer)
    }

    /// Hands a stream on; it may last as long as its caller says, or for ever.
    async fn stream<Q: Clone, A>(
        &self,
        hive: HiveId,
        request: Request<Q>,
        call: impl AsyncFn(Client, Request<Q>) -> Result<Response<Streaming<A>>, Status>,
    ) -> Result<Response<Relay<A>>, Status> {
        let (began, limit) = (Instant::now(), deadline::asked(request.metadata())?);
        let place = place(&self.streams, "streams from hives")?;
        let of_hive = self.shared.tunnels.stream(&hive).map_err(|error| self.not_called(&hive, &error))?;
        let message = request.into_inner();
        let opening = limit.unwrap_or(deadline::OPENING).min(deadline::OPENING);
        let calling = timeout(opening, self.sent((&hive, MESSAGE_BYTES), || Request::new(message.clone()), call));
        let inner = calling.await.unwrap_or_else(|_| Err(late(&hive, opening)))?.into_inner();
        let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        let relay = Relay::new(hive, inner, left, self.shared.stopping.clone(), [place, of_hive]);
        let mut answer = Response::new(relay);
        // Whoever scrolls in a log reads nothing meanwhile. One message of it waits here, no more.
        answer.extensions_mut().insert(Patient);
        Ok(answer)
    }

    /// Makes a call; once more when the tunnel was left before the call was sent.
    async fn sent<Q, A>(
        &self,
        (hive, largest): (&HiveId, usize),
        request: impl Fn() -> Request<Q>,
        call: impl AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<Response<A>, Status> {
        let mut answer = call(self.client(hive, largest)?, request()).await;
        if answer.as_ref().is_err_and(was_not_sent) {
            answer = call(self.client(hive, largest)?, request()).await;
        }
        let answer = answer.map_err(|status| relayed(hive, status))?;
        // What the hive says of its own transport is not the caller's.
        Ok(Response::new(answer.into_inner()))
    }
}

fn place(places: &Arc<Bound>, what: &str) -> Result<Place, Status> {
    let full = || invalid::exhausted(format!("{} {what} are already open", places.limit()), RETRY);
    places.enter().ok_or_else(full)
}

/// The hive's own status as it is, with its details; a broken tunnel by its name.
fn relayed(hive: &HiveId, status: Status) -> Status {
    if Error::source(&status).is_some() {
        let told = "the tunnel broke before the answer came; what was asked for may have been done";
        return Status::unavailable(format!("hive {hive}: {told}"));
    }
    // What is too large for a decoder: the queen's own, which reads no larger answer. Larger questions have not come here.
    if status.code() == Code::OutOfRange {
        return Status::resource_exhausted(format!(
            "hive {hive} gave an answer that is too large: {}",
            status.message()
        ));
    }
    Status::with_details(status.code(), status.message(), bytes::Bytes::copy_from_slice(status.details()))
}

fn late(hive: &HiveId, limit: Duration) -> Status {
    Status::deadline_exceeded(format!("hive {hive} has not answered within {limit:?}; what was asked for may go on"))
}

/// The hive that a request names.
fn hive_named(text: &str) -> Result<HiveId, Status> {
    if text.is_empty() {
        return Err(invalid::field("hive", "say which hive: the queen has many"));
    }
    HiveId::parse(text).map_err(|error| invalid::field("hive", error.to_string()))
}

/// The hive of a worker's whole name.
fn hive_of(name: &str) -> Result<HiveId, Status> {
    worker_name("name", name).map(|(hive, _)| hive)
}

/// What only the machine itself may ask for.
fn only_there(what: &str) -> Status {
    Status::permission_denied(format!("{what} only on its machine: use `rbee observe` there"))
}

#[tonic::async_trait]
impl WorkerService for Forward {
    type StreamLogsStream = Relay<proto::StreamLogsResponse>;
    type StreamEventsStream = Relay<proto::StreamEventsResponse>;

    async fn start_worker(
        &self,
        request: Request<proto::StartWorkerRequest>,
    ) -> Result<Response<proto::StartWorkerResponse>, Status> {
        let asked = request.get_ref();
        let hive = hive_named(&asked.hive)?;
        let wait = if asked.wait { deadline::or(asked.wait_timeout.as_ref(), deadline::WAIT) } else { Duration::ZERO };
        self.unary(hive, wait.saturating_add(deadline::START), request, async |mut client: Client, request| {
            client.start_worker(request).await
        })
        .await
    }

    async fn stop_worker(
        &self,
        request: Request<proto::StopWorkerRequest>,
    ) -> Result<Response<proto::StopWorkerResponse>, Status> {
        let asked = request.get_ref();
        let (hive, grace) = (hive_of(&asked.name)?, deadline::or(asked.grace.as_ref(), deadline::GRACE));
        let usual = grace.saturating_add(deadline::AFTER_GRACE);
        self.unary(hive, usual, request, async |mut client: Client, request| client.stop_worker(request).await).await
    }

    async fn restart_worker(
        &self,
        request: Request<proto::RestartWorkerRequest>,
    ) -> Result<Response<proto::RestartWorkerResponse>, Status> {
        let asked = request.get_ref();
        let (hive, grace) = (hive_of(&asked.name)?, deadline::or(asked.grace.as_ref(), deadline::GRACE));
        let usual = grace.saturating_add(deadline::AFTER_GRACE).saturating_add(deadline::START);
        self.unary(hive, usual, request, async |mut client: Client, request| client.restart_worker(request).await).await
    }

    async fn observe_worker(
        &self,
        _: Request<proto::ObserveWorkerRequest>,
    ) -> Result<Response<proto::ObserveWorkerResponse>, Status> {
        Err(only_there("what rbee did not start is observed"))
    }

    async fn unobserve_worker(
        &self,
        _: Request<proto::UnobserveWorkerRequest>,
    ) -> Result<Response<proto::UnobserveWorkerResponse>, Status> {
        Err(only_there("observing is ended"))
    }

    async fn get_worker(
        &self,
        request: Request<proto::WorkerServiceGetWorkerRequest>,
    ) -> Result<Response<proto::WorkerServiceGetWorkerResponse>, Status> {
        let hive = hive_of(&request.get_ref().name)?;
        let call = async |mut client: Client, request| client.get_worker(request).await;
        self.unary(hive, deadline::LOOK, request, call).await
    }

    async fn list_workers(
        &self,
        request: Request<proto::WorkerServiceListWorkersRequest>,
    ) -> Result<Response<proto::WorkerServiceListWorkersResponse>, Status> {
        let hive = hive_named(&request.get_ref().hive)?;
        let call = async |mut client: Client, request| client.list_workers(request).await;
        self.unary(hive, deadline::LOOK, request, call).await
    }

    async fn stream_logs(
        &self,
        request: Request<proto::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let hive = hive_of(&request.get_ref().name)?;
        self.stream(hive, request, async |mut client: Client, request| client.stream_logs(request).await).await
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let hive = hive_named(&request.get_ref().hive)?;
        self.stream(hive, request, async |mut client: Client, request| client.stream_events(request).await).await
    }

    async fn describe_hive(
        &self,
        request: Request<proto::DescribeHiveRequest>,
    ) -> Result<Response<proto::DescribeHiveResponse>, Status> {
        let hive = hive_named(&request.get_ref().hive)?;
        let call = async |mut client: Client, request| client.describe_hive(request).await;
        self.unary(hive, deadline::LOOK, request, call).await
    }

    async fn drain_hive(
        &self,
        request: Request<proto::DrainHiveRequest>,
    ) -> Result<Response<proto::DrainHiveResponse>, Status> {
        let hive = hive_named(&request.get_ref().hive)?;
        let call = async |mut client: Client, request| client.drain_hive(request).await;
        self.unary(hive, deadline::LOOK, request, call).await
    }

    async fn list_templates(
        &self,
        request: Request<proto::ListTemplatesRequest>,
    ) -> Result<Response<proto::ListTemplatesResponse>, Status> {
        let hive = hive_named(&request.get_ref().hive)?;
        let call = async |mut client: Client, request| client.list_templates(request).await;
        self.unary(hive, deadline::LOOK, request, call).await
    }
}
