//! What is said to a connection that is not served: in gRPC a status with a retry time, to browsers and tools a page.

use crate::page;
use crate::rpc::invalid;
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;
use std::time::Duration;
use tonic::Status;

/// When a connection that found no room may be tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There are too many.
    Full,
    /// It speaks in the clear where TLS is spoken.
    Clear,
}

/// Answers every request of such a connection.
pub fn router(why: Turned) -> Router {
    Router::new().fallback(move |request: Request| async move { answer(why, &request) })
}

fn answer(why: Turned, request: &Request) -> Response {
    let (status, code, words) = match why {
        Turned::Full => {
            let words = "this queen has as many connections as it serves, or as it serves of one address";
            (invalid::exhausted(words, RETRY), StatusCode::SERVICE_UNAVAILABLE, words)
        }
        Turned::Clear => {
            let words = "this queen speaks TLS: use https://";
            (Status::failed_precondition(words), StatusCode::BAD_REQUEST, words)
        }
    };
    if let Some(kind) = page::grpc(request.headers()) {
        return page::refusal(kind, status);
    }
    let page = (code, format!("{words}\n"));
    match why {
        Turned::Full => ([(RETRY_AFTER, RETRY.as_secs().to_string())], page).into_response(),
        Turned::Clear => page.into_response(),
    }
}
