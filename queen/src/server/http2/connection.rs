//! One connection: its turn.

use super::buffers::Buffers;
use super::calm::Budget;
use super::frame::{self, Reason, kind, setting};
use super::heart::{Heart, Silent};
use super::hpack::Decoder;
use super::intake::Block;
use super::lane::{Bells, Carried, Turn};
use super::outbox::Outbox;
use super::stream::Streams;
use super::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::bound::Bound;
use crate::guard::Peer;
use axum::Router;
use bytes::{Buf, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

/// So often it reads before others have their turn.
const TURNS: usize = 16;
/// Requests that were refused, or taken back before they were answered: so many at once, and so many each second. A proxy has
/// many callers whose patience ends.
const TAKEN_BACK: (u16, u16) = (1_000, 500);
/// Frames that make work and bring nothing, the same. A client that measures how far its peer is pings with every round trip.
const IDLE: (u16, u16) = (10_000, 10_000);

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// The network's fault, or the peer's machine's.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The peer left while calls were open.
    #[error("the peer left, and {0} calls with it")]
    Left(usize),
    /// The peer does not answer.
    #[error("the peer does not answer")]
    Silent,
    /// Something here is wrong.
    #[error("it failed inside the queen")]
    Fault,
    /// The peer does what HTTP/2 does not allow.
    #[error("the peer broke the protocol: reason {0}")]
    Broken(u32),
}

