//! The socket of one connection. What fills a frame of HTTP/2 is handed to the kernel with the word that more follows: a large
//! message is many frames, each written by itself, and would otherwise be as many sends.

use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The payload of a full frame, in bytes: what HTTP/2 allows without asking (RFC 9113, 6.5.2), and what most clients leave.
const FULL_FRAME: usize = 16 * 1024;

/// A socket. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Socket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: TcpStream,
    /// The kernel was told that more follows.
    waits: AtomicBool,
}

impl Socket {
    /// Around this stream.
    pub fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Inner { stream, waits: AtomicBool::new(false) }))
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.0.stream
    }

    /// Runs the connection on this socket to its end.
    pub async fn drive<C: Future>(&self, mut connection: Pin<&mut C>) -> C::Output {
        poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            self.push();
            polled
        })
        .await
    }

    /// Nothing follows for now: the connection has written what it had. The kernel would wait for up to 200 ms (tcp(7),
    /// `TCP_CORK`).
    fn push(&self) {
        if self.0.waits.swap(false, Ordering::Relaxed) {
            // Sends what waits, also where the option is set already. A connection that has broken is found out by whoever
            // reads it.
            let _broken = self.0.stream.set_nodelay(true);
        }
    }
}

/// One system call. One that moved less than there was room for has come to the end of what there is: as tokio's own, this
/// does not ask again before there is news.
fn once(
    stream: &TcpStream,
    interest: Interest,
    room: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = None;
    let tried = stream.try_io(interest, || {
        let count = *moved.insert(call()?);
        if (1..room).contains(&count) { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    });
    moved.map_or(tried, Ok)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match once(stream, Interest::READABLE, buf.remaining(), || stream.try_read_buf(buf)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|_| ())),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.0.stream;
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        let more = bytes >= FULL_FRAME;
        let flags = SendFlags::NOSIGNAL | if more { SendFlags::MORE } else { SendFlags::empty() };
        let send = || Ok(sendmsg(stream, bufs, &mut SendAncillaryBuffer::default(), flags)?);
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match once(stream, Interest::WRITABLE, bytes, send) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                sent => {
                    self.0.waits.store(more, Ordering::Relaxed);
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(&self.0.stream, Shutdown::Write)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    /// Far above what anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// The kernel gives up waiting after 200 ms.
    const BEFORE_THE_KERNEL: Duration = Duration::from_millis(100);

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        (Socket::new(stream), peer)
    }

    #[tokio::test]
    async fn a_full_frame_waits_for_the_next_one_or_for_the_end_of_the_turn() {
        let (mut socket, mut peer) = pair().await;
        let (frame, mut read) = (vec![7; FULL_FRAME], vec![0; 2 * FULL_FRAME]);
        let mut writer = socket.clone();
        let writing = pin!(async {
            writer.write_all(&frame).await.unwrap();
            assert_eq!(peer.try_read(&mut read).unwrap_err().kind(), ErrorKind::WouldBlock);
        });
        socket.drive(writing).await;
        timeout(BEFORE_THE_KERNEL, peer.read_exact(&mut read[..FULL_FRAME])).await.unwrap().unwrap();
        socket.write_all(&frame).await.unwrap();
        socket.write_all(b"end").await.unwrap();
        timeout(PATIENCE, peer.read_exact(&mut read[..FULL_FRAME + 3])).await.unwrap().unwrap();
        assert!(!socket.0.waits.load(Ordering::Relaxed), "what follows has come");
        assert_eq!(read[..FULL_FRAME + 3], [&frame[..], b"end"].concat());
    }

    #[tokio::test]
    async fn what_a_slow_reader_gets_is_whole() {
        let (socket, mut peer) = pair().await;
        let sent: Vec<u8> = (0..16_u32 << 20).map(|at| (at % 251) as u8).collect();
        let (mut writer, expected) = (socket.clone(), sent.clone());
        let writing = tokio::spawn(async move {
            // As h2 does it: full frames, and a rest.
            for frame in sent.chunks(FULL_FRAME + 9) {
                writer.write_all(frame).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let mut read = Vec::new();
        timeout(PATIENCE, peer.read_to_end(&mut read)).await.unwrap().unwrap();
        writing.await.unwrap();
        assert!(read == expected);
        peer.write_all(b"and back").await.unwrap();
        drop(peer);
        let (mut back, mut socket) = (String::new(), socket);
        timeout(PATIENCE, socket.read_to_string(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, "and back");
    }
}
