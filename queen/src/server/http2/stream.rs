//! The streams of a connection.

use super::call::{Call, Left, Windows};
use super::frame::{Reason, WINDOW_MAX};
use super::line::{End, Line};
use super::outbox::Outbox;
use super::{CONNECTION_WINDOW, STREAM_WINDOW};
use bytes::Bytes;
use http::HeaderMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Waker};

/// A stream.
pub struct Stream {
    id: u32,
    line: Arc<Line>,
    /// Wakes its call: made once.
    waker: Waker,
    call: Call,
    /// Its call has run before.
    begun: bool,
    /// What may be sent on it, in bytes.
    window: i64,
    /// What its peer may send, in bytes.
    credit: u32,
    /// What was read of what has come, and was not told to the peer.
    read: u32,
    /// What has come and was not read.
    unread: u32,
    /// How much its body said it would be, less what has come.
    announced: Option<u64>,
    /// Its peer has said that nothing more follows.
    ended: bool,
}

/// All that are open.
pub struct Streams {
    /// In the order of their numbers, which only grow.
    open: Vec<Stream>,
    /// The newest there has been.
    last: u32,
    /// Who took the last room.
    turn: u32,
    /// What may be sent on the connection, and on a stream that begins, in bytes.
    window: i64,
    initial: i64,
    /// What was read on the connection and was not told to the peer, and what it may send.
    read: u32,
    credit: u32,
}

