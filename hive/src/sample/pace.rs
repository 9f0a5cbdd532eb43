//! When the sampling thread wakes: at absolute deadlines, early for a changed roster, and to stop. Ticks that were
//! missed are skipped, never bunched.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why the thread woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A deadline has come.
    Tick,
    /// The roster has changed.
    Roster,
    /// The end.
    Stop,
}

/// Wakes one thread.
#[derive(Debug)]
pub struct Pacer {
    period: Duration,
    signals: Mutex<Signals>,
    wake: Condvar,
}

#[derive(Debug)]
struct Signals {
    due: Instant,
    roster: bool,
    stop: bool,
}

impl Pacer {
    /// The first tick is due at `first`.
    pub fn new(first: Instant, period: Duration) -> Self {
        let signals = Signals { due: first, roster: false, stop: false };
        Self { period, signals: Mutex::new(signals), wake: Condvar::new() }
    }

    /// Wakes the thread early.
    pub fn roster_changed(&self) {
        self.signals().roster = true;
        self.wake.notify_one();
    }

    /// Wakes the thread for the last time.
    pub fn stop(&self) {
        self.signals().stop = true;
        self.wake.notify_one();
    }

    /// Waits for the next thing to do. A tick that is due goes before a roster, and includes it.
    pub fn wait(&self) -> Wake {
        let mut signals = self.signals();
        loop {
            let now = Instant::now();
            if signals.stop {
                return Wake::Stop;
            }
            if now >= signals.due {
                signals.due = next_due(signals.due, self.period, now);
                signals.roster = false;
                return Wake::Tick;
            }
            if std::mem::take(&mut signals.roster) {
                return Wake::Roster;
            }
            let rest = signals.due.saturating_duration_since(now);
            signals = self.wake.wait_timeout(signals, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn signals(&self) -> MutexGuard<'_, Signals> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first deadline of the row after `now`.
fn next_due(due: Instant, period: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due);
    let missed = late.as_nanos() / period.as_nanos().max(1);
    let skip = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
    due + period * skip
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    #[test]
    fn missed_ticks_are_skipped_and_the_row_is_kept() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(next_due(start, PERIOD, at(0)), at(1_000));
        assert_eq!(next_due(start, PERIOD, at(999)), at(1_000));
        assert_eq!(next_due(start, PERIOD, at(1_000)), at(2_000));
        assert_eq!(next_due(start, PERIOD, at(5_700)), at(6_000));
    }

    #[test]
    fn a_changed_roster_wakes_early_and_a_stop_at_once() {
        let pacer = Pacer::new(Instant::now(), Duration::from_secs(3600));
        assert_eq!(pacer.wait(), Wake::Tick);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (pacer.wait(), pacer.wait()));
            pacer.roster_changed();
            // The second wait has nothing to return before this.
            while pacer.signals().roster {
                std::thread::yield_now();
            }
            pacer.stop();
            assert_eq!(waiting.join().unwrap(), (Wake::Roster, Wake::Stop));
        });
    }
}
