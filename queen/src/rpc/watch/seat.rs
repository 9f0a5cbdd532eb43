//! Where one watcher sits between the index, which wakes it, and the body of its call, which reads it. Whoever does not read is
//! cut from here, although its client may never hear of that.

use super::watcher::{Step, Watcher};
use crate::bound::Place;
use crate::fleet::feed::{Bell, Message};
use crate::server::Cut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use tonic::Status;

/// A watcher that has something to tell and has not been read for so many seconds is cut.
pub(super) const BLOCKED: u32 = 30;

/// One seat.
#[derive(Debug)]
pub struct Seat {
    /// What wakes its watcher.
    pub bell: Arc<Bell>,
    /// More may be ready than has been read.
    owes: AtomicBool,
    /// Seconds since it had something to tell and was not read.
    unread: AtomicU32,
    /// Nobody once it has ended.
    seated: Mutex<Option<Seated>>,
    /// What its client was told and has not taken is kept no longer.
    pub cut: Cut,
}

/// A watcher, and its place among all there may be.
#[derive(Debug)]
struct Seated {
    watcher: Watcher,
    _place: Place,
}

impl Seat {
    /// An empty one. It owes something from the beginning: a client that never reads is found out by that.
    pub fn new() -> Self {
        let (bell, seated, cut) = (Arc::default(), Mutex::default(), Cut::default());
        Self { bell, owes: AtomicBool::new(true), unread: AtomicU32::new(0), seated, cut }
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
        let rung = self.bell.answer(cx.waker());
        self.unread.store(0, Ordering::Relaxed);
        watcher.hear(rung);
        let step = watcher.step();
        self.owes.store(matches!(step, Step::Tell(_)), Ordering::Relaxed);
        match step {
            Step::Tell(message) => Poll::Ready(Some(Ok(message))),
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

    /// Called once a second; whether it has not been read for too long.
    fn is_deaf(&self) -> bool {
        let waits = self.owes.load(Ordering::Relaxed) || self.bell.is_rung();
        waits && self.unread.fetch_add(1, Ordering::Relaxed) + 1 >= BLOCKED
    }
}

/// All seats.
#[derive(Debug, Default)]
pub struct Seats(Mutex<Vec<Weak<Seat>>>);

impl Seats {
    /// One more.
    pub fn add(&self, seat: &Arc<Seat>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(seat));
    }

    /// A second has passed: cuts those who have not been read for too long; answers how many there were.
    pub fn cut_deaf(&self) -> usize {
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        let deaf: Vec<_> = seats.iter().filter_map(Weak::upgrade).filter(|seat| seat.is_deaf()).collect();
        // Each is cut once.
        seats.retain(|seat| !deaf.iter().any(|deaf| std::ptr::eq(seat.as_ptr(), Arc::as_ptr(deaf))));
        drop(seats);
        for seat in &deaf {
            seat.leave();
            seat.cut.now();
        }
        deaf.len()
    }
}
