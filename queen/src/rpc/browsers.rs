//! grpc-web, for browsers. Who speaks gRPC itself, as every hive does, passes beside it: what stands around a stream is paid
//! for with each of its messages.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Version};
use std::convert::Infallible;
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt, service_fn};

/// The layer.
pub async fn speak(request: Request, next: Next) -> Response {
    if request.version() == Version::HTTP_2 && !is_web(request.headers()) {
        return next.run(request).await;
    }
    // Boxed: there are ten thousand streams of hives to each browser, and they need not have room for this.
    Box::pin(translate(request, next)).await
}

async fn translate(request: Request, next: Next) -> Response {
    let inner = service_fn(move |request: http::Request<tonic::body::Body>| {
        let next = next.clone();
        async move { Ok::<_, Infallible>(next.run(request.map(Body::new)).await) }
    });
    let Ok(answer) = GrpcWebLayer::new().layer(inner).oneshot(request).await;
    answer.map(Body::new)
}

fn is_web(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web"))
}
