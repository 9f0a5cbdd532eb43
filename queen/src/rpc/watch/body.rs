//! The body of a `Watch` call: the messages of its watcher as they are, then how it ended. Dropped when the client is gone,
//! which ends the watcher.

use super::RETRY;
use super::seat::{BLOCKED, Seat};
use crate::rpc::invalid;
use crate::server::Cut;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// The body.
#[derive(Debug)]
pub struct Messages {
    seat: Arc<Seat>,
    over: bool,
}

impl Messages {
    /// Of the watcher in this seat.
    pub fn new(seat: Arc<Seat>) -> Self {
        Self { seat, over: false }
    }

    /// Cuts its call off when its client does not read.
    pub fn cut(&self) -> Cut {
        self.seat.cut.clone()
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let status = match ready!(self.seat.poll(cx)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message.framed())))),
            Some(Err(status)) => status,
            None => invalid::exhausted(format!("nothing was read for {BLOCKED} s"), RETRY),
        };
        self.over = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.seat.leave();
    }
}
