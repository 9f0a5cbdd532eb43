//! `SchedulerService`: the finds, why not, and reservations beside them. `finding` checks the question; `placement`
//! answers it.

mod reservations;

use super::{Shared, finding};
use crate::placement::{ExplainedPage, GpuPage, Page, Query, explain, find, find_capacity};
use proto::scheduler_service_server::SchedulerService;
use proto::{
    Coverage, ExplainRequest, ExplainResponse, FindCapacityRequest, FindCapacityResponse, FindIdleWorkersRequest,
    FindIdleWorkersResponse, FindWorkersWithCapacityRequest, FindWorkersWithCapacityResponse,
    FindWorkersWithModelRequest, FindWorkersWithModelResponse, Worker,
};
use std::time::Instant;
use tonic::{Request, Response, Status};

/// Serves schedulers.
#[derive(Debug, Clone)]
pub struct Scheduler {
    shared: Shared,
}

impl Scheduler {
    /// Serves from what is shared.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    fn answer(&self, query: Query) -> WorkersAnswer {
        let now = Instant::now();
        let (revision, coverage) = self.said(now);
        let Page { workers, next } = find(&self.shared.fleet, now, &query);
        let next_page_token = next.map(|next| next.to_string()).unwrap_or_default();
        WorkersAnswer { workers, revision, coverage, next_page_token }
    }

    /// What every answer carries. The revision is taken first: a watch that resumes after it sees everything that the
    /// answer may have missed.
    fn said(&self, now: Instant) -> (String, Option<Coverage>) {
        let feed = self.shared.fleet.feed();
        (feed.name_tip(), Some(self.shared.fleet.coverage(now)))
    }
}

struct WorkersAnswer {
    workers: Vec<Worker>,
    revision: String,
    coverage: Option<Coverage>,
    next_page_token: String,
}

#[tonic::async_trait]
impl SchedulerService for Scheduler {
    async fn find_idle_workers(
        &self,
        request: Request<FindIdleWorkersRequest>,
    ) -> Result<Response<FindIdleWorkersResponse>, Status> {
        let query = finding::idle(&self.shared.config, request.into_inner())?;
        let WorkersAnswer { workers, revision, coverage, next_page_token } = self.answer(query);
        Ok(Response::new(FindIdleWorkersResponse { workers, revision, coverage, next_page_token }))
    }

    async fn find_workers_with_model(
        &self,
        request: Request<FindWorkersWithModelRequest>,
    ) -> Result<Response<FindWorkersWithModelResponse>, Status> {
        let query = finding::with_model(&self.shared.config, request.into_inner())?;
        let WorkersAnswer { workers, revision, coverage, next_page_token } = self.answer(query);
        Ok(Response::new(FindWorkersWithModelResponse { workers, revision, coverage, next_page_token }))
    }

    async fn find_workers_with_capacity(
        &self,
        request: Request<FindWorkersWithCapacityRequest>,
    ) -> Result<Response<FindWorkersWithCapacityResponse>, Status> {
        let query = finding::with_capacity(&self.shared.config, request.into_inner())?;
        let WorkersAnswer { workers, revision, coverage, next_page_token } = self.answer(query);
        Ok(Response::new(FindWorkersWithCapacityResponse { workers, revision, coverage, next_page_token }))
    }

    async fn find_capacity(
        &self,
        request: Request<FindCapacityRequest>,
    ) -> Result<Response<FindCapacityResponse>, Status> {
        let query = finding::capacity(&self.shared.config, request.into_inner())?;
        let now = Instant::now();
        let (revision, coverage) = self.said(now);
        let GpuPage { gpus, next } = find_capacity(&self.shared.fleet, now, &query);
        let next_page_token = next.map(|next| next.to_string()).unwrap_or_default();
        Ok(Response::new(FindCapacityResponse { gpus, revision, coverage, next_page_token }))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let finding::Explaining { question, size, after } =
            finding::explaining(&self.shared.config, request.into_inner())?;
        let now = Instant::now();
        let (revision, coverage) = self.said(now);
        let ExplainedPage { verdicts, next } = explain(&self.shared.fleet, now, &question, size, after.as_ref());
        let next_page_token = next.map(|next| next.to_string()).unwrap_or_default();
        Ok(Response::new(ExplainResponse { verdicts, next_page_token, revision, coverage }))
    }

    async fn reserve(
        &self,
        request: Request<proto::ReserveRequest>,
    ) -> Result<Response<proto::ReserveResponse>, Status> {
        reservations::reserve(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn renew(&self, request: Request<proto::RenewRequest>) -> Result<Response<proto::RenewResponse>, Status> {
        reservations::renew(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        reservations::release(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn list_reservations(
        &self,
        request: Request<proto::ListReservationsRequest>,
    ) -> Result<Response<proto::ListReservationsResponse>, Status> {
        reservations::list(&self.shared, request.into_inner()).map(Response::new)
    }
}
