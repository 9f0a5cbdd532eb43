//! Keeps time for the watches: wakes those that are told at intervals, together, and cuts those that nobody reads.

use crate::fleet::feed::{INTERVALS, Why};
use crate::rpc::Shared;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

/// The shortest interval; the others are multiples of it.
const BEAT: Duration = INTERVALS[0];
/// So many are a second, in which readers are looked at once.
const SECOND: u64 = (Duration::from_secs(1).as_millis() / BEAT.as_millis()) as u64;

/// Until the queen stops; then wakes every watch, so that it hears of that.
pub async fn keep(shared: Shared) {
    let (feed, began) = (shared.fleet.feed(), Instant::now());
    let mut beat = 0;
    loop {
        // With nobody to wake at intervals once a second is enough.
        let next = if feed.needs_beats() { beat + 1 } else { (beat / SECOND + 1) * SECOND };
        tokio::select! {
            () = shared.stopping.cancelled() => break,
            () = feed.arrived() => continue,
            () = sleep_until(began + BEAT * u32::try_from(next).unwrap_or(u32::MAX)) => {}
        }
        // What was slept through is not made up for.
        let now = beats(began.elapsed());
        for (index, interval) in INTERVALS.into_iter().enumerate() {
            let every = beats(interval);
            if now / every != beat / every {
                feed.flush(index);
            }
        }
        if now / SECOND != beat / SECOND {
            cut(&shared);
        }
        beat = now;
    }
    feed.wake_all(Why::Stopping);
}

fn beats(time: Duration) -> u64 {
    (time.as_nanos() / BEAT.as_nanos()) as u64
}

fn cut(shared: &Shared) {
    let deaf = shared.seats.cut_deaf();
    if deaf > 0 {
        let cut = shared.cut.fetch_add(deaf as u64, Ordering::Relaxed) + deaf as u64;
        warn!(cut, "watchers cut: they read nothing for {} s", super::seat::BLOCKED);
    }
}
