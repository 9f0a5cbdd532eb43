//! An answer that ends when a token is taken away.

use super::Reason;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the token of this call is no longer valid")]
struct Gone;

/// Ends `body` when `gone` is cancelled. An answer of the content type `kind` in gRPC's own frames says why; every other one is
/// broken off, and the next call is told.
pub fn body(body: Body, kind: Option<&HeaderValue>, gone: CancellationToken) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let says = kind.is_some_and(|kind| !kind.as_bytes().starts_with(b"application/grpc-web"));
    Body::new(Until { body, says, over: false, gone: Box::pin(gone.cancelled_owned()) })
}

struct Until {
    body: Body,
    says: bool,
    over: bool,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Until {
    fn end(&mut self) -> Result<Frame<Bytes>, axum::Error> {
        self.over = true;
        let mut trailers = HeaderMap::new();
        if self.says && Status::from(Reason::Unknown).add_header(&mut trailers).is_ok() {
            return Ok(Frame::trailers(trailers));
        }
        Err(axum::Error::new(Gone))
    }
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(self.end()));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
