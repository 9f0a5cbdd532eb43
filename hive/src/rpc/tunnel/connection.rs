//! One tunnel: dialled, opened, and served in for as long as it lasts.

use super::Served;
use super::calls::Calls;
use crate::rpc::uplink::{CALL_DEADLINE, SessionError, boottime_ns, connect};
use bytes::Bytes;
use common::link::Access;
use common::tunnel::{MESSAGES_WAITING, Pipe, STREAM_WINDOW, STREAMS};
use proto::AttachRequest;
use proto::hive_service_client::HiveServiceClient;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

/// What an rpc of the tunnel is called in sentences.
const ATTACH: &str = "Attach";

/// A tunnel that is open.
pub struct Connection {
    /// The calls in it.
    pub calls: Calls,
    leave: CancellationToken,
    cut: CancellationToken,
    task: JoinHandle<SessionError>,
}

impl Connection {
    /// Dials the queen at `url` anew, and opens the tunnel of a session.
    pub async fn open((url, access): (&str, &Access), session: &str, served: &Served) -> Result<Self, SessionError> {
        let cut = CancellationToken::new();
        let opening = tokio::time::timeout(CALL_DEADLINE, attach((url, access), session, cut.clone()));
        let refused = |status| SessionError::refused(url, ATTACH, status);
        let (pipe, why) = opening.await.unwrap_or_else(|_| Err(refused(late())))?;
        let (calls, leave) = (Calls::default(), CancellationToken::new());
        let serving = serve(pipe, served.clone(), calls.clone(), leave.clone());
        let url = url.to_owned();
        let task = tokio::spawn(async move {
            serving.await;
            let told = why.lock().unwrap_or_else(PoisonError::into_inner).take();
            told.map_or(SessionError::Ended, |status| SessionError::refused(&url, ATTACH, status))
        });
        Ok(Self { calls, leave, cut, task })
    }

    /// Waits for its end; why it ended.
    pub async fn ended(&mut self) -> SessionError {
        (&mut self.task).await.unwrap_or(SessionError::Broken)
    }

    /// Takes no further calls; ends when the last one has.
    pub fn leave(&self) {
        self.leave.cancel();
    }
}

/// Whatever still runs in it is broken off.
impl Drop for Connection {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

fn late() -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", CALL_DEADLINE.as_secs()))
}

/// Why the queen ended a tunnel, once she has said so.
type Why = Arc<Mutex<Option<Status>>>;

async fn attach(
    (url, access): (&str, &Access),
    session: &str,
    cut: CancellationToken,
) -> Result<(Pipe, Why), SessionError> {
    let mut client = HiveServiceClient::new(connect(url, access).await?);
    let (sender, waiting) = mpsc::channel::<Bytes>(MESSAGES_WAITING);
    let first = AttachRequest { session: session.to_owned(), data: Bytes::new(), sent_boottime_ns: boottime_ns() };
    let data = ReceiverStream::new(waiting).map(|data| AttachRequest { data, ..AttachRequest::default() });
    let refused = |status| SessionError::refused(url, ATTACH, status);
    let mut incoming =
        client.attach(Request::new(tokio_stream::once(first).chain(data))).await.map_err(refused)?.into_inner();
    // The first message says that the tunnel is open.
    incoming.message().await.map_err(refused)?.ok_or(SessionError::Ended)?;
    let why = Why::default();
    let told = why.clone();
    let incoming = incoming.map(move |message| {
        message.map(|message| message.data).map_err(|status| {
            let error = io::Error::other(status.clone());
            told.lock().unwrap_or_else(PoisonError::into_inner).replace(status);
            error
        })
    });
    Ok((Pipe::new(incoming, sender, cut), why))
}

/// Serves in the tunnel. Nothing of it is made before the queen calls for the first time.
async fn serve(mut pipe: Pipe, served: Served, calls: Calls, leave: CancellationToken) {
    let begins = tokio::select! {
        begins = pipe.begins() => begins,
        () = leave.cancelled() => return,
    };
    if !begins.is_ok_and(|begins| begins) {
        return;
    }
    let ended = CancellationToken::new();
    let inner = Inner { pipe, _ended: ended.clone().drop_guard() };
    let leaving = async move {
        tokio::select! {
            () = leave.cancelled() => {}
            () = ended.cancelled() => {}
        }
    };
    // The server shuts down when nothing can come in any more.
    let incoming = tokio_stream::once(Ok::<_, io::Error>(inner)).chain(tokio_stream::pending());
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .max_concurrent_streams(STREAMS)
        // The queen gives calls up together when this machine stood still for a moment; that must not end the others.
        .http2_max_pending_accept_reset_streams(Some(STREAMS as usize))
        .layer(calls)
        .add_routes(served())
        .serve_with_incoming_shutdown(incoming, leaving);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a tunnel is no longer served");
    }
}

/// The tunnel as a connection that tonic serves on, and a sign of its end.
struct Inner {
    pipe: Pipe,
    _ended: tokio_util::sync::DropGuard,
}

impl Connected for Inner {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Inner {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, into)
    }
}

impl AsyncWrite for Inner {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
