//! Blocks of 64 rows, all of one hive: a word for each property, and when the hive was heard. Kept in segments, column
//! by column, so that a question reads only the columns that it needs, from end to end.

use crate::fleet::measured::Measured;
use proto::{GpuSampleState, WorkerState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Rows of a block: the bits of a word.
pub const ROWS: u32 = u64::BITS;
/// Blocks of a segment: memory for a thousand hives of up to 64 workers is taken at a time, 560 KiB.
pub const SEGMENT: usize = 1_024;

/// What is told of one worker, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// It runs and is not known to be unready.
    pub ready: bool,
    /// It is known to be idle.
    pub idle: bool,
    /// Its GPU use is a measured zero.
    pub unused: bool,
    /// A reservation holds it.
    pub held: bool,
}

impl Flags {
    /// Of a worker in this state with these numbers.
    pub fn of(state: i32, stats: Option<&Measured>, held: bool) -> Self {
        let unready = stats.is_some_and(Measured::is_unready);
        Self {
            ready: state == i32::from(WorkerState::Running) && !unready,
            idle: stats.is_some_and(is_idle),
            unused: stats.is_some_and(is_unused),
            held,
        }
    }
}

/// Whether a worker is known to be idle. Unknown is never idle.
pub fn is_idle(stats: &Measured) -> bool {
    stats.is_idle()
}

/// A use of exactly zero that the driver has told lately. A plain client that does not say how its number came about is
/// believed; a number that a hive itself calls stale is not: a hung driver must not make a busy worker look free.
pub fn is_unused(stats: &Measured) -> bool {
    let told = || matches!(stats.gpu_sample_state(), GpuSampleState::Ok | GpuSampleState::Unspecified);
    stats.is_gpu_unused() && told()
}

/// The words of one block. Only rows that are ready count as idle or unused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Words {
    pub ready: u64,
    pub idle: u64,
    pub unused: u64,
    pub held: u64,
}

impl Words {
    pub fn set(&mut self, bit: u64, flags: Flags) {
        let put = |word: &mut u64, on: bool| *word = if on { *word | bit } else { *word & !bit };
        put(&mut self.ready, flags.ready);
        put(&mut self.idle, flags.ready && flags.idle);
        put(&mut self.unused, flags.ready && flags.unused);
        put(&mut self.held, flags.held);
    }

    pub fn clear(&mut self, bit: u64) {
        self.set(bit, Flags { ready: false, idle: false, unused: false, held: false });
    }
}

/// When a hive was last heard, in nanoseconds since the queen started, and whether its stream is broken: one number, in
/// the order of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard(u64);

impl Heard {
    pub fn new(started: Instant, at: Instant, broken: bool) -> Self {
        let nanos = u64::try_from(at.saturating_duration_since(started).as_nanos()).unwrap_or(u64::MAX >> 1);
        Self(nanos << 1 | u64::from(broken))
    }

    pub fn at(self, started: Instant) -> Instant {
        started + Duration::from_nanos(self.0 >> 1)
    }

