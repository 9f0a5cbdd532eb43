//! The two rpcs about workers that rbee did not start. Only translation.

use super::{Workers, refuse, worker};
use crate::rpc::services::Caller;
use crate::worker::observe::ObserveError;
use tonic::Status;

/// Looks at something that runs already.
pub async fn observe(
    service: &Workers,
    request: proto::ObserveWorkerRequest,
) -> Result<proto::ObserveWorkerResponse, Status> {
    only_here(service)?;
    let observed = service.services.life.observe(request).await.map_err(status)?;
    let worker = observed.member.as_ref().map(|member| worker(member));
    Ok(proto::ObserveWorkerResponse { worker, observed: observed.shown })
}

/// Looks away again.
pub async fn unobserve(
    service: &Workers,
    request: &proto::UnobserveWorkerRequest,
) -> Result<proto::UnobserveWorkerResponse, Status> {
    only_here(service)?;
    let id = service.named(&request.name)?;
    service.services.life.unobserve(&id).await.map_err(status)?;
    Ok(proto::UnobserveWorkerResponse {})
}

/// Whoever observes names processes and containers of the machine.
fn only_here(service: &Workers) -> Result<(), Status> {
    match service.caller {
        Caller::Local => Ok(()),
        Caller::Network => {
            Err(Status::permission_denied("observing is for callers on this machine: `rbee observe` there"))
        }
    }
}

fn status(error: ObserveError) -> Status {
    let text = error.to_string();
    match error {
        ObserveError::Name(name) => refuse::field(refuse::name_field(&name), &text),
        ObserveError::Field(wrong) => refuse::field(wrong.field, &wrong.message),
        ObserveError::Nowhere(_) | ObserveError::Unknown(_) => Status::not_found(text),
        ObserveError::Seen { .. } | ObserveError::Taken(_) => Status::already_exists(text),
        ObserveError::Ours(_) | ObserveError::Started(_) => Status::failed_precondition(text),
        ObserveError::TooMany => Status::resource_exhausted(text),
        ObserveError::Disk(source) => match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Status::resource_exhausted(text),
            _ => Status::internal(text),
        },
    }
}
