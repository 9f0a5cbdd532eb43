//! An answer that ends when a token is taken away.

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
#[error("the token of this call is no longer valid")]
struct Gone;

/// Ends `body` with an error when `gone` is cancelled: the stream is reset, and the next call is told why.
pub fn body(body: Body, gone: CancellationToken) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Until { body, gone: Box::pin(gone.cancelled_owned()) })
}

struct Until {
    body: Body,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(Gone))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
