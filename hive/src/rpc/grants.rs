//! `GrantService`: what queens ask this hive to hold. Only translation: every decision is made in `ledger/`.

#[cfg(test)]
mod tests;

use super::workers::refuse;
use crate::ledger::Refusal;
use crate::worker::Life;
use crate::worker::vram::NoRoom;
use proto::grant_service_server::{GrantService, GrantServiceServer};
use proto::hold_wish::What;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

/// So many calls may wait for the ledger at once; more are refused, to be tried again.
const CALLS_MAX: usize = 64;

type Draining = dyn Fn() -> bool + Send + Sync;

/// The service over one hive's grants.
pub struct Grants {
    life: Life,
    draining: Box<Draining>,
    calls: Arc<Semaphore>,
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("life", &self.life).finish_non_exhaustive()
    }
}

/// The service, to be served beside `WorkerService`. As long as `draining` says so nothing new is held.
pub fn service(life: Life, draining: impl Fn() -> bool + Send + Sync + 'static) -> GrantServiceServer<Grants> {
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    GrantServiceServer::new(Grants { life, draining: Box::new(draining), calls })
}

impl Grants {
    /// One of the calls that may wait.
    fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Status> {
        let full = |_| Status::resource_exhausted(format!("{CALLS_MAX} calls wait for the ledger already: try again"));
        self.calls.try_acquire().map_err(full)
    }
}

#[tonic::async_trait]
impl GrantService for Grants {
    async fn hold(&self, request: Request<proto::HoldRequest>) -> Result<Response<proto::HoldResponse>, Status> {
        let request = request.into_inner();
        let is_key = |wish: &proto::HoldWish| matches!(wish.what, Some(What::Key(_)));
        if (self.draining)() && !request.wishes.iter().all(is_key) {
            return Err(status(&Refusal::Draining));
        }
        let _turn = self.turn()?;
        let holds = self.life.hold(request).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(proto::HoldResponse { holds }))
    }

    async fn renew_hold(
        &self,
        request: Request<proto::RenewHoldRequest>,
    ) -> Result<Response<proto::RenewHoldResponse>, Status> {
        let _turn = self.turn()?;
        let holds = self.life.renew_hold(request.into_inner()).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(proto::RenewHoldResponse { holds }))
    }

    async fn release_hold(
        &self,
        request: Request<proto::ReleaseHoldRequest>,
    ) -> Result<Response<proto::ReleaseHoldResponse>, Status> {
        let _turn = self.turn()?;
        let released = self.life.release_hold(request.into_inner()).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(proto::ReleaseHoldResponse { released }))
    }

    async fn list_holds(
        &self,
        _: Request<proto::ListHoldsRequest>,
    ) -> Result<Response<proto::ListHoldsResponse>, Status> {
        let _turn = self.turn()?;
        let holds = self.life.list_holds().await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(proto::ListHoldsResponse { holds }))
    }
}

/// Why nothing is granted.
pub fn status(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    let code = match refusal {
        Refusal::Field { field, message } => return refuse::field(field, message),
        Refusal::TooManyWishes(_) => return refuse::field("wishes", &text),
        Refusal::TooManyHolds(_) => Code::ResourceExhausted,
        Refusal::NoRoom(NoRoom::NotYet | NoRoom::Stale(_) | NoRoom::Failed(_)) => Code::Unavailable,
        Refusal::NoRoom(NoRoom::NoGpu | NoRoom::Full { .. }) => Code::ResourceExhausted,
        Refusal::NoSuchGpu { .. } | Refusal::NoSuchWorker(_) | Refusal::Unknown(_) => Code::NotFound,
        Refusal::KeyTaken(_) | Refusal::ReservationTaken(_) => Code::AlreadyExists,
        Refusal::NotRunning { .. }
        | Refusal::Held { .. }
        | Refusal::NoMemory(_)
        | Refusal::TooLittle { .. }
        | Refusal::Used { .. }
        | Refusal::Fenced { .. }
        | Refusal::Unreadable(_)
        | Refusal::Draining => Code::FailedPrecondition,
        Refusal::Stopping => Code::Unavailable,
        Refusal::Disk { source, .. } => return Status::new(disk_code(source), format!("{text}: {source}")),
    };
    Status::new(code, text)
}

fn disk_code(error: &io::Error) -> Code {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE) => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}