impl Streams {
    /// None yet.
    pub fn new() -> Self {
        let window = i64::from(super::frame::WINDOW);
        let (read, credit) = (0, CONNECTION_WINDOW);
        // Most connections have one: a hive's has its telemetry, a dashboard's its watch.
        Self { open: Vec::with_capacity(1), last: 0, turn: 0, window, initial: window, read, credit }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The newest there has been.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Whether this is the number of a new one, which none smaller may follow.
    pub fn is_new(&mut self, id: u32) -> bool {
        let new = id > self.last;
        self.last = self.last.max(id);
        new
    }

    /// One more.
    pub fn add(&mut self, id: u32, line: Arc<Line>, call: Call, announced: Option<u64>) {
        let (waker, window) = (Waker::from(Arc::clone(&line)), self.initial);
        let (credit, read, unread, ended, begun) = (STREAM_WINDOW, 0, 0, false, false);
        self.open.push(Stream { id, line, waker, call, begun, window, credit, read, unread, announced, ended });
    }

    fn find(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.open.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.open.get_mut(at)
    }

    /// Whether it is open.
    pub fn has(&mut self, id: u32) -> bool {
        self.find(id).is_some()
    }

    /// A piece of a body has come; `taken` bytes of the windows are used for it. What is for a stream that is no more is
    /// nobody's.
    ///
    /// # Errors
    /// When its sender goes beyond what it may send, or said.
    pub fn data(&mut self, id: u32, data: Bytes, taken: u32, end: bool) -> Result<(), (u32, Reason)> {
        self.credit = self.credit.checked_sub(taken).ok_or((0, Reason::FLOW_CONTROL_ERROR))?;
        let Some(stream) = self.find(id) else {
            self.read += taken;
            return Ok(());
        };
        let length = data.len() as u32;
        stream.unread += taken;
        if stream.ended {
            return Err((id, Reason::STREAM_CLOSED));
        }
        stream.credit = stream.credit.checked_sub(taken).ok_or((id, Reason::FLOW_CONTROL_ERROR))?;
        if let Some(announced) = &mut stream.announced {
            *announced = announced.checked_sub(length.into()).ok_or((id, Reason::PROTOCOL_ERROR))?;
        }
        if !data.is_empty() {
            stream.line.add(data);
        }
        // Padding is read by nobody.
        if taken > length {
            self.count_read(id, taken - length);
        }
        if end { self.end(id, None) } else { Ok(()) }
    }

    /// A body has ended in order.
    ///
    /// # Errors
    /// When less has come than was said.
    pub fn end(&mut self, id: u32, trailers: Option<HeaderMap>) -> Result<(), (u32, Reason)> {
        let Some(stream) = self.find(id) else { return Ok(()) };
        if stream.announced.is_some_and(|missing| missing > 0) {
            return Err((id, Reason::PROTOCOL_ERROR));
        }
        if std::mem::replace(&mut stream.ended, true) {
            return Err((id, Reason::STREAM_CLOSED));
        }
        stream.line.end(End::InOrder, trailers);
        Ok(())
    }

    /// Ends one before its time; whether it was still without an answer. `None` where there was none.
    pub fn drop(&mut self, id: u32) -> Option<bool> {
        let at = self.open.binary_search_by_key(&id, |stream| stream.id).ok()?;
        let answers = self.open[at].call.answers();
        self.close(at);
        Some(answers)
    }

    /// The end of an answer ends what was asked, too: who has given the body to somebody else answers when he is done with it.
    fn close(&mut self, at: usize) {
        let stream = self.open.remove(at);
        stream.line.end(End::GivenUp, None);
        if stream.unread > 0 {
            // Whoever still has the body may read what has come; the connection goes on.
            stream.line.keep();
            self.read += stream.unread;
        }
    }

    /// More may be sent, on a stream or on the connection.
    ///
    /// # Errors
    /// When that is more than there may be.
    pub fn widen(&mut self, id: u32, bytes: u32) -> Result<(), (u32, Reason)> {
        let window = match id {
            0 => &mut self.window,
            _ => match self.find(id) {
                Some(stream) => &mut stream.window,
                None => return Ok(()),
            },
        };
        *window += i64::from(bytes);
        if *window > WINDOW_MAX.into() { Err((id, Reason::FLOW_CONTROL_ERROR)) } else { Ok(()) }
    }

    /// The window of each stream is to begin with so much; that of those which have begun changes by as much.
    ///
    /// # Errors
    /// When that is more than there may be.
    pub fn set_initial(&mut self, bytes: u32) -> Result<(), Reason> {
        let change = i64::from(bytes) - self.initial;
        self.initial = bytes.into();
        let mut fits = bytes <= WINDOW_MAX;
        for stream in &mut self.open {
            stream.window += change;
            fits &= stream.window <= WINDOW_MAX.into();
        }
        if fits { Ok(()) } else { Err(Reason::FLOW_CONTROL_ERROR) }
    }

    /// Has every call go on that was woken, as far as it can; those that have not begun only when `new` ones may. Whoever took
    /// the last room comes last the next time.
    pub fn run(&mut self, out: &mut Outbox, new: bool) {
        let mut at = self.open.partition_point(|stream| stream.id <= self.turn);
        for _ in 0..self.open.len() {
            if at >= self.open.len() {
                at = 0;
            }
            let waits = !new && !self.open[at].begun;
            if waits || self.run_one(at, out) {
                at += 1;
            }
        }
    }

    /// Whether it is still open.
    fn run_one(&mut self, at: usize, out: &mut Outbox) -> bool {
        let stream = &mut self.open[at];
        if !stream.line.is_woken() {
            return true;
        }
        stream.line.runs();
        stream.begun = true;
        let room = |window: i64, out: &Outbox| window > 0 && !out.is_full();
        let had_room = room(self.window, out);
        let windows = Windows { stream: &mut stream.window, connection: &mut self.window };
        let (call, mut cx) = (&mut stream.call, Context::from_waker(&stream.waker));
        // A call that panics takes nobody else's with it.
        let ran = catch_unwind(AssertUnwindSafe(|| call.run(stream.id, windows, out, &mut cx)));
        let left = ran.unwrap_or(Left::Broken(Reason::INTERNAL_ERROR));
        if had_room && !room(self.window, out) {
            self.turn = stream.id;
        }
        match left {
            Left::Waits => return true,
            Left::Blocked => {
                stream.line.runs_again();
                return true;
            }
            // What a caller would still send is of no use (RFC 9113, 8.1).
            Left::Over if !stream.ended => out.reset(stream.id, Reason::NO_ERROR),
            Left::Over => {}
            Left::Broken(reason) => out.reset(stream.id, reason),
        }
        self.close(at);
        false
    }

    /// Whether a call was woken that has room to go on.
    pub fn can_run(&self, out: &Outbox) -> bool {
        let room = !out.is_full() && self.window > 0;
        self.open
            .iter()
            .any(|stream| stream.line.is_woken() && (!stream.call.is_loaded() || (room && stream.window > 0)))
    }

    /// Tells the peer what was read, a good part of a window at a time. What nobody reads does not open the window of its stream.
    pub fn credit(&mut self, out: &mut Outbox) {
        for at in 0..self.open.len() {
            let stream = &self.open[at];
            let (id, read) = (stream.id, stream.line.take_read());
            if read > 0 {
                self.count_read(id, read);
            }
            let stream = &mut self.open[at];
            if stream.unread > 0 {
                stream.line.keep();
            }
            if stream.read >= STREAM_WINDOW / 2 && !stream.ended && !stream.line.is_left() {
                stream.credit += stream.read;
                out.widen(id, std::mem::take(&mut stream.read));
            }
        }
        if self.read >= CONNECTION_WINDOW / 2 {
            self.credit += self.read;
            out.widen(0, std::mem::take(&mut self.read));
        }
    }

    fn count_read(&mut self, id: u32, bytes: u32) {
        self.read += bytes;
        if let Some(stream) = self.find(id) {
            stream.read += bytes;
            stream.unread -= bytes;
        }
    }
}

impl Drop for Streams {
    /// The connection is gone.
    fn drop(&mut self) {
        for stream in &self.open {
            stream.line.end(End::Lost, None);
        }
    }
}
