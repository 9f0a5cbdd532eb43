//! Errors that people meet: a sentence, and for a bad field its name as `google.rpc.BadRequest`.

use crate::fleet::{Kept, Refusal};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Twins that fence each other shall not do it every second.
const SUPERSEDED_RETRY: Duration = Duration::from_secs(30);

/// What a hive beyond a bound of this queen is told to wait.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// INVALID_ARGUMENT about one field.
pub fn field(field: &str, reason: impl Into<String>) -> Status {
    let reason = reason.into();
    let details = ErrorDetails::with_bad_request_violation(field, reason.clone());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {reason}"), details)
}

/// RESOURCE_EXHAUSTED, and when to try again.
pub fn exhausted(reason: impl Into<String>, retry: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry));
    Status::with_error_details(Code::ResourceExhausted, reason, details)
}

/// A length of time that a caller gave: absent is `None`, negative or beyond belief is refused.
pub fn length(name: &str, length: Option<&prost_types::Duration>) -> Result<Option<Duration>, Status> {
    let Some(length) = length else { return Ok(None) };
    let sense = "a length of time from 0 s on, with 0 to 999,999,999 nanoseconds";
    common::from_duration(length).map(Some).ok_or_else(|| field(name, format!("is not {sense}")))
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let sentence = refusal.to_string();
        match refusal {
            Refusal::Unknown | Refusal::Resync(_) => Self::failed_precondition(sentence),
            Refusal::Superseded => {
                let details = ErrorDetails::with_retry_info(Some(SUPERSEDED_RETRY));
                Self::with_error_details(Code::Aborted, sentence, details)
            }
            Refusal::Invalid { field: name, reason } => field(name, reason),
            Refusal::Unreadable(_) => Self::invalid_argument(sentence),
            Refusal::TooMuch(_) => exhausted(sentence, FULL_RETRY),
            Refusal::Alive { .. } => Self::already_exists(sentence),
        }
    }
}

impl From<Kept> for Status {
    fn from(kept: Kept) -> Self {
        let sentence = kept.to_string();
        match kept {
            Kept::Unknown(_) => Self::not_found(sentence),
            Kept::Heard { .. } => Self::failed_precondition(sentence),
        }
    }
}
