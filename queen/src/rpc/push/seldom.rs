//! A future that is polled only when it was woken itself. What shares a task with a stream is else polled with each of its
//! messages, for years, to say each time that it has nothing to say.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Such a future.
#[derive(Debug)]
pub struct Seldom<F> {
    future: Pin<Box<F>>,
    bell: Option<Arc<Bell>>,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl<F> Seldom<F> {
    /// Of one that is woken seldom.
    pub fn of(future: F) -> Self {
        Self { future: Box::pin(future), bell: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let bell = match self.bell.take().filter(|bell| bell.task.will_wake(cx.waker())) {
            Some(bell) if !bell.rung.swap(false, Ordering::AcqRel) => {
                self.bell = Some(bell);
                return Poll::Pending;
            }
            Some(bell) => bell,
            None => Arc::new(Bell { rung: AtomicBool::new(false), task: cx.waker().clone() }),
        };
        self.bell = Some(Arc::clone(&bell));
        self.future.as_mut().poll(&mut Context::from_waker(&Waker::from(bell)))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use tokio_util::sync::CancellationToken;

    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_polled_when_it_was_woken_or_is_asked_by_somebody_else() {
        let (token, polls) = (CancellationToken::new(), AtomicUsize::new(0));
        let mut waiting = Box::pin(token.cancelled());
        let counted = poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            waiting.as_mut().poll(cx)
        });
        let mut seldom = Seldom::of(counted);
        let tasks = [(); 2].map(|()| Arc::new(Counting(AtomicUsize::new(0))));
        let mut poll = |task: usize| {
            let waker = Waker::from(tasks[task].clone());
            Pin::new(&mut seldom).poll(&mut Context::from_waker(&waker)).is_ready()
        };
        let polled = || polls.load(Ordering::Relaxed);
        let woken = || tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed));
        assert!(!poll(0) && !poll(0) && !poll(0));
        assert_eq!((polled(), woken()), (1, [0, 0]));
        assert!(!poll(1) && !poll(1));
        assert_eq!((polled(), woken()), (2, [0, 0]));
        token.cancel();
        assert_eq!((polled(), woken()), (2, [0, 1]), "who asked last is woken");
        assert!(poll(1));
        assert_eq!(polled(), 3);
    }
}
