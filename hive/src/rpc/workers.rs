//! `WorkerService`: starting, stopping and following the workers of this hive. Only translation: every decision is
//! made in `worker/`.

mod follow;
mod observe;
pub(super) mod refuse;

use crate::roster::Member;
use crate::worker::Life;
use common::WorkerId;
use proto::worker_service_server::{WorkerService, WorkerServiceServer};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// From SIGTERM to SIGKILL, when the caller does not say.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// The longest grace that is accepted.
const GRACE_MAX: Duration = Duration::from_secs(3600);
/// The longest name of somebody who stops a worker, in characters.
const STOPPED_BY_MAX: usize = 200;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type About = dyn Fn() -> proto::DescribeHiveResponse + Send + Sync;

/// The service over one hive's lives.
pub struct Workers {
    life: Life,
    about: Box<About>,
    stopping: CancellationToken,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("life", &self.life).finish_non_exhaustive()
    }
}

/// The service, to be served on the unix socket. `about` answers DescribeHive; streams end when `stopping` is
/// cancelled.
pub fn service(
    life: Life,
    about: impl Fn() -> proto::DescribeHiveResponse + Send + Sync + 'static,
    stopping: CancellationToken,
) -> WorkerServiceServer<Workers> {
    WorkerServiceServer::new(Workers { life, about: Box::new(about), stopping })
}

fn worker(member: &Member) -> proto::Worker {
    proto::Worker { spec: Some(member.spec.clone()), state: member.state.into(), ..proto::Worker::default() }
}

/// The grace that was asked for.
fn grace(asked: Option<&prost_types::Duration>) -> Result<Duration, Status> {
    let Some(asked) = asked else { return Ok(GRACE_DEFAULT) };
    let length = common::from_duration(asked).filter(|grace| *grace <= GRACE_MAX);
    length.ok_or_else(|| refuse::field("grace", "use a time from 0 to 3600 s"))
}

impl Workers {
    /// A worker's name, of this hive. NOT_FOUND for another hive's.
    fn named(&self, name: &str) -> Result<WorkerId, Status> {
        let (hive, id) = WorkerId::parse(name).map_err(|error| refuse::field("name", &error.to_string()))?;
        match hive {
            Some(hive) if hive != *self.life.hive() => {
                Err(Status::not_found(format!("{name} is not a worker of this hive, {}", self.life.hive())))
            }
            _ => Ok(id),
        }
    }

    fn member(&self, id: &WorkerId) -> Option<Arc<Member>> {
        self.life.roster().borrow().members.iter().find(|member| member.id == *id).cloned()
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    type StreamLogsStream = Answers<proto::StreamLogsResponse>;
    type StreamEventsStream = Answers<proto::StreamEventsResponse>;

    async fn start_worker(
        &self,
        request: Request<proto::StartWorkerRequest>,
    ) -> Result<Response<proto::StartWorkerResponse>, Status> {
        let started = self.life.start(request.into_inner()).await.map_err(|error| refuse::start(&error))?;
        let answer = proto::StartWorkerResponse {
            worker: Some(worker(&started.member)),
            taken_over: started.taken_over,
            readiness: started.readiness.into(),
        };
        Ok(Response::new(answer))
    }

    async fn stop_worker(
        &self,
        request: Request<proto::StopWorkerRequest>,
    ) -> Result<Response<proto::StopWorkerResponse>, Status> {
        let request = request.into_inner();
        let id = self.named(&request.name)?;
        let grace = grace(request.grace.as_ref())?;
        let by: String = request.stopped_by.chars().take(STOPPED_BY_MAX).collect();
        let exit = self.life.stop(&id, grace, &by).await.map_err(refuse::stop)?;
        Ok(Response::new(proto::StopWorkerResponse { exit }))
    }

    async fn restart_worker(
        &self,
        request: Request<proto::RestartWorkerRequest>,
    ) -> Result<Response<proto::RestartWorkerResponse>, Status> {
        let request = request.into_inner();
        let id = self.named(&request.name)?;
        let grace = grace(request.grace.as_ref())?;
        let by: String = request.restarted_by.chars().take(STOPPED_BY_MAX).collect();
        let restarted = self.life.restart(&id, grace, &by).await;
        let member = restarted.map_err(|error| refuse::restart(error, &self.life))?;
        Ok(Response::new(proto::RestartWorkerResponse { worker: Some(worker(&member)) }))
    }

    async fn observe_worker(
        &self,
        request: Request<proto::ObserveWorkerRequest>,
    ) -> Result<Response<proto::ObserveWorkerResponse>, Status> {
        observe::observe(self, request.into_inner()).await.map(Response::new)
    }

    async fn unobserve_worker(
        &self,
        request: Request<proto::UnobserveWorkerRequest>,
    ) -> Result<Response<proto::UnobserveWorkerResponse>, Status> {
        observe::unobserve(self, &request.into_inner()).await.map(Response::new)
    }

    async fn get_worker(
        &self,
        request: Request<proto::WorkerServiceGetWorkerRequest>,
    ) -> Result<Response<proto::WorkerServiceGetWorkerResponse>, Status> {
        let id = self.named(&request.into_inner().name)?;
        let member = self.member(&id).ok_or_else(|| refuse::unknown(&id, &self.life))?;
        Ok(Response::new(proto::WorkerServiceGetWorkerResponse { worker: Some(worker(&member)) }))
    }

    async fn list_workers(
        &self,
        _: Request<proto::WorkerServiceListWorkersRequest>,
    ) -> Result<Response<proto::WorkerServiceListWorkersResponse>, Status> {
        let roster = self.life.roster().borrow().clone();
        let workers = roster.members.iter().map(|member| worker(member)).collect();
        Ok(Response::new(proto::WorkerServiceListWorkersResponse { workers }))
    }

    async fn stream_logs(
        &self,
        request: Request<proto::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let id = self.named(&request.name)?;
        let stream = follow::logs(&self.life, &id, &request, self.stopping.clone())?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let stream = follow::events(&self.life, &request.into_inner(), self.stopping.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn drain_hive(
        &self,
        _: Request<proto::DrainHiveRequest>,
    ) -> Result<Response<proto::DrainHiveResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_templates(
        &self,
        _: Request<proto::ListTemplatesRequest>,
    ) -> Result<Response<proto::ListTemplatesResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn describe_hive(
        &self,
        _: Request<proto::DescribeHiveRequest>,
    ) -> Result<Response<proto::DescribeHiveResponse>, Status> {
        Ok(Response::new((self.about)()))
    }
}

#[cfg(test)]
mod tests;
