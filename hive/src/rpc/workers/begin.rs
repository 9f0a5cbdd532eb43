//! StartWorker and ListTemplates: what a caller may start. On its own machine a command line or a template, from the
//! network a template only.

use super::{Workers, refuse, worker};
use crate::rpc::services::Caller;
use tonic::Status;

/// Starts what the request says, or what the template in it says.
pub async fn start(
    service: &Workers,
    request: proto::StartWorkerRequest,
) -> Result<proto::StartWorkerResponse, Status> {
    let life = &service.services.life;
    service.this_hive(&request.hive)?;
    let request = match (request.template.as_str(), service.caller) {
        ("", Caller::Network) => {
            let told = "a command line is started on its own machine only (`rbee run` there); over the network name a \
                        template of that hive: `rbee templates` lists them";
            return Err(Status::permission_denied(told));
        }
        ("", Caller::Local) if !request.parameters.is_empty() => {
            return Err(refuse::field("parameters", "they are those of a template: name it"));
        }
        ("", Caller::Local) => request,
        _ => {
            let templates = service.services.templates.clone();
            let filling = tokio::task::spawn_blocking(move || templates.fill(request));
            filling.await.map_err(gone)?.map_err(|error| refuse::template(&error))?
        }
    };
    let started = life.start(request).await.map_err(|error| refuse::start(&error))?;
    Ok(proto::StartWorkerResponse {
        worker: Some(worker(&started.member)),
        taken_over: started.taken_over,
        readiness: started.readiness.into(),
    })
}

/// What can be started by name, and what cannot and why.
pub async fn templates(service: &Workers) -> Result<proto::ListTemplatesResponse, Status> {
    let (templates, life) = (service.services.templates.clone(), service.services.life.clone());
    let check = move |request: &proto::StartWorkerRequest| life.check(request).map_err(|error| error.to_string());
    let listing = tokio::task::spawn_blocking(move || templates.list(check));
    Ok(proto::ListTemplatesResponse { templates: listing.await.map_err(gone)? })
}

fn gone(error: tokio::task::JoinError) -> Status {
    Status::internal(format!("reading the templates broke down: {error}"))
}
