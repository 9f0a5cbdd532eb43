//! `FleetService`, its unary calls: workers and hives, one by one or in pages.

use super::{Shared, invalid};
use crate::fleet::{Spec, matches};
use common::{HiveId, WorkerId};
use prost::Message;
use proto::fleet_service_server::FleetService;
use proto::{
    Filter, ForgetHiveRequest, ForgetHiveResponse, GetHiveRequest, GetHiveResponse, GetWorkerRequest,
    GetWorkerResponse, ListHivesRequest, ListHivesResponse, ListWorkersRequest, ListWorkersResponse, WatchRequest,
    WatchResponse, Worker,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use tracing::info;

/// A page of this many when the caller asks for 0.
const PAGE: usize = 1_000;
/// No page is larger, whatever is asked for.
const PAGE_MAX: usize = 10_000;
/// A page ends early at about this size: clients refuse messages above 4 MiB unless told otherwise.
pub(super) const PAGE_BYTES: usize = 3 * 1024 * 1024;

/// Serves those who look.
#[derive(Debug, Clone)]
pub struct Looking {
    shared: Shared,
}

impl Looking {
    /// Serves from what is shared.
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// The workers after that one, in order, hive by hive: those of a page, and some more if there are any.
    fn find(
        &self,
        now: Instant,
        filter: &Filter,
        only: Option<HiveId>,
        after: Option<&(HiveId, WorkerId)>,
        size: usize,
    ) -> Vec<Found> {
        let fleet = &self.shared.fleet;
        let hives = only.map_or_else(|| fleet.names_from(after.map(|(hive, _)| hive)), |only| vec![only]);
        let mut found = Vec::new();
        for hive in &hives {
            if found.len() > size {
                break;
            }
            let before = found.len();
            fleet.walk(now, Some(hive), |seen| {
                let name = (seen.hive().clone(), seen.id().clone());
                if after.is_none_or(|after| name > *after) && matches(filter, seen.spec(), seen.state()) {
                    found.push((name, Arc::clone(seen.spec()), seen.to_wire_bare()));
                }
            });
            found[before..].sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        }
        found
    }

    fn revision(&self) -> String {
        let feed = self.shared.fleet.feed();
        feed.name_tip()
    }
}

pub(super) fn page_size(asked: i32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE),
        Ok(size) => Ok(size.min(PAGE_MAX)),
        Err(_) => Err(invalid::field("page_size", "must not be negative; 0 asks for 1,000")),
    }
}

/// A worker's whole name.
pub(super) fn worker_name(field: &str, text: &str) -> Result<(HiveId, WorkerId), Status> {
    match WorkerId::parse(text) {
        Ok((Some(hive), id)) => Ok((hive, id)),
        Ok((None, _)) => Err(invalid::field(field, format!("{text:?} lacks the hive: use hive/group/instance"))),
        Err(error) => Err(invalid::field(field, error.to_string())),
    }
}

/// The hive a filter names. Every name in the filter is checked: one that nothing can have is a mistake, not an
/// empty answer.
pub(super) fn filter_hive(filter: &Filter) -> Result<Option<HiveId>, Status> {
    let given = |name: &str| if name.is_empty() { "any".to_owned() } else { name.to_owned() };
    WorkerId::new(&given(&filter.group), "any").map_err(|error| invalid::field("filter.group", error.to_string()))?;
    WorkerId::new("any", &given(&filter.instance))
        .map_err(|error| invalid::field("filter.instance", error.to_string()))?;
    if filter.hive.is_empty() {
        return Ok(None);
    }
    HiveId::parse(&filter.hive).map(Some).map_err(|error| invalid::field("filter.hive", error.to_string()))
}

/// A worker and its name; what does not move is shared.
type Found = ((HiveId, WorkerId), Arc<Spec>, Worker);

/// The page of what was found, which is in order, and what follows it.
fn take_page(found: Vec<Found>, size: usize) -> (Vec<Worker>, String) {
    let (total, mut bytes, mut last) = (found.len(), 0, String::new());
    let mut workers = Vec::new();
    for ((hive, id), spec, bare) in found.into_iter().take(size) {
        let worker = Worker { spec: Some(spec.whole()), ..bare };
        bytes += worker.encoded_len();
        if bytes > PAGE_BYTES && !workers.is_empty() {
            break;
        }
        last = format!("{hive}/{id}");
        workers.push(worker);
    }
    let more = workers.len() < total;
    (workers, if more { last } else { String::new() })
}

#[tonic::async_trait]
impl FleetService for Looking {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // `rpc::watch` stands before this service and takes the call, to send bytes that were encoded once.
        Err(Status::internal("Watch was not routed to its own service"))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size)?;
        let filter = request.filter.unwrap_or_default();
        let only = filter_hive(&filter)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(worker_name("page_token", token)?),
        };
        // Taken first: a watch that resumes after it sees everything that this answer may have missed.
        let revision = self.revision();
        let now = Instant::now();
        let found = self.find(now, &filter, only, after.as_ref(), size);
        let (workers, next_page_token) = take_page(found, size);
        let coverage = Some(self.shared.fleet.coverage(now));
        Ok(Response::new(ListWorkersResponse { workers, next_page_token, revision, coverage }))
    }

    async fn get_worker(&self, request: Request<GetWorkerRequest>) -> Result<Response<GetWorkerResponse>, Status> {
        let name = request.into_inner().name;
        let (hive, id) = worker_name("name", &name)?;
        let worker = self.shared.fleet.worker(Instant::now(), &hive, &id);
        let worker = worker.ok_or_else(|| Status::not_found(format!("no worker {name} is known here")))?;
        Ok(Response::new(GetWorkerResponse { worker: Some(worker) }))
    }

    async fn list_hives(&self, request: Request<ListHivesRequest>) -> Result<Response<ListHivesResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(HiveId::parse(token).map_err(|error| invalid::field("page_token", error.to_string()))?),
        };
        let revision = self.revision();
        let mut hives = self.shared.fleet.hives_after(Instant::now(), after.as_ref(), size + 1);
        let mut bytes = 0;
        let fits = hives.iter().take_while(|hive| {
            bytes += hive.encoded_len();
            bytes <= PAGE_BYTES
        });
        let fits = fits.count().clamp(1, size);
        let more = hives.len() > fits;
        hives.truncate(fits);
        let next_page_token = hives.last().filter(|_| more).map(|hive| hive.id.clone()).unwrap_or_default();
        Ok(Response::new(ListHivesResponse { hives, next_page_token, revision }))
    }

    async fn forget_hive(&self, request: Request<ForgetHiveRequest>) -> Result<Response<ForgetHiveResponse>, Status> {
        let text = request.into_inner().id;
        let id = HiveId::parse(&text).map_err(|error| invalid::field("id", error.to_string()))?;
        let workers = self.shared.fleet.forget(Instant::now(), &id)?;
        info!(hive = %id, workers, "hive forgotten");
        Ok(Response::new(ForgetHiveResponse { workers: u32::try_from(workers).unwrap_or(u32::MAX) }))
    }

    async fn get_hive(&self, request: Request<GetHiveRequest>) -> Result<Response<GetHiveResponse>, Status> {
        let text = request.into_inner().id;
        let id = HiveId::parse(&text).map_err(|error| invalid::field("id", error.to_string()))?;
        let hive = self.shared.fleet.hive(Instant::now(), &id);
        let hive = hive.ok_or_else(|| Status::not_found(format!("no hive {id} is known here")))?;
        Ok(Response::new(GetHiveResponse { hive: Some(hive) }))
    }
}
