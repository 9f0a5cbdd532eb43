//! What is to be written on a connection. Small things are gathered; large ones stay where they lie, shared by all who are told
//! the same, and go out with what is before and behind them in one system call.

use super::frame::{Head, LARGEST, Reason, flag, kind};
use super::hpack;
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::StatusCode;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// What is not copied, in bytes: below this a piece of its own costs the kernel more than copying it costs us.
const LARGE: usize = 512;
/// Nothing further is asked of a stream when this much waits, in bytes.
const FULL: usize = 64 * 1024;
/// A peer that does not read, and has us say more than this besides bodies, is not served any longer: so much, and so much more
/// for each call that it may make, in bytes.
const ANSWERS: (usize, usize) = (256 * 1024, 4 * 1024);
/// What was gathered and written is forgotten in pieces of this size while there is always something that waits, in bytes.
const WRITTEN: usize = 16 * 1024;
/// What is no more than this is put together before it goes out, in bytes: `send` of one piece costs the kernel a tenth less than
/// `writev` of two.
const COPIED: usize = 4 * 1024;
/// So many pieces go out in one system call.
const PIECES: usize = 64;
/// An empty outbox keeps no more room than this for what comes next, in bytes and in pieces.
const KEPT: (usize, usize) = (256, 4);

/// The next piece.
#[derive(Debug)]
enum Piece {
    /// So many of the bytes that were gathered.
    Gathered(usize),
    Large(Bytes),
}

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    gathered: Vec<u8>,
    /// How much of what was gathered has been written.
    written: usize,
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Fields have been written before.
    spoken: bool,
}

impl Outbox {
    /// Whether streams shall wait.
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// How much waits, in bytes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether its peer, which may make so many calls, asks more than it reads.
    pub fn overflows(&self, calls: usize) -> bool {
        self.gathered.len() - self.written > ANSWERS.0 + calls * ANSWERS.1
    }

    /// A frame whose payload is written at once.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.gather(&Head { length: payload.len(), kind, flags, stream }.bytes());
        self.gather(payload);
    }

    /// A piece of a body. No larger than a frame may be.
    pub fn data(&mut self, stream: u32, data: Bytes, end: bool) {
        let flags = if end { flag::END_STREAM } else { 0 };
        self.gather(&Head { length: data.len(), kind: kind::DATA, flags, stream }.bytes());
        if data.len() < LARGE {
            return self.gather(&data);
        }
        self.bytes += data.len();
        self.pieces.push_back(Piece::Large(data));
    }

    /// What an answer begins with.
    pub fn answer(&mut self, stream: u32, status: StatusCode, fields: &HeaderMap, end: bool) {
        let mut block = self.block();
        hpack::put_status(status, &mut block);
        self.fields(stream, block, fields, end);
    }

    /// What it ends with.
    pub fn trailers(&mut self, stream: u32, fields: &HeaderMap) {
        let block = self.block();
        self.fields(stream, block, fields, true);
    }

    /// A stream ends before its time.
    pub fn reset(&mut self, stream: u32, reason: Reason) {
        self.frame(kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
    }

    /// More may be sent on a stream, or on the connection.
    pub fn widen(&mut self, stream: u32, bytes: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    fn block(&mut self) -> Vec<u8> {
        let first = !std::mem::replace(&mut self.spoken, true);
        if first { vec![hpack::RESET_TABLE] } else { Vec::new() }
    }

    fn fields(&mut self, stream: u32, mut block: Vec<u8>, fields: &HeaderMap, end: bool) {
        for (name, value) in fields {
            hpack::put(name.as_str().as_bytes(), value.as_bytes(), &mut block);
        }
        let (mut kind, mut flags) = (kind::HEADERS, if end { flag::END_STREAM } else { 0 });
        let mut rest = block.as_slice();
        while let Some((frame, more)) = rest.split_at_checked(LARGEST).filter(|(_, more)| !more.is_empty()) {
            self.frame(kind, flags, stream, frame);
            (kind, flags, rest) = (kind::CONTINUATION, 0, more);
        }
        // Also where there are none: something has to say that this is the end.
        self.frame(kind, flags | flag::END_HEADERS, stream, rest);
    }

    fn gather(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Gathered(count)) => *count += bytes.len(),
            _ => self.pieces.push_back(Piece::Gathered(bytes.len())),
        }
    }

    /// Writes as much as the connection takes. `desk` is room to put pieces together.
    ///
    /// # Errors
    /// The connection's.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        desk: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.bytes > 0 {
            let written = match self.bytes {
                ..=COPIED => ready!(self.poll_together(stream, desk, cx))?,
                _ => ready!(self.poll_apart(stream, cx))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// All in one piece.
    fn poll_together<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        desk: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut gathered = &self.gathered[self.written..];
        if let [Piece::Gathered(_)] = self.pieces.make_contiguous() {
            return Pin::new(stream).poll_write(cx, gathered);
        }
        desk.clear();
        for piece in &self.pieces {
            desk.extend_from_slice(match piece {
                Piece::Large(bytes) => bytes,
                Piece::Gathered(length) => take(&mut gathered, *length),
            });
        }
        Pin::new(stream).poll_write(cx, desk)
    }

    /// Each where it lies.
    fn poll_apart<S: AsyncWrite + Unpin>(&self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (mut count, mut gathered) = (0, &self.gathered[self.written..]);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match piece {
                Piece::Large(bytes) => bytes,
                Piece::Gathered(length) => take(&mut gathered, *length),
            });
            count += 1;
        }
        Pin::new(stream).poll_write_vectored(cx, &slices[..count])
    }

    fn wrote(&mut self, mut count: usize) {
        self.bytes -= count;
        if self.bytes == 0 {
            self.pieces.clear();
            count = 0;
        }
        while count > 0 {
            let Some(first) = self.pieces.front_mut() else { break };
            let part = match first {
                Piece::Large(bytes) => {
                    let part = count.min(bytes.len());
                    bytes.advance(part);
                    (part, bytes.is_empty())
                }
                Piece::Gathered(length) => {
                    let part = count.min(*length);
                    *length -= part;
                    self.written += part;
                    (part, *length == 0)
                }
            };
            count -= part.0;
            if part.1 {
                self.pieces.pop_front();
            }
        }
        if self.bytes == 0 {
            self.gathered.clear();
            self.written = 0;
        } else if self.written >= WRITTEN {
            self.gathered.drain(..self.written);
            self.written = 0;
        }
        if self.bytes == 0 {
            self.gathered.shrink_to(KEPT.0);
            self.pieces.shrink_to(KEPT.1);
        }
    }
}

