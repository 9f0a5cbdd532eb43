//! The tunnel as both of its ends have it: bytes over a stream of messages, and how much may be on its way. The queen is
//! the client inside, the hive serves.

use bytes::Bytes;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, PollSender, WaitForCancellationFutureOwned};

/// The most bytes of one message; what is larger ends the tunnel.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// So many messages wait for the wire; a writer waits when they are full.
pub const MESSAGES_WAITING: usize = 4;
/// Calls at once inside one tunnel; further ones wait for their turn.
pub const STREAMS: u32 = 256;
/// What the hive may send ahead on one call, in bytes.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all calls together: as much as every call may have unread, so that no unread log blocks another call.
pub const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

type Incoming = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// One end of a tunnel as a connection. Dropping it closes the sending side.
pub struct Pipe {
    incoming: Incoming,
    unread: Bytes,
    outgoing: PollSender<Bytes>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("unread", &self.unread.len()).finish_non_exhaustive()
    }
}

impl Pipe {
    /// Reads what `incoming` brings and writes to `outgoing`, until `ended` is cancelled.
    pub fn new(
        incoming: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        outgoing: mpsc::Sender<Bytes>,
        ended: CancellationToken,
    ) -> Self {
        Self {
            incoming: Box::pin(incoming),
            unread: Bytes::new(),
            outgoing: PollSender::new(outgoing),
            ended: Box::pin(ended.cancelled_owned()),
        }
    }

    /// Waits for the first bytes. False: the tunnel ended before there were any.
    ///
    /// # Errors
    /// What the tunnel broke of.
    pub async fn begins(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| self.poll_unread(cx)).await
    }

    /// Whether there is something to read, once that is known; false at the end.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.is_empty() {
            if self.ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
            }
            match ready!(self.incoming.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) if bytes.len() > MESSAGE_MAX => {
                    let told = format!("a message of {} bytes, {MESSAGE_MAX} are allowed", bytes.len());
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, told)));
                }
                Some(Ok(bytes)) => self.unread = bytes,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if ready!(self.poll_unread(cx))? {
            let taken = self.unread.len().min(into.remaining());
            into.put_slice(&self.unread.split_to(taken));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| gone())?;
        let taken = bytes.len().min(MESSAGE_MAX);
        self.outgoing.send_item(Bytes::copy_from_slice(&bytes[..taken])).map_err(|_| gone())?;
        Poll::Ready(Ok(taken))
    }

    /// What was written is the transport's already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;
    use tokio_stream::wrappers::ReceiverStream;

    /// Two ends that read what the other writes.
    fn pair(ended: &CancellationToken) -> (Pipe, Pipe) {
        let (near, from_near) = mpsc::channel(MESSAGES_WAITING);
        let (far, from_far) = mpsc::channel(MESSAGES_WAITING);
        let pipe = |from, to| Pipe::new(ReceiverStream::new(from).map(Ok), to, ended.clone());
        (pipe(from_far, near), pipe(from_near, far))
    }

    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order_and_then_the_end() {
        let (mut near, mut far) = pair(&CancellationToken::new());
        let sent: Vec<u8> = (0..10 * MESSAGE_MAX + 7).map(|at| (at % 251) as u8).collect();
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            near.write_all(&copy).await.unwrap();
            near.shutdown().await.unwrap();
        });
        assert!(far.begins().await.unwrap());
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        writing.await.unwrap();
        assert!(read == sent, "{} of {} bytes", read.len(), sent.len());
    }

    #[tokio::test]
    async fn a_writer_waits_while_its_messages_wait() {
        let (mut near, mut far) = pair(&CancellationToken::new());
        let bytes = vec![1; MESSAGE_MAX * (MESSAGES_WAITING + 1)];
        let mut writing = tokio::spawn(async move { near.write_all(&bytes).await });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), &mut writing).await.is_err());
        let mut first = vec![0; MESSAGE_MAX];
        far.read_exact(&mut first).await.unwrap();
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_tunnel_that_is_ended_reads_nothing_more() {
        let ended = CancellationToken::new();
        let (mut near, mut far) = pair(&ended);
        near.write_all(b"late").await.unwrap();
        ended.cancel();
        let error = far.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_ends_it() {
        let (sender, _receiver) = mpsc::channel(1);
        let large = tokio_stream::once(Ok(Bytes::from(vec![0; MESSAGE_MAX + 1])));
        let mut pipe = Pipe::new(large, sender, CancellationToken::new());
        assert_eq!(pipe.begins().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
