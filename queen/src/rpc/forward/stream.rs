//! A forwarded stream: the hive's messages as they come, until it, the caller's deadline or the queen ends it. Dropping
//! it cancels the call on the hive.

use super::own::Own;
use super::relayed;
use crate::bound::Place;
use common::HiveId;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

/// Nothing waits here: a message is taken from the hive when the caller's transport asks for one.
#[derive(Debug)]
pub struct Relay<T> {
    hive: HiveId,
    /// Absent once it has ended.
    inner: Option<Streaming<T>>,
    deadline: Option<Pin<Box<Sleep>>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Among all streams from hives, and among those from this one.
    _places: [Place; 2],
}

impl<T> Relay<T> {
    /// Hands on what `inner` brings, for `limit` at most.
    pub fn new(
        hive: HiveId,
        inner: Streaming<T>,
        limit: Option<Duration>,
        stopping: CancellationToken,
        places: [Place; 2],
    ) -> Self {
        Self {
            hive,
            inner: Some(inner),
            deadline: limit.map(|limit| Box::pin(tokio::time::sleep(limit))),
            stopping: Box::pin(stopping.cancelled_owned()),
            _places: places,
        }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<T, Status>>> {
        self.inner = None;
        Poll::Ready(Some(Err(status)))
    }
}

impl<T: Own> Stream for Relay<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.inner.is_none() {
            return Poll::Ready(None);
        }
        if self.stopping.as_mut().poll(cx).is_ready() {
            return self.end(Status::unavailable("the queen is stopping"));
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return self.end(Status::deadline_exceeded("the time that the caller gave is over"));
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_next(cx) {
            Poll::Ready(Some(Err(status))) => {
                let told = relayed(&self.hive, status);
                self.end(told)
            }
            Poll::Ready(None) => {
                self.inner = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(mut message))) => match message.own(&self.hive) {
                Ok(()) => Poll::Ready(Some(Ok(message))),
                Err(status) => self.end(status),
            },
            Poll::Pending => Poll::Pending,
        }
    }
}
