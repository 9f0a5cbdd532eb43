//! What is remembered of one worker from round to round, and the rates that come of two looks.

use super::super::collect::{Counters, Incarnation, Pressure};
use super::super::gpu_share::Share;
use std::time::{Duration, Instant, SystemTime};

/// One worker at its last good sample.
#[derive(Debug)]
pub struct Past {
    incarnation: Incarnation,
    /// When it was first looked at.
    pub first_at: Instant,
    at: Instant,
    cpu_usec: Option<u64>,
    throttled_usec: Option<u64>,
    io_read: Option<u64>,
    io_write: Option<u64>,
    pressure: Option<Pressure>,
    waiting: Waiting,
    /// Its processes.
    pub pids: Vec<i32>,
    /// GPUs it has been seen on; kept when it is made anew, because it will use them again.
    pub gpus_seen: Vec<String>,
    /// The driver once said that it uses none.
    pub used_none: bool,
    /// Since when it has been idle without a break.
    pub idle: Option<Idle>,
}

/// A step of the wall clock that is larger than this is not slewing.
const STEP: Duration = Duration::from_secs(1);

/// A stretch of idleness. How long it has lasted is the monotonic clock's; it is told as an instant of the wall clock, which
/// moves when that was set, and only then.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    from: Instant,
    told: SystemTime,
}

impl Idle {
    /// One that begins now.
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        Self { from: now, told: wall }
    }

    /// The same one, later.
    pub fn at(self, now: Instant, wall: SystemTime) -> Self {
        let told = wall.checked_sub(now.saturating_duration_since(self.from)).unwrap_or(wall);
        let step = told.duration_since(self.told).unwrap_or_else(|before| before.duration());
        if step > STEP { Self { told, ..self } } else { self }
    }

    /// When it began, by the wall clock of now.
    pub fn told(self) -> SystemTime {
        self.told
    }
}

/// The numbers that need two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Percent of one core.
    pub cpu_pct: Option<f64>,
    /// Percent of one core, waiting for its limit.
    pub throttled_pct: Option<f64>,
    /// Bytes per second.
    pub io_read: Option<f64>,
    /// Bytes per second.
    pub io_write: Option<f64>,
    /// Over the time between the last two readings of it.
    pub waiting: Waiting,
}

/// Percent of the time in which some task waited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waiting {
    /// For a CPU.
    pub cpu_pct: Option<f64>,
    /// For memory.
    pub memory_pct: Option<f64>,
    /// For IO.
    pub io_pct: Option<f64>,
}

impl Past {
    /// One that nothing is known of but that it is looked at now.
    pub fn new(counters: &Counters) -> Self {
        Self {
            incarnation: counters.incarnation,
            first_at: counters.at,
            at: counters.at,
            cpu_usec: None,
            throttled_usec: None,
            io_read: None,
            io_write: None,
            pressure: None,
            waiting: Waiting::default(),
            pids: Vec::new(),
            gpus_seen: Vec::new(),
            used_none: false,
            idle: None,
        }
    }

    /// Takes over the totals and tells what they did since the look before. Another incarnation starts over.
    pub fn advance(&mut self, counters: &Counters, pids: Option<&[i32]>) -> Rates {
        if self.incarnation != counters.incarnation {
            let (gpus_seen, pids) = (std::mem::take(&mut self.gpus_seen), std::mem::take(&mut self.pids));
            *self = Self { gpus_seen, pids, ..Self::new(counters) };
        }
        let seconds = counters.at.saturating_duration_since(self.at).as_secs_f64();
        let (read, write) = counters.io.map(|io| (io.read, io.write)).unzip();
        self.wait(counters.pressure);
        let rates = Rates {
            cpu_pct: percent(self.cpu_usec, counters.cpu_usec, seconds),
            throttled_pct: percent(self.throttled_usec, counters.throttled_usec, seconds),
            io_read: per_second(self.io_read, read, seconds),
            io_write: per_second(self.io_write, write, seconds),
            waiting: self.waiting,
        };
        self.at = counters.at;
        (self.cpu_usec, self.throttled_usec) = (counters.cpu_usec, counters.throttled_usec);
        (self.io_read, self.io_write) = (read, write);
        self.pids.clear();
        self.pids.extend_from_slice(pids.unwrap_or_default());
        rates
    }

    /// Which GPUs it has been seen on.
    pub fn remember(&mut self, share: &Share, gpus: &[proto::GpuUse]) {
        self.used_none = share.uses_none || (self.used_none && !share.concerned);
        for gpu in gpus {
            let uses = gpu.vram_bytes.is_some_and(|bytes| bytes > 0) || gpu.util_pct.is_some_and(|util| util > 0.0);
            if uses && !self.gpus_seen.contains(&gpu.uuid) {
                self.gpus_seen.push(gpu.uuid.clone());
            }
        }
    }

    /// Pressure is read less often than the rest: what the last two readings gave stands until the next one.
    fn wait(&mut self, now: Option<Pressure>) {
        let Some(now) = now else {
            (self.pressure, self.waiting) = (None, Waiting::default());
            return;
        };
        if let Some(before) = self.pressure.filter(|before| before.at != now.at) {
            let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
            self.waiting = Waiting {
                cpu_pct: share_of(before.cpu_usec, now.cpu_usec, seconds),
                memory_pct: share_of(before.memory_usec, now.memory_usec, seconds),
                io_pct: share_of(before.io_usec, now.io_usec, seconds),
            };
        }
        self.pressure = Some(now);
    }
}

/// The rate between two totals; absent when one of them is, when no time has passed, or when the total went back.
fn per_second(before: Option<u64>, now: Option<u64>, seconds: f64) -> Option<f64> {
    let rate = now?.checked_sub(before?)? as f64 / seconds;
    rate.is_finite().then_some(rate)
}

/// Of totals in microseconds.
fn percent(before: Option<u64>, now: Option<u64>, seconds: f64) -> Option<f64> {
    per_second(before, now, seconds).map(|usec| usec / 1e6 * 100.0)
}

/// As above, of something that cannot take longer than the time itself: the kernel's clock and ours differ a little.
fn share_of(before: Option<u64>, now: Option<u64>, seconds: f64) -> Option<f64> {
    percent(before, now, seconds).map(|pct| pct.min(100.0))
}
