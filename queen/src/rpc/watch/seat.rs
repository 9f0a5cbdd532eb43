//! Where one watcher sits between the index, which wakes it, and the body of its call, which reads it. Whoever does not read is
//! cut from here, although its client may never hear of that.

use super::watcher::{Step, Watcher};
use crate::bound::Place;
use crate::fleet::feed::{Follower, Message, Why};
use atomic_waker::AtomicWaker;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tonic::Status;

/// A watcher that was woken and has not been read for so many seconds is cut.
pub(super) const BLOCKED: u32 = 30;
/// Beside the reasons of [`Why`]: more is ready than has been read.
const OWED: u8 = 8;

/// One seat.
#[derive(Debug)]
pub struct Seat {
    /// Why it was woken since it was last read.
    rung: AtomicU8,
    waker: AtomicWaker,
    /// Seconds since it was woken and not read.
    unread: AtomicU32,
    /// Nobody once it has ended.
    seated: Mutex<Option<Seated>>,
}

/// A watcher, and its place among all there may be.
#[derive(Debug)]
struct Seated {
    watcher: Watcher,
    _place: Place,
}

impl Seat {
    /// An empty one. It is owed something from the beginning: a client that never reads is found out by that.
    pub fn new() -> Self {
        let (waker, seated) = (AtomicWaker::new(), Mutex::default());
        Self { rung: AtomicU8::new(OWED), waker, unread: AtomicU32::new(0), seated }
    }

    fn seated(&self) -> MutexGuard<'_, Option<Seated>> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a watcher.
    pub fn sit(&self, watcher: Watcher, place: Place) {
        *self.seated() = Some(Seated { watcher, _place: place });
    }

    /// The next message of its watcher; how the watch ended; `None` where the watcher is gone.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let mut seated = self.seated();
        let Some(Seated { watcher, .. }) = &mut *seated else { return Poll::Ready(None) };
        self.waker.register(cx.waker());
        let rung = self.rung.swap(0, Ordering::AcqRel);
        self.unread.store(0, Ordering::Relaxed);
        watcher.hear(rung & Why::Changed as u8 != 0, rung & Why::Bookmark as u8 != 0);
        match watcher.step() {
            Step::Tell(message) => {
                self.rung.fetch_or(OWED, Ordering::AcqRel);
                Poll::Ready(Some(Ok(message)))
            }
            Step::Wait => Poll::Pending,
            // A filter that matches little reads on without telling; others shall have their turn.
            Step::Turn => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::End(status) => {
                *seated = None;
                Poll::Ready(Some(Err(status)))
            }
        }
    }

    /// Ends the watch.
    pub fn leave(&self) {
        let left = self.seated().take();
        drop(left);
    }
}

impl Follower for Seat {
    fn wake(&self, why: Why) {
        // Who was woken for the same reason and has not been read since needs no second call.
        if self.rung.fetch_or(why as u8, Ordering::AcqRel) & (why as u8) == 0 {
            self.waker.wake();
        }
    }

    fn is_deaf(&self) -> bool {
        self.rung.load(Ordering::Relaxed) != 0 && self.unread.fetch_add(1, Ordering::Relaxed) + 1 >= BLOCKED
    }

    fn cut(&self) {
        self.leave();
        self.waker.wake();
    }
}
