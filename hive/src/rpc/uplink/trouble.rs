//! Why a session, or a tunnel of one, ended, and when to try again.

use super::STALL_LIMIT;
use common::link::LinkError;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// After a newer session took over, so that twins do not throw each other out in turns.
const SUPERSEDED_WINDOW: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60));
/// The first call of a session.
pub(super) const REGISTER: &str = "Register";
/// A queen that names a longer wait is asked again after this.
const LONGEST: Duration = Duration::from_secs(60);
/// Those who were told the same spread over so much more of it.
const SPREAD: f64 = 0.5;

/// Why a session, or a tunnel of one, ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("no connection to {url}: {reason}")]
    Connect { url: String, reason: LinkError },
    #[error("{step} was answered with {:?}: {}", status.code(), status.message())]
    Refused { step: &'static str, status: Status },
    #[error("what listens at {0} does not answer as a queen does")]
    NoQueen(String),
    #[error("the connection broke")]
    Broken,
    #[error("the queen has taken no frame for {} s", STALL_LIMIT.as_secs())]
    Stalled,
    #[error("the queen ended the stream")]
    Ended,
}

impl SessionError {
    /// A status that this end made itself says in many words, a new one each time, only that the link is gone.
    pub fn refused(url: &str, step: &'static str, status: Status) -> Self {
        match std::error::Error::source(&status) {
            Some(_) if step == REGISTER => Self::NoQueen(url.to_owned()),
            Some(_) => Self::Broken,
            None => Self::Refused { step, status },
        }
    }

    /// What the queen answered, if she did.
    pub fn code(&self) -> Option<Code> {
        if let Self::Refused { status, .. } = self { Some(status.code()) } else { None }
    }

    /// How long the queen wants to be left alone, if she said so. A Register that is refused as superseded is one of a machine
    /// whose clock was set back; no twin has it wait.
    pub fn window(&self) -> Option<(Duration, Duration)> {
        match self {
            Self::Refused { status, step } if status.code() == Code::Aborted => {
                (*step != REGISTER).then_some(SUPERSEDED_WINDOW)
            }
            Self::Refused { status, .. } => {
                let asked = status.get_details_retry_info()?.retry_delay?.min(LONGEST);
                Some((asked, asked.mul_f64(1.0 + SPREAD)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_wait_that_the_queen_names_is_kept_within_reason() {
        let refused = |step, code, wait: Option<u64>| {
            let details = ErrorDetails::with_retry_info(wait.map(Duration::from_secs));
            SessionError::Refused { step, status: Status::with_error_details(code, "", details) }.window()
        };
        let between = |from: u64, to: u64| Some((Duration::from_secs(from), Duration::from_secs(to)));
        assert_eq!(refused("Attach", Code::ResourceExhausted, Some(30)), between(30, 45));
        assert_eq!(refused(REGISTER, Code::Unavailable, Some(2)), between(2, 3));
        assert_eq!(refused(REGISTER, Code::ResourceExhausted, Some(86_400)), between(60, 90));
        assert_eq!(refused("PushTelemetry", Code::Internal, None), None);
        assert_eq!(refused("PushTelemetry", Code::Aborted, Some(1)), Some(SUPERSEDED_WINDOW));
        assert_eq!(refused(REGISTER, Code::Aborted, Some(30)), None);
        assert_eq!(SessionError::Stalled.window(), None);
    }
}
