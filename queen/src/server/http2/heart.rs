//! Whether a peer is still there. A peer that is silent is asked, and whatever it says is an answer. As many timers as there are
//! connections, each at an instant of its own, would wake the queen as often as the hives' frames do: they come due together,
//! and one that was put off before it came due wakes nobody.

use super::frame::kind;
use super::outbox::Outbox;
use std::time::Duration;
use tokio::time::Instant;

/// A peer is asked for a sign of life when it has been silent for this long …
const PING: Duration = Duration::from_secs(2);
/// … or so much earlier when something is said to it anyway: what is asked along costs no call of the kernel …
const ALONG: Duration = Duration::from_millis(500);
/// … and given this long to answer, so a half-open link is dead within five seconds.
const ANSWER: Duration = Duration::from_millis(2_500);
/// Both come due at multiples of this, up to as much late and never early.
const STEP: Duration = Duration::from_millis(100);
/// A look that comes later than this says that the queen stood still: an answer may lie unread.
const LATE: Duration = Duration::from_millis(500);

/// A peer has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent;

/// A peer's heart.
#[derive(Debug)]
pub struct Heart {
    due: Instant,
    asked: bool,
}

impl Heart {
    /// Of a peer that has just been heard.
    pub fn new(now: Instant) -> Self {
        Self { due: now + PING, asked: false }
    }

    /// The peer has said something.
    pub fn beats(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// When it is to be looked after.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Asks when it is time to. To be called when what else there is to be said is in `out`.
    ///
    /// # Errors
    /// When it was asked and has not answered, and she looked when it was time to.
    pub fn look(&mut self, now: Instant, out: &mut Outbox) -> Result<(), Silent> {
        let asks_along = !self.asked && !out.is_empty() && now + ALONG >= self.due;
        if now < self.due && !asks_along {
            return Ok(());
        }
        let late = now > self.due + LATE;
        // Whoever is asked early has all the longer.
        self.due = self.due.max(now) + ANSWER;
        if !std::mem::replace(&mut self.asked, true) {
            out.frame(kind::PING, 0, 0, b"are you?");
        } else if !late {
            return Err(Silent);
        }
        Ok(())
    }
}

/// The step at which what is due at an instant comes due.
pub fn round(began: Instant, deadline: Instant) -> Instant {
    let steps = deadline.saturating_duration_since(began).as_nanos().div_ceil(STEP.as_nanos());
    began + STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_within_one_step_comes_due_together_and_never_early() {
        let began = Instant::now();
        let after = Duration::from_millis;
        for (asked, due) in [(0, 0), (1, 100), (99, 100), (100, 100), (101, 200), (2_000, 2_000), (2_001, 2_100)] {
            assert_eq!(round(began, began + after(asked)), began + after(due), "{asked}");
        }
    }

    #[test]
    fn who_is_silent_is_asked_and_who_does_not_answer_is_gone() {
        let (began, after) = (Instant::now(), Duration::from_millis);
        let (mut heart, mut out) = (Heart::new(began), Outbox::default());
        heart.beats(began + after(1_900));
        assert_eq!(heart.due(), began + after(3_900));
        assert_eq!((heart.look(began + after(3_899), &mut out), out.is_empty()), (Ok(()), true));
        assert_eq!((heart.look(began + after(3_900), &mut out), out.is_empty()), (Ok(()), false));
        heart.beats(began + after(3_901));
        out = Outbox::default();
        assert_eq!(heart.look(began + after(5_901), &mut out), Ok(()), "what it said was an answer");
        assert_eq!((heart.due(), out.is_empty()), (began + after(8_401), false));
        assert_eq!(heart.look(began + after(8_400), &mut out), Ok(()));
        assert_eq!(heart.look(began + after(8_401), &mut out), Err(Silent));
    }

    #[test]
    fn whoever_is_not_looked_at_in_time_has_as_long_to_answer_again() {
        let (began, after) = (Instant::now(), Duration::from_millis);
        let (mut heart, mut out) = (Heart::new(began), Outbox::default());
        assert_eq!(heart.look(began + after(2_000), &mut out), Ok(()));
        let asked = out.len();
        assert_eq!(heart.look(began + after(60_000), &mut out), Ok(()), "she stood still");
        assert_eq!((out.len(), heart.due()), (asked, began + after(62_500)));
        assert_eq!(heart.look(began + after(63_000), &mut out), Err(Silent));
    }

    #[test]
    fn who_is_told_something_is_asked_along_and_has_no_less_time_to_answer() {
        let (began, after) = (Instant::now(), Duration::from_millis);
        let (mut heart, mut out) = (Heart::new(began), Outbox::default());
        out.data(1, bytes::Bytes::from_static(b"news"), false);
        let mut asked = |heart: &mut Heart, then| {
            let before = out.len();
            let silent = heart.look(began + after(then), &mut out).is_err();
            (out.len() > before, silent)
        };
        assert_eq!(asked(&mut heart, 1_499), (false, false));
        assert_eq!((asked(&mut heart, 1_500), heart.due()), ((true, false), began + after(4_500)));
        assert_eq!(asked(&mut heart, 4_499), (false, false), "not twice");
        assert_eq!(asked(&mut heart, 4_500), (false, true));
    }
}
