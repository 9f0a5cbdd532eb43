//! A clock for what need not be punctual: asking connections for a sign of life. As many timers as there are connections,
//! each at an instant of its own, would wake the queen as often as the hives' frames do. Here they come due together.

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// Timers come due at multiples of this, up to as much late and never early.
const STEP: Duration = Duration::from_millis(100);

/// The clock.
#[derive(Debug, Clone)]
pub struct Coarse {
    started: Instant,
    fine: TokioTimer,
}

impl Coarse {
    /// Whose multiples count from `started`.
    pub fn new(started: Instant) -> Self {
        Self { started, fine: TokioTimer::new() }
    }

    fn round(&self, deadline: Instant) -> Instant {
        let steps = deadline.saturating_duration_since(self.started).as_nanos().div_ceil(STEP.as_nanos());
        self.started + STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
    }
}

impl Timer for Coarse {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.fine.sleep_until(self.round(deadline))
    }

    fn now(&self) -> Instant {
        self.fine.now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        self.fine.reset(sleep, self.round(deadline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_within_one_step_comes_due_together_and_never_early() {
        let clock = Coarse::new(TokioTimer::new().now());
        let begun = clock.now();
        let after = |ms| Duration::from_millis(ms);
        for (asked, due) in [(0, 0), (1, 100), (99, 100), (100, 100), (101, 200), (2_000, 2_000), (2_001, 2_100)] {
            assert_eq!(clock.round(begun + after(asked)), begun + after(due), "{asked}");
        }
        clock.sleep(after(150)).await;
        assert_eq!(clock.now() - begun, after(200));
        let mut again = clock.sleep(after(5_000));
        clock.reset(&mut again, begun + after(201));
        again.await;
        assert_eq!(clock.now() - begun, after(300));
    }
}
