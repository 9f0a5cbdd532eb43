//! `SchedulerService`: the three finds. Checks the question; `placement` answers it. Reservations stand beside them.

mod reservations;

use super::fleet::filter_hive;
use super::{Shared, invalid};
use crate::placement::{ModelRule, Query, Want, find};
use proto::scheduler_service_server::SchedulerService;
use proto::{
    Coverage, FindIdleWorkersRequest, FindIdleWorkersResponse, FindOptions, FindOrder, FindWorkersWithCapacityRequest,
    FindWorkersWithCapacityResponse, FindWorkersWithModelRequest, FindWorkersWithModelResponse, IdleBasis, ModelMatch,
    Worker,
};
use std::time::Instant;
use tonic::{Request, Response, Status};

/// Serves schedulers.
#[derive(Debug, Clone)]
pub struct Scheduler {
    shared: Shared,
}

struct Answer {
    workers: Vec<Worker>,
    revision: String,
    coverage: Option<Coverage>,
}

impl Scheduler {
    /// Serves from what is shared.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    fn answer(&self, options: Option<FindOptions>, want: Want) -> Result<Answer, Status> {
        let query = self.query(options.unwrap_or_default(), want)?;
        let (fleet, now) = (&self.shared.fleet, Instant::now());
        let revision = fleet.feed().name_revision(fleet.feed().revision());
        let workers = find(fleet, now, &query);
        Ok(Answer { workers, revision, coverage: Some(fleet.coverage(now)) })
    }

    fn query(&self, options: FindOptions, want: Want) -> Result<Query, Status> {
        let filter = options.filter.unwrap_or_default();
        filter_hive(&filter)?;
        let asked = invalid::length("options.max_age", options.max_age.as_ref())?;
        let config = &self.shared.config;
        let order = FindOrder::try_from(options.order)
            .map_err(|_| invalid::field("options.order", format!("{} is not a FindOrder", options.order)))?;
        Ok(Query {
            filter,
            max_age: asked.unwrap_or(config.max_age),
            stale_too: asked.is_some_and(|asked| asked > config.stale),
            min_idle: invalid::length("options.min_idle", options.min_idle.as_ref())?,
            limit: options.limit as usize,
            order,
            want,
        })
    }
}

#[tonic::async_trait]
impl SchedulerService for Scheduler {
    async fn find_idle_workers(
        &self,
        request: Request<FindIdleWorkersRequest>,
    ) -> Result<Response<FindIdleWorkersResponse>, Status> {
        let request = request.into_inner();
        let want = match IdleBasis::try_from(request.basis) {
            Ok(IdleBasis::Unspecified | IdleBasis::Auto) => Want::Idle,
            Ok(IdleBasis::Gpu) => Want::UnusedGpu,
            Err(_) => return Err(invalid::field("basis", format!("{} is not an IdleBasis", request.basis))),
        };
        let Answer { workers, revision, coverage } = self.answer(request.options, want)?;
        Ok(Response::new(FindIdleWorkersResponse { workers, revision, coverage, ..Default::default() }))
    }

    async fn find_workers_with_model(
        &self,
        request: Request<FindWorkersWithModelRequest>,
    ) -> Result<Response<FindWorkersWithModelResponse>, Status> {
        let request = request.into_inner();
        if request.model.is_empty() {
            return Err(invalid::field("model", "name a model, or use match GLOB with *"));
        }
        let rule = match ModelMatch::try_from(request.r#match) {
            Ok(ModelMatch::Unspecified | ModelMatch::Exact) => ModelRule::Exact,
            Ok(ModelMatch::IgnoreCase) => ModelRule::IgnoreCase,
            Ok(ModelMatch::Glob) => ModelRule::Glob,
            Err(_) => return Err(invalid::field("match", format!("{} is not a ModelMatch", request.r#match))),
        };
        let want = Want::Model { name: request.model, rule, idle: request.idle };
        let Answer { workers, revision, coverage } = self.answer(request.options, want)?;
        Ok(Response::new(FindWorkersWithModelResponse { workers, revision, coverage, ..Default::default() }))
    }

    async fn find_workers_with_capacity(
        &self,
        request: Request<FindWorkersWithCapacityRequest>,
    ) -> Result<Response<FindWorkersWithCapacityResponse>, Status> {
        let request = request.into_inner();
        let (required, headroom) = (request.required_vram_bytes, request.headroom_bytes);
        let want = Want::Capacity { required, headroom, idle: request.idle };
        let Answer { workers, revision, coverage } = self.answer(request.options, want)?;
        Ok(Response::new(FindWorkersWithCapacityResponse { workers, revision, coverage, ..Default::default() }))
    }

    async fn find_capacity(
        &self,
        _: Request<proto::FindCapacityRequest>,
    ) -> Result<Response<proto::FindCapacityResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn explain(&self, _: Request<proto::ExplainRequest>) -> Result<Response<proto::ExplainResponse>, Status> {
        Err(Status::unimplemented("not yet"))
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
