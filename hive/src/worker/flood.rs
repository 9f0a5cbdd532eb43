//! Keeps logs from filling the disk: each is looked at as often as it grows, and begun anew when it is too large.

use super::journal::News;
use super::life::Inner;
use super::logs;
use common::WorkerId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// How often a log is looked at that grows slowly.
const LOOK: Duration = Duration::from_secs(1);
/// None is looked at more often.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// A log is looked at before it has grown by more than this, in bytes, as long as it goes on as it did.
const ROOM: u64 = 16 * 1024 * 1024;
/// One that grows faster is flooded, in bytes per second: of what is cut off, less is kept.
const FLOOD: u64 = 8 * 1024 * 1024;
/// So much is kept of the end of a flooded log, in bytes.
const FLOOD_KEEP: u64 = 4 * 1024 * 1024;
/// A flood that pauses for this long is over; the next one is told anew.
const EPISODE: Duration = Duration::from_secs(60);
/// How often the logs of ended workers are counted.
const SWEEP: Duration = Duration::from_secs(60);

/// What is remembered of one log.
#[derive(Debug, Clone, Copy)]
struct Growth {
    length: u64,
    looked: Instant,
    next: Instant,
    /// When it was last cut in a flood.
    cut: Option<Instant>,
}

/// Looks after the logs of all workers for as long as the hive runs.
pub async fn watch(inner: Arc<Inner>) {
    let mut known: BTreeMap<WorkerId, Growth> = BTreeMap::new();
    let mut swept = Instant::now();
    loop {
        let next = known.values().map(|growth| growth.next).min();
        let until = next.unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK);
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = tokio::time::sleep_until(until.into()) => {}
        }
        let looking = inner.clone();
        let sweeps = swept.elapsed() >= SWEEP;
        if sweeps {
            swept = Instant::now();
        }
        // A large copy takes its time.
        let looked = tokio::task::spawn_blocking(move || {
            look(&looking, &mut known);
            if sweeps {
                logs::sweep(&looking.config.state_dir, logs::ENDED_KEPT, |id| looking.table().live.contains_key(id));
            }
            known
        });
        known = looked.await.unwrap_or_default();
    }
}

fn look(inner: &Inner, known: &mut BTreeMap<WorkerId, Growth>) {
    let names: Vec<WorkerId> = {
        let table = inner.table();
        // One that was never started by a hive has no log.
        table.live.iter().filter(|(_, entry)| entry.record.is_some()).map(|(id, _)| id.clone()).collect()
    };
    known.retain(|id, _| names.binary_search(id).is_ok());
    for id in names {
        let now = Instant::now();
        if known.get(&id).is_some_and(|growth| growth.next > now) {
            continue;
        }
        let path = logs::path(&inner.config.state_dir, &id);
        let length = std::fs::metadata(&path).map_or(0, |found| found.len());
        let before = known.get(&id).copied();
        let rate = before.map_or(0, |before| rate(before.length, length, now - before.looked));
        let mut growth = Growth { length, looked: now, next: now + interval(rate), cut: before.and_then(|b| b.cut) };
        if length > logs::KEEP_MAX {
            cut(inner, &id, &path, rate, &mut growth);
        }
        known.insert(id, growth);
    }
}

/// Begins a log anew; tells it once per flood.
fn cut(inner: &Inner, id: &WorkerId, path: &PathBuf, rate: u64, growth: &mut Growth) {
    let flooded = rate > FLOOD;
    match logs::rotate(path, if flooded { FLOOD_KEEP } else { logs::KEEP_MAX }) {
        Ok(Some(lost)) if flooded => {
            let told = growth.cut.is_some_and(|last| growth.looked - last < EPISODE);
            growth.cut = Some(growth.looked);
            if !told {
                let message = format!(
                    "its log grows by {} MiB a second: it is cut each time that it is larger than {} MiB, and only its last {} MiB are kept ({} MiB were thrown away)",
                    rate >> 20,
                    logs::KEEP_MAX >> 20,
                    FLOOD_KEEP >> 20,
                    lost >> 20
                );
                warn!(worker = %id, "{message}");
                inner.journal.add(id, News { kind: proto::LifeEventKind::LogCut, message, ..News::default() });
            }
        }
        Ok(_) => {}
        Err(error) => warn!(worker = %id, %error, "log not cut"),
    }
    growth.length = std::fs::metadata(path).map_or(0, |found| found.len());
    growth.looked = Instant::now();
    growth.next = growth.looked + interval(rate);
}

/// Bytes per second. A log that is shorter than before began anew meanwhile.
fn rate(before: u64, now: u64, took: Duration) -> u64 {
    let grown = now.checked_sub(before).unwrap_or(now);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    grown.saturating_mul(1_000_000) / micros
}

/// Until the next look at a log that grows so fast.
fn interval(rate: u64) -> Duration {
    Duration::from_millis(ROOM.saturating_mul(1_000) / rate.max(1)).clamp(LOOK_MIN, LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_log_is_looked_at_more_often() {
        assert_eq!(interval(0), LOOK);
        assert_eq!(interval(1024), LOOK);
        assert_eq!(interval(100 << 20), Duration::from_millis(160));
        assert_eq!(interval(u64::MAX), LOOK_MIN);
        assert_eq!(rate(0, 100 << 20, Duration::from_secs(1)), 100 << 20);
        assert_eq!(rate(1 << 20, 10, Duration::from_secs(1)), 10);
        assert_eq!(rate(0, 5, Duration::ZERO), 5_000_000);
    }
}
