//! What a connection says first: whether it speaks at all, HTTP/1.1 or HTTP/2, in the clear or TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What HTTP/2 begins with. Whoever stops within it has not spoken yet.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What TLS begins with: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// Waits for the first byte; whether it is TLS's. `None` when the peer left before.
pub async fn speaks_tls(stream: &TcpStream) -> io::Result<Option<bool>> {
    let mut first = [0; 1];
    let said = stream.peek(&mut first).await?;
    Ok((said > 0).then_some(first == [HANDSHAKE_RECORD]))
}

/// A stream that has said what it speaks.
#[derive(Debug)]
pub enum Begun<S> {
    /// HTTP/1.1.
    One(Again<S>),
    /// HTTP/2; its preface has been read.
    Two(S),
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Waits until it is clear which; `None` when the peer left before.
    pub async fn read(mut stream: S) -> io::Result<Option<Self>> {
        let (mut first, mut said) = ([0; PREFACE.len()], 0);
        loop {
            let more = stream.read(&mut first[said..]).await?;
            said += more;
            if more == 0 {
                return Ok(None);
            }
            if first[..said] != PREFACE[..said] {
                return Ok(Some(Self::One(Again { first, given: 0, said, stream })));
            }
            if said == PREFACE.len() {
                return Ok(Some(Self::Two(stream)));
            }
        }
    }
}

/// A stream whose first bytes have been read already, and are given to whoever reads next.
#[derive(Debug)]
pub struct Again<S> {
    first: [u8; PREFACE.len()],
    given: usize,
    said: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Again<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given == self.said {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = (self.said - self.given).min(buf.remaining());
        buf.put_slice(&self.first[self.given..self.given + count]);
        self.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Again<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn begun(pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let (mut peer, ours) = tokio::io::duplex(64);
        let writing = async {
            for piece in pieces {
                peer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(peer);
        };
        let reading = async {
            let mut all = Vec::new();
            match Begun::read(ours).await.unwrap()? {
                Begun::One(mut again) => again.read_to_end(&mut all).await.unwrap(),
                Begun::Two(mut stream) => {
                    all.extend_from_slice(PREFACE);
                    stream.read_to_end(&mut all).await.unwrap()
                }
            };
            Some(all)
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn nothing_is_lost_of_what_was_said_first() {
        for pieces in [
            vec![&b"GET / HTTP/1.1\r\n\r\n"[..]],
            vec![b"P", b"OST / HTTP/1.1\r\n"],
            vec![b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n", b"more"],
            vec![b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand all the rest in one go"],
        ] {
            assert_eq!(begun(&pieces).await.unwrap(), pieces.concat());
        }
    }

    #[tokio::test]
    async fn who_leaves_within_the_preface_has_not_spoken() {
        for pieces in [vec![], vec![&b"P"[..]], vec![b"PRI * HTTP/2.0"]] {
            assert_eq!(begun(&pieces).await, None);
        }
    }
}
