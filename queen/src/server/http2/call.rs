//! One call: waits for its answer, then sends it as fast as its stream allows. It asks its body for more only when what it gave
//! before is on its way, so that what a slow reader is told is at most one message old. That needs no window: a body may have
//! other work to do, and an end can always be told.

use super::frame::{LARGEST, Reason};
use super::outbox::Outbox;
use super::unread::Reader;
use crate::bound::Bound;
use axum::Router;
use axum::body::Body;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::header::{CONNECTION, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body as _;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tower::Service;

/// How a call left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is woken when there is more.
    Waits,
    /// It has more, and neither window nor room for it.
    Blocked,
    /// It has sent everything.
    Over,
    /// It cannot go on.
    Broken(Reason),
}

/// The windows that a call sends into, in bytes. A peer may make them smaller than nothing.
#[derive(Debug)]
pub struct Windows<'a> {
    pub stream: &'a mut i64,
    pub connection: &'a mut i64,
}

impl Windows<'_> {
    /// What may be sent in one frame.
    fn room(&self) -> usize {
        (*self.stream).min(*self.connection).clamp(0, LARGEST as i64) as usize
    }

    fn take(&mut self, bytes: usize) {
        *self.stream -= bytes as i64;
        *self.connection -= bytes as i64;
    }
}

/// A call.
pub struct Call {
    state: State,
    /// HEAD asks for fields alone.
    head: bool,
    /// What its body has given and could not be sent yet.
    rest: Bytes,
    /// Some of what it gave then was sent.
    partly: bool,
    /// How long it waits for its reader, and where there is room for what he does not take.
    reader: Reader,
    room: Arc<Bound>,
}

enum State {
    Answering(Pin<Box<RouteFuture<Infallible>>>),
    Sending(Body),
}

impl Call {
    /// Begins.
    pub fn new(router: &mut Router, request: Request<Body>, room: Arc<Bound>) -> Self {
        let head = request.method() == Method::HEAD;
        Self {
            state: State::Answering(Box::pin(router.call(request))),
            head,
            rest: Bytes::new(),
            partly: false,
            reader: Reader::Usual(None),
            room,
        }
    }

    /// Whether there is no answer yet.
    pub fn answers(&self) -> bool {
        matches!(self.state, State::Answering(_))
    }

    /// Whether it needs room to go on.
    pub fn is_loaded(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Goes on as far as it can.
    pub fn run(&mut self, id: u32, mut windows: Windows<'_>, out: &mut Outbox, cx: &mut Context<'_>) -> Left {
        loop {
            match &mut self.state {
                State::Answering(answer) => match answer.as_mut().poll(cx) {
                    Poll::Pending => return Left::Waits,
                    Poll::Ready(Ok(answer)) => {
                        if self.begin(id, answer, out) {
                            return Left::Over;
                        }
                    }
                },
                State::Sending(body) => {
                    if !self.rest.is_empty() {
                        if windows.room() == 0 || out.is_full() {
                            if !self.reader.is_given_up(self.rest.len(), &self.room) {
                                return Left::Blocked;
                            }
                            // Its reader would take a part for the whole.
                            if self.partly || !self.reader.is_told() {
                                return Left::Broken(Reason::ENHANCE_YOUR_CALM);
                            }
                            // How it ended needs no window.
                            self.rest = Bytes::new();
                            continue;
                        }
                        let data = self.rest.split_to(windows.room().min(self.rest.len()));
                        windows.take(data.len());
                        self.reader.takes(self.rest.is_empty());
                        self.partly = !self.rest.is_empty();
                        let end = self.rest.is_empty() && body.is_end_stream();
                        out.data(id, data, end);
                        if end {
                            return Left::Over;
                        }
                        continue;
                    }
                    if let Some(left) = ask(body, &mut self.rest, id, out, cx) {
                        return left;
                    }
                }
            }
        }
    }

    /// Sends what an answer begins with; whether that is all of it.
    fn begin(&mut self, id: u32, answer: Response<Body>, out: &mut Outbox) -> bool {
        let (mut parts, body) = answer.into_parts();
        self.reader = Reader::of(&mut parts.extensions);
        // What concerns a connection of HTTP/1.1 (RFC 9113, 8.2.2).
        for name in [CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        date(&mut parts.headers);
        let all = self.head || body.is_end_stream();
        out.answer(id, parts.status, &parts.headers, all);
        self.state = State::Sending(body);
        all
    }
}

/// Asks a body for more. It has left off, or there is something to be sent now.
fn ask(body: &mut Body, rest: &mut Bytes, id: u32, out: &mut Outbox, cx: &mut Context<'_>) -> Option<Left> {
    match Pin::new(body).poll_frame(cx) {
        Poll::Pending => Some(Left::Waits),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => {
                *rest = data;
                None
            }
            Err(frame) => {
                out.trailers(id, frame.trailers_ref().unwrap_or(&HeaderMap::new()));
                Some(Left::Over)
            }
        },
        Poll::Ready(None) => {
            out.data(id, Bytes::new(), true);
            Some(Left::Over)
        }
        Poll::Ready(Some(Err(_))) => Some(Left::Broken(Reason::INTERNAL_ERROR)),
    }
}

/// What has a clock says when it answered (RFC 9110, 6.6.1).
fn date(fields: &mut HeaderMap) {
    let now = || HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())).ok();
    if !fields.contains_key(DATE)
        && let Some(now) = now()
    {
        fields.insert(DATE, now);
    }
}
