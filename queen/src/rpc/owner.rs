//! Whose hive it is: a hive's token writes under that hive's own name only.

use super::Shared;
use crate::guard::Caller;
use tonic::{Request, Status};

/// Who calls, as the guard found out.
///
/// # Errors
/// INTERNAL when the call did not pass the guard: nobody is trusted then.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(unguarded)
}

/// The same of a request that no service has taken apart yet.
pub fn caller_of<T>(request: &http::Request<T>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(unguarded)
}

fn unguarded() -> Status {
    Status::internal("this call did not pass the guard")
}

/// Lets a caller speak for a hive only if it is that hive's.
///
/// # Errors
/// PERMISSION_DENIED, which names the hive that the token is for.
pub fn check(shared: &Shared, caller: &Caller, hive: &str) -> Result<(), Status> {
    caller.speaks_for(hive).map_err(|reason| {
        shared.counts.knocks.note(&reason, None, "HiveService");
        reason.into()
    })
}

/// The hive that a session is of.
pub fn hive_of(session: &str) -> &str {
    session.split('/').next().unwrap_or_default()
}
