//! What a call and the connection that it came on have in common: what has come of its body, and who wakes whom. They run in one
//! task, but a body may be given to another one.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tonic::Status;

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its sender said that nothing more follows.
    InOrder,
    /// Its sender has given the call up.
    GivenUp,
    /// The connection is gone.
    Lost,
}

/// The line between the two.
#[derive(Debug)]
pub struct Line {
    /// Its call was woken and has not run since.
    woken: AtomicBool,
    /// So much was read and has not been told to the peer, in bytes.
    read: AtomicU32,
    inbox: Mutex<Inbox>,
    /// Wakes the connection.
    connection: Waker,
}

#[derive(Debug, Default)]
struct Inbox {
    /// What has come this turn, where it was read.
    data: VecDeque<Bytes>,
    /// What came before that, and nobody has read yet: in room of its own, or a byte would keep a whole buffer.
    kept: BytesMut,
    trailers: Option<HeaderMap>,
    end: Option<End>,
    reader: Option<Waker>,
    /// Nobody reads any more.
    left: bool,
}

impl Inbox {
    fn next(&mut self) -> Option<Bytes> {
        if self.kept.is_empty() { self.data.pop_front() } else { Some(std::mem::take(&mut self.kept).freeze()) }
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.data.is_empty()
    }
}

impl Line {
    /// A line on this connection. Its call runs at once.
    pub fn new(connection: Waker) -> Arc<Self> {
        let (woken, read, inbox) = (AtomicBool::new(true), AtomicU32::new(0), Mutex::default());
        Arc::new(Self { woken, read, inbox, connection })
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its call wants to run.
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Its call runs now.
    pub fn runs(&self) {
        self.woken.store(false, Ordering::Release);
    }

    /// Its call wants to run again, as soon as the connection comes to it.
    pub fn runs_again(&self) {
        self.woken.store(true, Ordering::Release);
    }

    /// A piece of its body has come; what nobody reads counts as read.
    pub fn add(&self, data: Bytes) {
        let length = data.len() as u32;
        let mut inbox = self.inbox();
        if inbox.left {
            drop(inbox);
            self.read.fetch_add(length, Ordering::Relaxed);
            return;
        }
        inbox.data.push_back(data);
        self.wake_reader(inbox);
    }

    /// The turn is over: what nobody has read leaves the buffer in which it came.
    pub fn keep(&self) {
        let mut inbox = self.inbox();
        let Inbox { data, kept, .. } = &mut *inbox;
        data.drain(..).for_each(|data| kept.extend_from_slice(&data));
    }

    /// Whether nobody reads any more.
    pub fn is_left(&self) -> bool {
        self.inbox().left
    }

    /// Its body has ended; the first end counts.
    pub fn end(&self, end: End, trailers: Option<HeaderMap>) {
        let mut inbox = self.inbox();
        if inbox.end.is_none() {
            (inbox.end, inbox.trailers) = (Some(end), trailers);
        }
        self.wake_reader(inbox);
    }

    /// Whether its sender has said that nothing more follows.
    pub fn has_ended(&self) -> bool {
        self.inbox().end == Some(End::InOrder)
    }

    /// What was read since it was last asked, in bytes.
    pub fn take_read(&self) -> u32 {
        // Most of the time nothing was: a look is cheaper than a swap.
        if self.read.load(Ordering::Relaxed) == 0 { 0 } else { self.read.swap(0, Ordering::Relaxed) }
    }

    /// The connection is at work for this line: when its call is the reader there is nobody to be woken.
    fn wake_reader(&self, mut inbox: MutexGuard<'_, Inbox>) {
        let Some(reader) = inbox.reader.take() else { return };
        drop(inbox);
        if self.is_woken_by(&reader) {
            self.runs_again();
        } else {
            reader.wake();
        }
    }

    /// Whether this is what wakes its own call.
    fn is_woken_by(&self, waker: &Waker) -> bool {
        std::ptr::eq(waker.data(), std::ptr::from_ref(self).cast())
    }
}

impl Wake for Line {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.connection.wake_by_ref();
        }
    }
}

/// Whether the sender of a request's body said that nothing more follows. Found among the extensions of each request of HTTP/2:
/// one that was cut, with its connection or by itself, is no less over.
#[derive(Debug, Clone)]
pub struct Ended(pub(super) Arc<Line>);

impl Ended {
    /// It has said so.
    pub fn in_order(&self) -> bool {
        self.0.has_ended()
    }
}

/// The body of a request.
#[derive(Debug)]
pub struct Incoming(pub Arc<Line>);

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let line = &self.0;
        let mut inbox = line.inbox();
        if let Some(data) = inbox.next() {
            drop(inbox);
            line.read.fetch_add(data.len() as u32, Ordering::Relaxed);
            // When its own call reads, the connection is at work and looks afterwards.
            if !line.is_woken_by(cx.waker()) {
                line.connection.wake_by_ref();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match inbox.end {
            Some(End::InOrder) => Poll::Ready(inbox.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Some(End::GivenUp) => Poll::Ready(Some(Err(Status::cancelled("the caller has given this call up")))),
            Some(End::Lost) => Poll::Ready(Some(Err(Status::unavailable("the connection of this call is lost")))),
            None => {
                if !inbox.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    inbox.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let inbox = self.0.inbox();
        inbox.end == Some(End::InOrder) && inbox.is_empty() && inbox.trailers.is_none()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox();
        inbox.left = true;
        let mut unread = 0;
        while let Some(data) = inbox.next() {
            unread += data.len();
        }
        inbox.reader = None;
        drop(inbox);
        if unread > 0 {
            self.0.read.fetch_add(unread as u32, Ordering::Relaxed);
            self.0.connection.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn what_is_not_read_in_its_turn_leaves_the_buffer_in_which_it_came() {
        let line = Line::new(Waker::noop().clone());
        let mut body = Incoming(Arc::clone(&line));
        let buffer = Bytes::from(vec![1; 30_000]);
        line.add(buffer.slice(..10));
        line.keep();
        line.add(buffer.slice(10..20));
        line.keep();
        line.add(buffer.slice(20..25));
        let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
        let (kept, new) = (next().await, next().await);
        assert_eq!((kept.len(), new.len(), line.take_read()), (20, 5, 25));
        assert!(!buffer.as_ptr_range().contains(&kept.as_ptr()) && buffer.as_ptr_range().contains(&new.as_ptr()));
        drop((kept, new));
        assert!(buffer.is_unique());
    }

    #[tokio::test]
    async fn a_line_is_free_when_both_ends_are() {
        let line = Line::new(Waker::noop().clone());
        let (weak, waker) = (Arc::downgrade(&line), Waker::from(Arc::clone(&line)));
        let mut body = Incoming(Arc::clone(&line));
        assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
        drop((line, waker));
        assert!(weak.upgrade().is_some());
        drop(body);
        assert!(weak.upgrade().is_none(), "its own waker kept it");
    }
}
