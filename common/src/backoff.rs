//! When to try again. The first wait and the later ones are short and jittered, so that a queen that comes back has
//! its fleet within two seconds and does not meet all of it in one millisecond.

use std::time::Duration;

/// The first wait, before jitter.
const FIRST: Duration = Duration::from_millis(1_000);
/// Every later wait, before jitter. With jitter it stays below [`CAP`].
const LATER: Duration = Duration::from_millis(1_400);
/// No wait of our own choosing is longer than this.
pub const CAP: Duration = Duration::from_secs(2);
/// Waits are spread over ± this part of themselves.
const JITTER: f64 = 0.2;

/// The waits between tries to reach one queen.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait. `random` is uniform in 0..1; `window` is what the queen asked for, if it did.
    pub fn next(&mut self, random: f64, window: Option<(Duration, Duration)>) -> Duration {
        self.tries = self.tries.saturating_add(1);
        if let Some((min, max)) = window.filter(|(min, max)| max >= min) {
            return min + (max - min).mul_f64(random);
        }
        let base = if self.tries == 1 { FIRST } else { LATER };
        base.mul_f64(1.0 - JITTER + 2.0 * JITTER * random).min(CAP)
    }

    /// Call after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_between_0_8_and_2_seconds() {
        let mut backoff = Backoff::default();
        for step in 0..100 {
            let wait = backoff.next(f64::from(step % 11) / 10.0, None);
            assert!(wait >= Duration::from_millis(800) && wait <= CAP, "{wait:?}");
        }
    }

    #[test]
    fn a_window_named_by_the_queen_is_kept() {
        let window = Some((Duration::from_secs(30), Duration::from_secs(60)));
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(0.0, window), Duration::from_secs(30));
        assert_eq!(backoff.next(1.0, window), Duration::from_secs(60));
    }
}