/// The next so many.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(count);
    *bytes = rest;
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;

    /// Takes a few bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all = slices.iter().flat_map(|slice| slice.iter());
            let taken: Vec<u8> = all.copied().take(self.1).collect();
            self.0.extend_from_slice(&taken);
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn filled() -> Outbox {
        let mut out = Outbox::default();
        out.frame(kind::PING, flag::ACK, 0, b"12345678");
        for size in [3, LARGE, LARGE + 7, 0] {
            out.data(1, Bytes::from(vec![size as u8; size]), size == 0);
        }
        out.reset(3, Reason::NO_ERROR);
        out
    }

    #[tokio::test]
    async fn however_little_is_taken_at_a_time_what_comes_is_the_same() {
        let mut whole = Narrow(Vec::new(), usize::MAX);
        let (mut out, bytes) = (filled(), filled().bytes);
        poll_fn(|cx| out.poll_write(&mut whole, &mut Vec::new(), cx)).await.unwrap();
        assert_eq!((whole.0.len(), out.is_empty(), out.gathered.len()), (bytes, true, 0));
        for size in [1, 2, 7, 9, 511, 512, 513] {
            let (mut out, mut narrow) = (filled(), Narrow(Vec::new(), size));
            poll_fn(|cx| out.poll_write(&mut narrow, &mut Vec::new(), cx)).await.unwrap();
            assert!(narrow.0 == whole.0, "{size}");
        }
    }

    #[tokio::test]
    async fn what_is_large_is_not_copied_and_a_full_one_says_so() {
        let (mut out, data) = (Outbox::default(), Bytes::from(vec![1; LARGE]));
        out.data(1, data.clone(), false);
        assert!(matches!(&out.pieces[1], Piece::Large(bytes) if bytes.as_ptr() == data.as_ptr()));
        assert!(!out.is_full() && !out.overflows(1));
        out.data(1, Bytes::from(vec![1; FULL]), false);
        assert!(out.is_full() && !out.overflows(1));
        while !out.overflows(1) {
            out.frame(kind::PING, flag::ACK, 0, &[0; 8]);
        }
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        poll_fn(|cx| out.poll_write(&mut ours, &mut Vec::new(), cx)).await.unwrap();
        drop(ours);
        assert!(!out.is_full() && !out.overflows(1));
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        assert!(all.len() > FULL + LARGE + ANSWERS.0 + ANSWERS.1);
    }

    #[tokio::test]
    async fn what_was_written_is_forgotten_although_there_is_always_more() {
        let (mut out, mut narrow) = (Outbox::default(), Narrow(Vec::new(), 1_000));
        for _ in 0..1_000 {
            while !out.is_full() {
                out.data(1, Bytes::from_static(&[7; 100]), false);
            }
            let count = poll_fn(|cx| out.poll_apart(&mut narrow, cx)).await.unwrap();
            out.wrote(count);
            narrow.0.clear();
        }
        assert!(out.gathered.capacity() < 4 * (FULL + WRITTEN), "{}", out.gathered.capacity());
    }

    #[test]
    fn fields_that_fill_more_than_a_frame_go_on_in_the_next() {
        let (mut out, mut fields) = (Outbox::default(), HeaderMap::new());
        fields.insert("x-long", "v".repeat(super::super::frame::LARGEST).parse().unwrap());
        out.trailers(5, &fields);
        let first = Head::read(*out.gathered.first_chunk().unwrap());
        assert_eq!((first.kind, first.flags, first.stream), (kind::HEADERS, flag::END_STREAM, 5));
        let second = Head::read(*out.gathered[Head::BYTES + first.length..].first_chunk().unwrap());
        assert_eq!((second.kind, second.flags, second.stream), (kind::CONTINUATION, flag::END_HEADERS, 5));
        assert_eq!(out.gathered.len(), 2 * Head::BYTES + first.length + second.length);
        assert_eq!(out.gathered[Head::BYTES], hpack::RESET_TABLE, "said once");
        out.trailers(7, &HeaderMap::new());
        assert_eq!(out.gathered.iter().filter(|byte| **byte == hpack::RESET_TABLE).count(), 1);
        let last = Head { length: 0, kind: kind::HEADERS, flags: flag::END_HEADERS | flag::END_STREAM, stream: 7 };
        assert!(out.gathered.ends_with(&last.bytes()), "there are none, and that is the end");
    }
}
