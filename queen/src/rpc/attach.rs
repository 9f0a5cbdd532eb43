//! Attach: a hive's tunnel, from its first message to its end. The bytes in it are nobody's business here.

use super::{Shared, owner};
use crate::fleet::Refusal;
use crate::rpc::invalid;
use crate::tunnel::{Asked, Attached, NotAttached};
use bytes::Bytes;
use common::HiveId;
use common::tunnel::{MESSAGES_WAITING, Pipe};
use proto::{AttachRequest, AttachResponse};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Status, Streaming};
use tracing::info;

/// A hive that has not named its session after this long is sent away.
const FIRST: Duration = Duration::from_secs(5);
/// What a hive is told to wait that finds all places taken.
const RETRY: Duration = Duration::from_secs(30);

/// What the hive is sent: that the tunnel is open, then its bytes, then why it ended.
#[derive(Debug)]
pub struct Outgoing {
    hive: HiveId,
    /// The tunnel's place; given up as soon as it is over.
    attached: Option<Attached>,
    bytes: mpsc::Receiver<Bytes>,
    opened: bool,
    fenced: Pin<Box<WaitForCancellationFutureOwned>>,
    replaced: Pin<Box<WaitForCancellationFutureOwned>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Opens a tunnel.
///
/// # Errors
/// PERMISSION_DENIED when the caller's token is another hive's; what [`Refusal`] says of the session.
pub async fn attach(shared: &Shared, request: Request<Streaming<AttachRequest>>) -> Result<Outgoing, Status> {
    let caller = owner::caller(&request)?;
    let mut incoming = request.into_inner();
    let first = tokio::select! {
        () = shared.stopping.cancelled() => return Err(stopping()),
        first = timeout(FIRST, incoming.message()) => first,
    };
    let first = first.map_err(|_| Status::deadline_exceeded("the first message did not come within 5 s"))??;
    let first = first.ok_or_else(|| invalid::field("session", "the first message names the session"))?;
    if !first.data.is_empty() {
        return Err(invalid::field("data", "the first message carries none"));
    }
    owner::check(shared, &caller, owner::hive_of(&first.session))?;
    let holder = shared.fleet.holder(&first.session)?;
    let (sender, bytes) = mpsc::channel(MESSAGES_WAITING);
    let ended = CancellationToken::new();
    let incoming = incoming.map(|message| message.map(|message| message.data).map_err(io::Error::other));
    let pipe = Pipe::new(incoming, sender, ended.clone());
    let asked = Asked { epoch: holder.epoch, sent: first.sent_boottime_ns };
    let attached = shared.tunnels.add(holder.hive.clone(), asked, pipe, ended.clone()).map_err(refused)?;
    info!(hive = %holder.hive, epoch = holder.epoch, "hive attached");
    Ok(Outgoing {
        hive: holder.hive,
        attached: Some(attached),
        bytes,
        opened: false,
        fenced: Box::pin(holder.fence.cancelled_owned()),
        replaced: Box::pin(ended.cancelled_owned()),
        stopping: Box::pin(shared.stopping.clone().cancelled_owned()),
    })
}

impl Outgoing {
    fn end(&mut self, status: Status) -> Poll<Option<Result<AttachResponse, Status>>> {
        self.attached = None;
        Poll::Ready(Some(Err(status)))
    }
}

impl Stream for Outgoing {
    type Item = Result<AttachResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.attached.is_none() {
            return Poll::Ready(None);
        }
        if self.fenced.as_mut().poll(cx).is_ready() {
            return self.end(Refusal::Superseded.into());
        }
        if self.replaced.as_mut().poll(cx).is_ready() {
            return self.end(refused(NotAttached::Superseded));
        }
        if self.stopping.as_mut().poll(cx).is_ready() {
            return self.end(stopping());
        }
        if !std::mem::replace(&mut self.opened, true) {
            return Poll::Ready(Some(Ok(AttachResponse::default())));
        }
        match self.bytes.poll_recv(cx) {
            Poll::Ready(Some(data)) => Poll::Ready(Some(Ok(AttachResponse { data }))),
            Poll::Ready(None) => {
                self.attached = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        info!(hive = %self.hive, "tunnel ended");
    }
}

fn stopping() -> Status {
    Status::unavailable("the queen is stopping")
}

fn refused(error: NotAttached) -> Status {
    match error {
        NotAttached::Full(_) => invalid::exhausted(error.to_string(), RETRY),
        NotAttached::Superseded => Status::aborted(error.to_string()),
    }
}