impl From<Silent> for Gone {
    fn from(_: Silent) -> Self {
        Self::Silent
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// What they read into.
    pub buffers: Buffers,
    /// The fields of one request, in bytes.
    pub header_bytes: Arc<Bound>,
    /// How many calls may run on one connection.
    pub streams: Arc<Bound>,
    /// Bytes of answers that wait for their readers.
    pub unread_bytes: Arc<Bound>,
}

impl Shared {
    /// With bounds of its own.
    pub fn new(header_bytes: usize, streams: usize, unread_bytes: usize) -> Self {
        let [header_bytes, streams, unread_bytes] = [header_bytes, streams, unread_bytes].map(Bound::new);
        Self { buffers: Buffers::default(), header_bytes, streams, unread_bytes }
    }
}

/// A connection whose peer has said that it speaks HTTP/2.
pub struct Connection<S> {
    io: S,
    pub(super) shared: Arc<Shared>,
    pub(super) router: Router,
    pub(super) peer: Peer,
    /// What has come of a frame that is not whole.
    rest: Vec<u8>,
    pub(super) waker: Waker,
    /// There may be something to be read.
    readable: bool,
    pub(super) decoder: Decoder,
    pub(super) block: Option<Block>,
    pub(super) streams: Streams,
    pub(super) out: Outbox,
    heart: Heart,
    pub(super) taken_back: Budget,
    pub(super) idle: Budget,
    /// The newest call that is answered before it ends, once it takes no further ones.
    pub(super) leaving: Option<u32>,
    /// It ends then.
    until: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Of a peer whose preface was read.
    pub fn new(io: S, router: Router, peer: SocketAddr, shared: Arc<Shared>, bells: &Bells) -> Self {
        let mut out = Outbox::default();
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, shared.streams.limit() as u32),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, shared.header_bytes.limit() as u32),
        ];
        let payload: Vec<u8> = settings.iter().flat_map(|(name, value)| entry(*name, *value)).collect();
        out.frame(kind::SETTINGS, 0, 0, &payload);
        out.widen(0, CONNECTION_WINDOW - frame::WINDOW);
        Self {
            io,
            router,
            peer: Peer(peer),
            rest: Vec::new(),
            waker: bells.run.clone(),
            readable: true,
            decoder: Decoder::new(),
            block: None,
            streams: Streams::new(),
            out,
            heart: Heart::new(Instant::now()),
            taken_back: Budget::new(TAKEN_BACK.0, TAKEN_BACK.1),
            idle: Budget::new(IDLE.0, IDLE.1),
            leaving: None,
            until: None,
            shared,
        }
    }

    /// Has it end then, whatever it is doing.
    pub fn until(mut self, then: Option<Instant>) -> Self {
        self.until = then;
        self
    }

    fn say_goodbye(&mut self, reason: Reason) {
        // Never more than was said before (RFC 9113, 6.8).
        let last = *self.leaving.get_or_insert(self.streams.last());
        let payload = [last.to_be_bytes(), reason.0.to_be_bytes()].concat();
        self.out.frame(kind::GOAWAY, 0, 0, &payload);
    }

    /// Reads once. Whether the peer is still there.
    fn take_in(&mut self, turn: &mut Turn<'_>) -> Result<bool, Gone> {
        let cx = &mut Context::from_waker(&turn.bells.read);
        let mut buffer = self.shared.buffers.take();
        buffer.extend_from_slice(&self.rest);
        let read = match poll_read_buf(Pin::new(&mut self.io), cx, &mut buffer) {
            Poll::Pending => {
                self.shared.buffers.give(buffer);
                self.readable = false;
                return Ok(true);
            }
            Poll::Ready(read) => read?,
        };
        if read == 0 {
            return Ok(false);
        }
        self.heart.beats(turn.now);
        let taken = self.take_frames(&mut buffer);
        self.rest = buffer.to_vec();
        self.shared.buffers.give(buffer);
        taken.map_err(|reason| self.broken(reason, turn))?;
        Ok(true)
    }

    /// Takes every frame that is whole.
    fn take_frames(&mut self, buffer: &mut BytesMut) -> Result<(), Reason> {
        while let Some(head) = buffer.first_chunk() {
            let head = frame::Head::read(*head);
            if head.length > frame::LARGEST {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            if buffer.len() < frame::Head::BYTES + head.length {
                break;
            }
            buffer.advance(frame::Head::BYTES);
            let payload = buffer.split_to(head.length);
            self.take(head, payload)?;
        }
        Ok(())
    }

    /// Tells the peer why it is not served any longer, if it listens.
    fn broken(&mut self, reason: Reason, turn: &mut Turn<'_>) -> Gone {
        self.say_goodbye(reason);
        let _told = self.push(turn);
        Gone::Broken(reason.0)
    }

    /// Reads and works, but no more than fits into what is to be written. What is asked for in the first thing that is read
    /// begins after the next look: a peer may have asked while the queen stood still, and have left since, and nobody waits any
    /// more for that worker to be stopped.
    fn advance(&mut self, turn: &mut Turn<'_>) -> Result<bool, Gone>
    where
        S: Send,
    {
        self.readable |= turn.readable;
        for read in 0..TURNS {
            if self.readable && !self.take_in(turn)? {
                let open = self.streams.len();
                return if open == 0 { Ok(false) } else { Err(Gone::Left(open)) };
            }
            self.streams.run(&mut self.out, !self.readable || read > 0);
            self.streams.credit(&mut self.out);
            if !self.readable || self.out.is_full() {
                break;
            }
        }
        self.heart.look(turn.now, &mut self.out)?;
        if self.until.is_some_and(|until| until <= turn.now) {
            Carried::leave(self);
            let _told = self.push(turn);
            return Ok(false);
        }
        Ok(true)
    }

    fn push(&mut self, turn: &mut Turn<'_>) -> Poll<io::Result<()>> {
        self.out.poll_write(&mut self.io, turn.desk, &mut Context::from_waker(&turn.bells.run))
    }

    fn write(&mut self, turn: &mut Turn<'_>) -> Result<bool, Gone> {
        let written = self.push(turn)?;
        if written.is_pending() && self.out.overflows(self.shared.streams.limit()) {
            return Err(self.broken(Reason::ENHANCE_YOUR_CALM, turn));
        }
        if self.leaving.is_some() && self.streams.len() == 0 && written.is_ready() {
            return Ok(false);
        }
        if self.readable {
            turn.bells.read.wake_by_ref();
        } else if written.is_ready() && self.streams.can_run(&self.out) {
            turn.bells.run.wake_by_ref();
        }
        Ok(true)
    }

    /// What was written is on its way; that nothing follows is a courtesy.
    fn over(&mut self, goes_on: Result<bool, Gone>, turn: &Turn<'_>) -> Poll<Result<(), Gone>> {
        match goes_on {
            Ok(true) => Poll::Pending,
            Ok(false) => {
                let _ended = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(&turn.bells.run));
                Poll::Ready(Ok(()))
            }
            Err(gone) => Poll::Ready(Err(gone)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Carried for Connection<S> {
    fn work(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        let goes_on = self.advance(turn);
        self.over(goes_on, turn)
    }

    fn tell(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        let goes_on = self.write(turn);
        self.over(goes_on, turn)
    }

    fn due(&self) -> Instant {
        self.until.map_or(self.heart.due(), |until| until.min(self.heart.due()))
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            self.say_goodbye(Reason::NO_ERROR);
        }
    }
}

/// One thing that is agreed upon.
fn entry(name: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}
