//! What a caller who may not is told, how often that is logged, and the counts of it.

use super::Need;
use crate::page;
use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tracing::warn;

/// Refused calls are told to the log at most this often; the others are counted.
const LOGGED_EVERY: Duration = Duration::from_secs(10);
/// So many characters of a path that somebody made up are logged.
const PATH_SHOWN: usize = 80;

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is no token.
    #[error(
        "this queen wants a token with each call, as metadata authorization: Bearer TOKEN; with rbee: --token-file FILE or RBEE_TOKEN_FILE"
    )]
    Missing,
    /// There is one that nobody has, or no longer has.
    #[error("this token is not known here: it was mistyped, replaced or taken away")]
    Unknown,
    /// The role does not reach.
    #[error("this token's role is not enough: the call needs the role {needed}")]
    Role {
        /// The role that would.
        needed: Need,
    },
    /// A hive's token is for that hive.
    #[error("this token is hive {owner}'s: it cannot speak for another hive")]
    OtherHive {
        /// The hive that it was made for.
        owner: String,
    },
}

impl Reason {
    /// One word for metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Role { .. } => "role",
            Self::OtherHive { .. } => "other_hive",
        }
    }
}

impl From<Reason> for Status {
    fn from(reason: Reason) -> Self {
        let code = match reason {
            Reason::Missing | Reason::Unknown => Code::Unauthenticated,
            Reason::Role { .. } | Reason::OtherHive { .. } => Code::PermissionDenied,
        };
        Self::new(code, reason.to_string())
    }
}

/// A refusal in the language of its caller.
pub fn answer(kind: Option<&HeaderValue>, status: Status) -> Response {
    if let Some(kind) = kind {
        return page::refusal(kind, status);
    }
    let words = format!("{}\n", status.message());
    if status.code() == Code::Unauthenticated {
        let scheme = HeaderValue::from_static("Bearer");
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, scheme)], words).into_response();
    }
    (StatusCode::FORBIDDEN, words).into_response()
}

/// How often somebody was refused, by reason.
#[derive(Debug, Default)]
pub struct Knocks {
    missing: AtomicU64,
    unknown: AtomicU64,
    role: AtomicU64,
    other_hive: AtomicU64,
    /// When that was last logged, and how many have come since.
    logged: Mutex<(Option<Instant>, u64)>,
}

impl Knocks {
    /// Counts a refusal, and logs it if none was logged lately.
    pub fn note(&self, reason: &Reason, peer: Option<SocketAddr>, path: &str) {
        self.count(reason).fetch_add(1, Ordering::Relaxed);
        let Some(unlogged) = self.due(Instant::now()) else { return };
        let path: String = path.chars().take(PATH_SHOWN).collect();
        let peer = peer.map(|peer| peer.to_string());
        warn!(peer, path, reason = reason.word(), unlogged, "call refused");
    }

    /// Every reason with its count.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("missing", load(&self.missing)),
            ("unknown", load(&self.unknown)),
            ("role", load(&self.role)),
            ("other_hive", load(&self.other_hive)),
        ]
    }

    fn count(&self, reason: &Reason) -> &AtomicU64 {
        match reason {
            Reason::Missing => &self.missing,
            Reason::Unknown => &self.unknown,
            Reason::Role { .. } => &self.role,
            Reason::OtherHive { .. } => &self.other_hive,
        }
    }

    /// How many were not logged since the last one that was, when it is time to log again.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.0.is_some_and(|last| now.saturating_duration_since(last) < LOGGED_EVERY) {
            logged.1 += 1;
            return None;
        }
        let unlogged = logged.1;
        *logged = (Some(now), 0);
        Some(unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_line_in_ten_seconds() {
        let (knocks, now) = (Knocks::default(), Instant::now());
        assert_eq!(knocks.due(now), Some(0));
        for after in [0, 1, 9] {
            assert_eq!(knocks.due(now + Duration::from_secs(after)), None);
        }
        assert_eq!(knocks.due(now + LOGGED_EVERY), Some(3));
        knocks.note(&Reason::Unknown, None, "/x");
        assert_eq!(knocks.counts()[1], ("unknown", 1));
    }

    #[test]
    fn a_role_that_does_not_reach_is_told_which_one_would() {
        let status = Status::from(Reason::Role { needed: Need::Operator });
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().ends_with("needs the role operator"), "{}", status.message());
        assert_eq!(Status::from(Reason::Missing).code(), Code::Unauthenticated);
    }
}
