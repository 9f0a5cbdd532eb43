//! Frames, in. What comes for a stream that is no more is taken note of as far as the connection needs it and no further.

use super::call::Call;
use super::connection::Connection;
use super::frame::{Head, LARGEST, Reason, flag, kind, number, setting, unpadded};
use super::line::{Ended, Incoming, Line};
use super::request::{Fields, Unfit};
use axum::body::Body;
use bytes::{Buf, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tonic::Status;

/// The fields of one request may come in so many frames more than their bytes need.
const EXTRA_FRAMES: usize = 8;
/// Fields beyond what is read are answered; beyond so many times that, they are not waited for.
const HEARD: usize = 2;
/// What HEADERS says of priorities (RFC 9113, 6.2), in bytes.
const PRIORITY: usize = 5;

/// Fields that are not complete: nothing else may come in between.
#[derive(Debug)]
pub struct Block {
    stream: u32,
    end: bool,
    frames: usize,
    bytes: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes a frame.
    ///
    /// # Errors
    /// Where the connection cannot go on.
    pub(super) fn take(&mut self, head: Head, payload: BytesMut) -> Result<(), Reason> {
        if self.block.is_some() != (head.kind == kind::CONTINUATION) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if (head.stream == 0) != is_of_connection(head.kind).unwrap_or(head.stream == 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, &payload),
            kind::CONTINUATION => self.go_on(head, &payload),
            kind::RST_STREAM => self.reset(head, &payload),
            kind::SETTINGS => self.settings(head, &payload),
            kind::PING => self.ping(head, &payload),
            kind::WINDOW_UPDATE => self.widen(head, &payload),
            // The peer will open no more streams, and closes the connection when it is done.
            kind::GOAWAY => Ok(()),
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            // Priorities, and what is not known.
            _ => self.bear(),
        }
    }

    /// One frame that brings nothing.
    fn bear(&mut self) -> Result<(), Reason> {
        if self.idle.spend(Instant::now()) { Ok(()) } else { Err(Reason::ENHANCE_YOUR_CALM) }
    }

    /// One request that was for nothing.
    fn forgive(&mut self) -> Result<(), Reason> {
        if self.taken_back.spend(Instant::now()) { Ok(()) } else { Err(Reason::ENHANCE_YOUR_CALM) }
    }

    fn data(&mut self, head: Head, mut payload: BytesMut) -> Result<(), Reason> {
        let data = unpadded(head, &payload).ok_or(Reason::PROTOCOL_ERROR)?.len();
        payload.advance(usize::from(head.has(flag::PADDED)));
        payload.truncate(data);
        let end = head.has(flag::END_STREAM);
        if data == 0 && !end {
            self.bear()?;
        }
        if head.stream > self.streams.last() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let taken = self.streams.data(head.stream, payload.freeze(), head.length as u32, end);
        self.settle(taken)
    }

    /// A fault of one stream ends that stream; one of the connection, the connection.
    fn settle(&mut self, taken: Result<(), (u32, Reason)>) -> Result<(), Reason> {
        match taken {
            Ok(()) => Ok(()),
            Err((0, reason)) => Err(reason),
            Err((stream, reason)) => {
                self.streams.drop(stream);
                self.out.reset(stream, reason);
                self.forgive()
            }
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let mut payload = unpadded(head, payload).ok_or(Reason::PROTOCOL_ERROR)?;
        if head.has(flag::PRIORITY) {
            payload = payload.get(PRIORITY..).ok_or(Reason::PROTOCOL_ERROR)?;
        }
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.fields(head.stream, end, payload);
        }
        self.block = Some(Block { stream: head.stream, end, frames: 1, bytes: payload.to_vec() });
        Ok(())
    }

    fn go_on(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let Some(mut block) = self.block.take() else { return Err(Reason::PROTOCOL_ERROR) };
        if block.stream != head.stream {
            return Err(Reason::PROTOCOL_ERROR);
        }
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        // What is refused must be decoded all the same, or the tables of the two sides no longer agree.
        let most = HEARD * self.shared.header_bytes.limit().max(LARGEST);
        if block.bytes.len() > most || block.frames > EXTRA_FRAMES + most / LARGEST {
            self.shared.header_bytes.refuse();
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        if head.has(flag::END_HEADERS) {
            return self.fields(block.stream, block.end, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// The fields of a request, or those that end its body.
    fn fields(&mut self, stream: u32, end: bool, block: &[u8]) -> Result<(), Reason> {
        let mut fields = Fields::new(self.shared.header_bytes.limit());
        self.decoder.read(block, |name, value| fields.add(name, value)).map_err(|_| Reason::COMPRESSION_ERROR)?;
        if self.streams.has(stream) {
            if fields.is_too_large() {
                self.shared.header_bytes.refuse();
            }
            let trailers = fields.trailers().ok().filter(|_| end).ok_or((stream, Reason::PROTOCOL_ERROR));
            let ended = trailers.and_then(|trailers| self.streams.end(stream, Some(trailers)));
            return self.settle(ended);
        }
        if stream.is_multiple_of(2) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.streams.is_new(stream) {
            // Trailers of a call that is over.
            return if fields.is_too_large() { self.forgive() } else { self.bear() };
        }
        let full = self.streams.len() >= self.shared.streams.limit();
        if full {
            self.shared.streams.refuse();
        }
        if full || self.leaving.is_some() {
            self.out.reset(stream, Reason::REFUSED_STREAM);
            return self.forgive();
        }
        match fields.request() {
            Ok((parts, announced)) => self.begin(stream, parts, announced, end),
            Err(Unfit::Malformed) => {
                self.out.reset(stream, Reason::PROTOCOL_ERROR);
                self.forgive()
            }
            Err(Unfit::TooLarge) => {
                self.shared.header_bytes.refuse();
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                self.out.answer(stream, status, &too_large(self.shared.header_bytes.limit()), true);
                if !end {
                    self.out.reset(stream, Reason::NO_ERROR);
                }
                self.forgive()
            }
        }
    }

    fn begin(&mut self, stream: u32, parts: Parts, announced: Option<u64>, end: bool) -> Result<(), Reason> {
        let line = Line::new(self.waker.clone());
        let mut request = Request::from_parts(parts, Body::new(Incoming(Arc::clone(&line))));
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(Ended(Arc::clone(&line)));
        let call = Call::new(&mut self.router, request, Arc::clone(&self.shared.unread_bytes));
        self.streams.add(stream, line, call, announced);
        let ended = if end { self.streams.end(stream, None) } else { Ok(()) };
        self.settle(ended)
    }

    fn reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if head.stream > self.streams.last() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        // To take back what is being answered is every watcher's right.
        if self.streams.drop(head.stream) == Some(true) { self.forgive() } else { self.bear() }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || (head.has(flag::ACK) && !payload.is_empty()) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.bear()?;
        if head.has(flag::ACK) {
            return Ok(());
        }
        for [a, b, value @ ..] in entries {
            let (name, value) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value));
            match name {
                setting::INITIAL_WINDOW_SIZE => self.streams.set_initial(value)?,
                setting::ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                // Ours are never larger than what everybody takes.
                setting::MAX_FRAME_SIZE if !(LARGEST as u32..1 << 24).contains(&value) => {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                _ => {}
            }
        }
        self.out.frame(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != 8 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if !head.has(flag::ACK) {
            self.out.frame(kind::PING, flag::ACK, 0, payload);
        }
        self.bear()
    }

    fn widen(&mut self, head: Head, payload: &[u8]) -> Result<(), Reason> {
        let bytes = number(payload).filter(|_| payload.len() == 4).ok_or(Reason::FRAME_SIZE_ERROR)?;
        if head.stream > self.streams.last() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let widened = match bytes & !(1 << 31) {
            0 => Err((head.stream, Reason::PROTOCOL_ERROR)),
            bytes => self.streams.widen(head.stream, bytes),
        };
        self.settle(widened)
    }
}

/// What a client of gRPC is told, whatever the status of the answer is. It will not fit later either: there is no retry time.
fn too_large(limit: usize) -> HeaderMap {
    let status = Status::resource_exhausted(format!("the fields of a request may have no more than {limit} bytes"));
    let mut fields = HeaderMap::new();
    // What cannot be written as a field is not there.
    status.add_header(&mut fields).map_or_else(|_| HeaderMap::new(), |()| fields)
}

/// Whether a kind of frame is of the connection, or of a stream; `None` where it may be of either.
fn is_of_connection(kind: u8) -> Option<bool> {
    match kind {
        kind::SETTINGS | kind::PING | kind::GOAWAY => Some(true),
        kind::WINDOW_UPDATE => None,
        kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::PUSH_PROMISE | kind::CONTINUATION => {
            Some(false)
        }
        _ => None,
    }
}
