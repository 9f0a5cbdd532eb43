//! Whether a peer is still there. A peer that is silent is asked, and whatever it says is an answer. As many timers as there are
//! connections, each at an instant of its own, would wake the queen as often as the hives' frames do: they come due together,
//! and one that was put off before it came due wakes nobody.

use super::frame::kind;
use super::outbox::Outbox;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// A peer is asked for a sign of life when it has been silent for this long …
const PING: Duration = Duration::from_secs(2);
/// … and given this long to answer, so a half-open link is dead within five seconds.
const ANSWER: Duration = Duration::from_millis(2_500);
/// Both come due at multiples of this, up to as much late and never early.
const STEP: Duration = Duration::from_millis(100);

/// A peer has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent;

/// A peer's heart.
#[derive(Debug)]
pub struct Heart {
    /// Whose multiples count.
    began: Instant,
    due: Pin<Box<Sleep>>,
    asked: bool,
}

impl Heart {
    /// Of a peer that has just been heard, by the steps since `began`.
    pub fn new(began: Instant) -> Self {
        Self { began, due: Box::pin(sleep_until(round(began, Instant::now() + PING))), asked: false }
    }

    /// The peer has said something.
    pub fn beats(&mut self) {
        self.asked = false;
        self.due.as_mut().reset(round(self.began, Instant::now() + PING));
    }

    /// Asks when it is time to.
    ///
    /// # Errors
    /// When it was asked and has not answered.
    pub fn poll(&mut self, out: &mut Outbox, cx: &mut Context<'_>) -> Result<(), Silent> {
        while self.due.as_mut().poll(cx).is_ready() {
            if std::mem::replace(&mut self.asked, true) {
                return Err(Silent);
            }
            out.frame(kind::PING, 0, 0, b"are you?");
            self.due.as_mut().reset(round(self.began, Instant::now() + ANSWER));
        }
        Ok(())
    }
}

fn round(began: Instant, deadline: Instant) -> Instant {
    let steps = deadline.saturating_duration_since(began).as_nanos().div_ceil(STEP.as_nanos());
    began + STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_within_one_step_comes_due_together_and_never_early() {
        let began = Instant::now();
        let after = Duration::from_millis;
        for (asked, due) in [(0, 0), (1, 100), (99, 100), (100, 100), (101, 200), (2_000, 2_000), (2_001, 2_100)] {
            assert_eq!(round(began, began + after(asked)), began + after(due), "{asked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_asked_and_who_does_not_answer_is_gone() {
        let began = Instant::now();
        let (mut heart, mut out) = (Heart::new(began), Outbox::default());
        let asked = async |heart: &mut Heart, out: &mut Outbox| {
            poll_fn(|cx| match heart.poll(out, cx) {
                Err(silent) => Poll::Ready(Err(silent)),
                Ok(()) if out.is_empty() => Poll::Pending,
                Ok(()) => Poll::Ready(Ok(())),
            })
            .await
        };
        tokio::time::advance(Duration::from_millis(1_900)).await;
        heart.beats();
        assert_eq!(asked(&mut heart, &mut out).await, Ok(()));
        assert_eq!(began.elapsed(), Duration::from_millis(3_900));
        out = Outbox::default();
        heart.beats();
        assert_eq!(asked(&mut heart, &mut out).await, Ok(()), "what it said was an answer");
        assert_eq!(began.elapsed(), Duration::from_millis(5_900));
        out = Outbox::default();
        assert_eq!(asked(&mut heart, &mut out).await, Err(Silent));
        assert_eq!(began.elapsed(), Duration::from_millis(8_400));
    }
}
