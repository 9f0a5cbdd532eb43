//! What is not gRPC: `/healthz`, `/metrics` and the dashboard's files. Paths that no service has are answered in the language of
//! their caller.

use crate::metrics::{self, Metrics};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::borrow::Cow;
use tonic::Status;
use web::Dist;

/// The dashboard loads only what this queen serves.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'";

/// The pages, without any service.
pub fn pages(metrics: Metrics) -> Router {
    let metrics = get(metrics::page).with_state(metrics);
    Router::new().route("/healthz", get(|| async { "ok" })).route("/metrics", metrics).fallback(other)
}

async fn other(request: Request) -> Response {
    if let Some(kind) = grpc(request.headers()) {
        return refusal(kind, Status::unimplemented(format!("no method {} is served here", request.uri().path())));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = request.uri().path().trim_start_matches('/');
    file(if path.is_empty() { "index.html" } else { path }, request.headers())
}

/// The content type of a gRPC or grpc-web request.
pub fn grpc(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(CONTENT_TYPE).filter(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A status as the whole answer, in the caller's content type.
pub fn refusal(kind: &HeaderValue, status: Status) -> Response {
    let mut response: http::Response<Body> = status.into_http();
    response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    response
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let says = |name, value: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.split(';').next().is_some_and(|v| v.trim() == value))
    };
    let packed = Dist::get(&format!("{path}.gz")).filter(|_| says(ACCEPT_ENCODING, "gzip"));
    let is_packed = packed.is_some();
    let Some(found) = packed.or_else(|| Dist::get(path)) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let hash: String = found.metadata.sha256_hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let mut response = if says(IF_NONE_MATCH, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, mime(path))], body(found.data)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// What is built in is sent from where it lies: an answer that nobody reads keeps no copy of it.
fn body(data: Cow<'static, [u8]>) -> Body {
    match data {
        Cow::Borrowed(data) => Body::from(Bytes::from_static(data)),
        Cow::Owned(data) => Body::from(data),
    }
}

fn mime(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json" | "webmanifest") => "application/json",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
