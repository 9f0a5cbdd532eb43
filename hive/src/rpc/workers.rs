//! `WorkerService`: starting, stopping and following the workers of this hive. Only translation: every decision is
//! made in `worker/`.

mod begin;
mod follow;
mod observe;
pub(super) mod refuse;

use crate::roster::Member;
use crate::rpc::services::{Caller, Services};
use common::WorkerId;
use proto::worker_service_server::{WorkerService, WorkerServiceServer};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// From SIGTERM to SIGKILL, when the caller does not say.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// The longest grace that is accepted.
const GRACE_MAX: Duration = Duration::from_secs(3600);
/// The longest name of somebody who stops a worker, in characters.
const STOPPED_BY_MAX: usize = 200;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over one hive's lives, for callers of one kind.
#[derive(Debug)]
pub struct Workers {
    services: Services,
    caller: Caller,
}

/// The service, to be served where such callers are.
pub fn service(services: Services, caller: Caller) -> WorkerServiceServer<Workers> {
    WorkerServiceServer::new(Workers { services, caller })
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
            Some(hive) if hive != *self.services.life.hive() => {
                let here = self.services.life.hive();
                Err(Status::not_found(format!("{name} is not a worker of this hive, {here}")))
            }
            _ => Ok(id),
        }
    }

    /// NOT_FOUND when another hive is meant.
    fn this_hive(&self, named: &str) -> Result<(), Status> {
        let here = self.services.life.hive();
        if named.is_empty() || named == here.as_str() {
            return Ok(());
        }
        let named: String = named.chars().take(STOPPED_BY_MAX).collect();
        Err(Status::not_found(format!("this is not hive {named:?}, it is {here}")))
    }

    fn member(&self, id: &WorkerId) -> Option<Arc<Member>> {
        self.services.life.roster().borrow().members.iter().find(|member| member.id == *id).cloned()
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
        begin::start(self, request.into_inner()).await.map(Response::new)
    }

    async fn stop_worker(
        &self,
        request: Request<proto::StopWorkerRequest>,
    ) -> Result<Response<proto::StopWorkerResponse>, Status> {
        let request = request.into_inner();
        let id = self.named(&request.name)?;
        let grace = grace(request.grace.as_ref())?;
        let by: String = request.stopped_by.chars().take(STOPPED_BY_MAX).collect();
        let exit = self.services.life.stop(&id, grace, &by).await.map_err(refuse::stop)?;
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
        let restarted = self.services.life.restart(&id, grace, &by).await;
        let member = restarted.map_err(|error| refuse::restart(error, &self.services.life))?;
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
        let member = self.member(&id).ok_or_else(|| refuse::unknown(&id, &self.services.life))?;
        Ok(Response::new(proto::WorkerServiceGetWorkerResponse { worker: Some(worker(&member)) }))
    }

    async fn list_workers(
        &self,
        request: Request<proto::WorkerServiceListWorkersRequest>,
    ) -> Result<Response<proto::WorkerServiceListWorkersResponse>, Status> {
        self.this_hive(&request.get_ref().hive)?;
        let roster = self.services.life.roster().borrow().clone();
        let workers = roster.members.iter().map(|member| worker(member)).collect();
        Ok(Response::new(proto::WorkerServiceListWorkersResponse { workers }))
    }

    async fn stream_logs(
        &self,
        request: Request<proto::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let id = self.named(&request.name)?;
        let stream = follow::logs(&self.services.life, &id, &request, self.services.stopping.clone())?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn stream_events(
        &self,
        request: Request<proto::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let request = request.into_inner();
        self.this_hive(&request.hive)?;
        let stream = follow::events(&self.services.life, &request, self.services.stopping.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn drain_hive(
        &self,
        request: Request<proto::DrainHiveRequest>,
    ) -> Result<Response<proto::DrainHiveResponse>, Status> {
        let request = request.into_inner();
        self.this_hive(&request.hive)?;
        let by: String = request.drained_by.chars().take(STOPPED_BY_MAX).collect();
        let failed = |error| Status::internal(format!("write down that this hive drains: {error}"));
        let changed = self.services.life.set_draining(request.drain, by).await.map_err(failed)?;
        let workers = self.services.life.roster().borrow().members.len();
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        Ok(Response::new(proto::DrainHiveResponse { changed, workers }))
    }

    async fn list_templates(
        &self,
        request: Request<proto::ListTemplatesRequest>,
    ) -> Result<Response<proto::ListTemplatesResponse>, Status> {
        self.this_hive(&request.get_ref().hive)?;
        begin::templates(self).await.map(Response::new)
    }

    async fn describe_hive(
        &self,
        request: Request<proto::DescribeHiveRequest>,
    ) -> Result<Response<proto::DescribeHiveResponse>, Status> {
        self.this_hive(&request.get_ref().hive)?;
        Ok(Response::new((self.services.about)()))
    }
}

#[cfg(test)]
mod tests;