    pub fn broken(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Since when a worker has been idle: a number in the order of time, the longest idle first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleFrom(u64);

impl IdleFrom {
    /// Before every other.
    pub const FIRST: Self = Self(0);
    /// It is not known to be idle; after every other.
    pub const NEVER: Self = Self(u64::MAX);
    /// Half of the numbers that a moment can have: those below it are before the queen started.
    const STARTED: u64 = 1 << 63;

    /// In nanoseconds from when the queen started.
    pub fn of(started: Instant, at: Instant) -> Self {
        let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let number = match at.checked_duration_since(started) {
            Some(after) => Self::STARTED.saturating_add(nanos(after)).min(u64::MAX - 1),
            None => Self::STARTED.saturating_sub(nanos(started.saturating_duration_since(at))),
        };
        Self(number)
    }

    /// The number itself.
    pub fn number(self) -> u64 {
        self.0
    }

    /// What a cursor has kept.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The next later one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A thousand blocks, column by column.
#[derive(Debug)]
pub struct Segment {
    ready: [AtomicU64; SEGMENT],
    idle: [AtomicU64; SEGMENT],
    unused: [AtomicU64; SEGMENT],
    held: [AtomicU64; SEGMENT],
    heard: [AtomicU64; SEGMENT],
    /// One more than the most bytes that are free on one GPU of the hive; 0: none is known.
    room: [AtomicU64; SEGMENT],
    /// [`IdleFrom`] of each row that has the bit; of others what they once had.
    idle_from: Box<[AtomicU64]>,
}

impl Segment {
    pub fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        let idle_from = (0..SEGMENT * ROWS as usize).map(|_| AtomicU64::new(0)).collect();
        Self { ready: zeros(), idle: zeros(), unused: zeros(), held: zeros(), heard: zeros(), room: zeros(), idle_from }
    }

    pub fn ready(&self, block: usize) -> u64 {
        self.ready[block % SEGMENT].load(Ordering::Acquire)
    }

    pub fn idle(&self, block: usize) -> u64 {
        self.idle[block % SEGMENT].load(Ordering::Acquire)
    }

    pub fn unused(&self, block: usize) -> u64 {
        self.unused[block % SEGMENT].load(Ordering::Acquire)
    }

    pub fn held(&self, block: usize) -> u64 {
        self.held[block % SEGMENT].load(Ordering::Acquire)
    }

    pub fn heard(&self, block: usize) -> Heard {
        Heard(self.heard[block % SEGMENT].load(Ordering::Acquire))
    }

    /// Since when a row that has the bit has been idle.
    pub fn idle_from(&self, block: usize, bit: u32) -> IdleFrom {
        let row = (block % SEGMENT) * ROWS as usize + bit as usize;
        IdleFrom(self.idle_from[row].load(Ordering::Relaxed))
    }

    /// To be written before the bit.
    pub fn put_idle_from(&self, block: usize, bit: u32, from: IdleFrom) {
        let row = (block % SEGMENT) * ROWS as usize + bit as usize;
        if self.idle_from[row].load(Ordering::Relaxed) != from.0 {
            self.idle_from[row].store(from.0, Ordering::Relaxed);
        }
    }

    pub fn room(&self, block: usize) -> Option<u64> {
        self.room[block % SEGMENT].load(Ordering::Acquire).checked_sub(1)
    }

    /// Writes those words that are not there already.
    pub fn put(&self, block: usize, told: &mut Words, now: Words) {
        let write = |column: &[AtomicU64; SEGMENT], told: u64, now: u64| {
            if told != now {
                column[block % SEGMENT].store(now, Ordering::Release);
            }
        };
        write(&self.ready, told.ready, now.ready);
        write(&self.idle, told.idle, now.idle);
        write(&self.unused, told.unused, now.unused);
        write(&self.held, told.held, now.held);
        *told = now;
    }

    pub fn hear(&self, block: usize, heard: Heard) {
        self.heard[block % SEGMENT].store(heard.0, Ordering::Release);
    }

    pub fn put_room(&self, block: usize, room: Option<u64>) {
        let room = room.map_or(0, |bytes| bytes.saturating_add(1));
        self.room[block % SEGMENT].store(room, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::columns::Quanta;
    use proto::{Activity, ProcessStats, Readiness};

    #[test]
    fn only_a_worker_that_is_ready_is_idle() {
        let stats = ProcessStats {
            activity: Activity::Idle.into(),
            gpu_util_pct: Some(0.0),
            readiness: Readiness::NotReady.into(),
            ..ProcessStats::default()
        };
        let measured = |stats: &ProcessStats| Measured::of(Quanta::of(stats), stats.clone());
        let mut words = Words::default();
        words.set(4, Flags::of(WorkerState::Running.into(), Some(&measured(&stats)), true));
        assert_eq!(words, Words { held: 4, ..Words::default() });
        let ready = measured(&ProcessStats { readiness: Readiness::Ready.into(), ..stats });
        words.set(4, Flags::of(WorkerState::Running.into(), Some(&ready), true));
        assert_eq!(words, Words { ready: 4, idle: 4, unused: 4, held: 4 });
        words.set(4, Flags::of(WorkerState::Stopping.into(), Some(&ready), false));
        assert_eq!(words, Words::default());
        assert!(!Flags::of(WorkerState::Running.into(), None, false).idle, "unknown is never idle");
    }

    #[test]
    fn the_longer_idle_comes_first_also_from_before_the_queen_started() {
        let started = Instant::now() + Duration::from_secs(10);
        let of = |at| IdleFrom::of(started, at);
        assert!(of(started - Duration::from_secs(1)) < of(started));
        assert!(of(started) < of(started + Duration::from_nanos(1)));
        assert!(IdleFrom::FIRST < of(started) && of(started + Duration::from_secs(1 << 40)) < IdleFrom::NEVER);
    }

    #[test]
    fn when_a_hive_was_heard_is_kept_to_the_nanosecond() {
        let started = Instant::now();
        let at = started + Duration::from_nanos(1_234_567_891);
        let heard = Heard::new(started, at, true);
        assert_eq!((heard.at(started), heard.broken()), (at, true));
        assert!(
            Heard::new(started, at, false) < heard && heard < Heard::new(started, at + Duration::from_nanos(1), false)
        );
    }
}
