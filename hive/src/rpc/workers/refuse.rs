//! Errors of the worker wing as gRPC statuses: the right code, one sentence, and the field where one is to blame.

use crate::worker::{Life, RestartError, StartError, StopError};
use common::{NameError, WorkerId};
use std::io;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// INVALID_ARGUMENT that names the field in `google.rpc.BadRequest`.
pub fn field(name: &str, message: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(name, message);
    let text = if message.starts_with(name) { message.to_owned() } else { format!("{name}: {message}") };
    Status::with_error_details(Code::InvalidArgument, text, details)
}

/// NOT_FOUND, with what there is instead.
pub fn unknown(id: &WorkerId, life: &Life) -> Status {
    let names: Vec<String> = life.roster().borrow().members.iter().take(5).map(|m| m.id.to_string()).collect();
    let others = if names.is_empty() { "none is running".to_owned() } else { format!("running: {}", names.join(", ")) };
    Status::not_found(format!("no worker {id} on hive {} ({others})", life.hive()))
}

/// Why a worker does not run.
pub fn start(error: &StartError) -> Status {
    let text = error.to_string();
    match error {
        StartError::Name(name) => field(name_field(name), &text),
        StartError::Field { field: name, message } => field(name, message),
        StartError::AlreadyExists { .. } | StartError::Populated { .. } => Status::already_exists(text),
        StartError::Denied { .. } => Status::permission_denied(text),
        StartError::NoRoom { .. } => Status::resource_exhausted(text),
        StartError::Unprivileged { .. } => Status::failed_precondition(text),
        StartError::Failed { step, source, .. } => Status::new(step_code(step, source), text),
        StartError::EndedAtOnce { log, .. } | StartError::EndedUnready { log, .. } if log.is_empty() => {
            Status::failed_precondition(text)
        }
        StartError::EndedAtOnce { log, .. } | StartError::EndedUnready { log, .. } => {
            Status::failed_precondition(format!("{text}; the last it wrote:\n{log}"))
        }
        StartError::Unready(_) => Status::unavailable(text),
        StartError::TooMany => Status::resource_exhausted(text),
        StartError::Stopping => Status::unavailable(text),
    }
}

/// Why a worker was not started again.
pub fn restart(error: RestartError, life: &Life) -> Status {
    let text = error.to_string();
    match error {
        RestartError::Unknown(id) => unknown(&id, life),
        RestartError::NotOurs { .. } | RestartError::BeingStopped(_) => Status::failed_precondition(text),
        RestartError::Stop(error) => stop(error),
        RestartError::Start { error, .. } => {
            let status = start(&error);
            Status::new(status.code(), format!("stopped, and not started again: {}", status.message()))
        }
    }
}

/// Why a worker was not stopped.
pub fn stop(error: StopError) -> Status {
    match error {
        StopError::Survives { .. } => Status::deadline_exceeded(error.to_string()),
        StopError::Starting(_) => Status::unavailable(error.to_string()),
        StopError::Stopping(_) => Status::unavailable(error.to_string()),
        StopError::Observed(_) => Status::failed_precondition(error.to_string()),
    }
}

/// Which field of a request a bad name stood in.
pub fn name_field(error: &NameError) -> &'static str {
    match error {
        NameError::Pattern { field, .. } | NameError::Kernel { field, .. } => field,
        NameError::Shape { .. } => "name",
    }
}

fn step_code(step: &str, source: &io::Error) -> Code {
    match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM) => {
            Code::ResourceExhausted
        }
        Some(libc::ENOENT | libc::ENOTDIR) if step == "exec" || step == "enter directory" => Code::NotFound,
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => Code::PermissionDenied,
        Some(libc::ENOEXEC | libc::E2BIG | libc::ELOOP | libc::ENAMETOOLONG) => Code::InvalidArgument,
        None if source.kind() == io::ErrorKind::TimedOut => Code::DeadlineExceeded,
        None if source.kind() == io::ErrorKind::Interrupted => Code::Aborted,
        _ => Code::Internal,
    }
}
