//! How old a sample is, and what its age makes of its worker. Only the queen's monotonic clock and differences on the
//! hive's decide anything; no wall clock does.

use proto::Freshness;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A frame's lateness is measured against the fastest of this many frames, so that drifting clocks do not add up.
const WINDOW: u64 = 600;

/// The limits of freshness.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Older than this is STALE.
    pub stale: Duration,
    /// Older than this is LOST.
    pub lost: Duration,
    /// A hive silent for longer is removed.
    pub remove: Duration,
}

impl Limits {
    /// The freshness of something last heard of this long ago.
    pub fn freshness(&self, silence: Duration) -> Freshness {
        if silence > self.lost {
            Freshness::Lost
        } else if silence > self.stale {
            Freshness::Stale
        } else {
            Freshness::Live
        }
    }
}

/// Tells how late each frame of a session arrives.
#[derive(Debug)]
pub struct Arrivals {
    opened: Instant,
    count: u64,
    /// Delays in ms that are smaller than all that came after them, oldest first, with the number of their frame.
    fastest: VecDeque<(u64, i64)>,
}

impl Arrivals {
    /// A session whose Register arrived now, which counts as a frame sampled at 0 ms.
    pub fn new(opened: Instant) -> Self {
        Self { opened, count: 0, fastest: VecDeque::from([(0, 0)]) }
    }

    /// When the sample of a frame that arrives now was made, at the latest. `clock_ms` is the hive's clock since its Register, less
    /// than nothing of a sample that is older than that; 0 is what clients send that keep no such clock, and then the frame
    /// counts as fresh.
    pub fn taken(&mut self, now: Instant, clock_ms: i64) -> Instant {
        if clock_ms == 0 {
            return now;
        }
        let since = i64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(i64::MAX);
        let delay = since.saturating_sub(clock_ms);
        self.count += 1;
        while self.fastest.back().is_some_and(|(_, slower)| *slower >= delay) {
            self.fastest.pop_back();
        }
        self.fastest.push_back((self.count, delay));
        while self.fastest.front().is_some_and(|(number, _)| number + WINDOW <= self.count) {
            self.fastest.pop_front();
        }
        let best = self.fastest.front().map_or(delay, |(_, best)| *best);
        let late = Duration::from_millis(u64::try_from(delay.saturating_sub(best)).unwrap_or(0));
        now.checked_sub(late).unwrap_or(self.opened)
    }
}

/// How many pauses are remembered.
const PAUSES: usize = 8;
/// A queen that runs looks at her clock this often.
pub const LOOK: Duration = Duration::from_secs(1);
/// One who comes to it later than this did not run.
const LATE: Duration = Duration::from_secs(2);

/// Time in which the queen itself did not run is no silence of anybody's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pardon {
    /// The newest last.
    pauses: [Option<Pause>; PAUSES],
    /// When she last looked at her clock.
    looked: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    by: Duration,
}

impl Pardon {
    /// Adds a pause that lasted for `by` and ended at `until`; the oldest one is forgotten.
    pub fn add(&mut self, until: Instant, by: Duration) {
        self.pauses.rotate_left(1);
        self.pauses[PAUSES - 1] = Some(Pause { until, by });
    }

    /// She looks at her clock, as she does every [`LOOK`]. Answers for how long she did not run, where that was long.
    pub fn look(&mut self, now: Instant) -> Option<Duration> {
        let late = self.late(now);
        if let Some(by) = late {
            self.add(now, by);
        }
        self.looked = Some(now);
        late
    }

    /// What holds now: frames that waited while she did not run are often taken before she looks at her clock again.
    pub fn at(mut self, now: Instant) -> Self {
        if let Some(by) = self.late(now) {
            self.add(now, by);
        }
        self
    }

    fn late(&self, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.looked?).saturating_sub(LOOK);
        (late > LATE).then_some(late)
    }

    /// For how long something last heard of at `heard` has been silent.
    pub fn silence(&self, heard: Instant, now: Instant) -> Duration {
        // Nobody knows when within its last second of running the queen stopped: what was heard then is pardoned too.
        let missed = |pause: &Pause| pause.by.min(pause.until.saturating_duration_since(heard));
        let missed: Duration = self.pauses.iter().flatten().map(missed).sum();
        now.saturating_duration_since(heard).saturating_sub(missed)
    }
}

/// When removal must wait, because so many fell silent together that the fault is probably not theirs.
#[derive(Debug, Default)]
pub struct Freeze(Option<Frozen>);

/// A freeze, and those for whom it is.
#[derive(Debug)]
struct Frozen {
    since: Instant,
    /// How long the last of them had been silent when it began.
    silence: Duration,
}

/// Below this many known hives a silent one is removed on time, always.
const FREEZE_HIVES: usize = 10;
/// More than this part of all hives, in percent, …
const FREEZE_PERCENT: usize = 30;
/// … silent since within this long of one another …
const FREEZE_TOGETHER: Duration = Duration::from_secs(10);
/// … stops removal for at most this long.
pub const FREEZE_LONGEST: Duration = Duration::from_secs(15 * 60);

/// What became of a freeze.
#[derive(Debug, PartialEq, Eq)]
pub enum Removal {
    /// Hives are removed on time.
    Allowed,
    /// Nothing is removed; `new` when that has just begun.
    Frozen {
        /// It has just begun.
        new: bool,
    },
}

impl Freeze {
    /// Whether nothing is removed for now. Time in which the queen did not run does not count.
    pub fn holds(&self, pardon: &Pardon, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|frozen| pardon.silence(frozen.since, now) <= FREEZE_LONGEST)
    }

    /// Judges the fleet: how many hives are known, and for how long those that are silent have been.
    pub fn judge(&mut self, pardon: &Pardon, now: Instant, known: usize, silent: Vec<Duration>) -> Removal {
        let Some((shortest, longest)) = together(known, silent) else {
            self.0 = None;
            return Removal::Allowed;
        };
        // Others who fell silent later have a freeze of their own.
        let same = |frozen: &Frozen| longest + FREEZE_TOGETHER >= frozen.silence + pardon.silence(frozen.since, now);
        let new = !self.0.as_ref().is_some_and(same);
        if new {
            self.0 = Some(Frozen { since: now, silence: shortest });
        }
        if self.holds(pardon, now) { Removal::Frozen { new } } else { Removal::Allowed }
    }
}

/// Of so many hives that fell silent together the shortest and the longest silence; the last to do so, where there are
/// several such.
fn together(known: usize, mut silent: Vec<Duration>) -> Option<(Duration, Duration)> {
    silent.sort_unstable();
    let mut start = 0;
    let group = silent.iter().enumerate().find_map(|(at, longest)| {
        while longest.saturating_sub(silent[start]) > FREEZE_TOGETHER {
            start += 1;
        }
        ((at - start + 1) * 100 > known * FREEZE_PERCENT).then_some((silent[start], *longest))
    });
    group.filter(|_| known >= FREEZE_HIVES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_batch_that_sat_in_a_buffer_is_old_when_it_arrives() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(arrivals.taken(at(1_020), 1_000), at(1_000));
        assert_eq!(arrivals.taken(at(9_000), 2_000), at(2_000));
        assert_eq!(arrivals.taken(at(9_000), 9_000), at(9_000));
        assert_eq!(arrivals.taken(at(9_500), 0), at(9_500), "no clock, no lateness");
    }

    #[test]
    fn s1_a_sample_that_is_older_than_its_session_is_as_old_as_that() {
        let start = Instant::now() + SECOND * 600;
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut arrivals = Arrivals::new(start);
        assert_eq!(arrivals.taken(at(20), -300_000), start - SECOND * 300);
        assert_eq!(arrivals.taken(at(1_020), 1_000), at(1_000));
    }

    #[test]
    fn lateness_is_against_the_fastest_of_the_last_600_frames() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        // A hive whose clock runs slow by 1 ms a second is never more than 600 ms late.
        for second in 1..5_000_u64 {
            let now = start + Duration::from_millis(second * 1_001);
            let late = now - arrivals.taken(now, second as i64 * 1_000);
            assert!(late <= Duration::from_millis(600), "{late:?}");
        }
        assert!(arrivals.fastest.len() <= 601);
    }

    #[test]
    fn s4_a_pause_of_the_queen_is_nobodys_silence() {
        let start = Instant::now();
        let mut pardon = Pardon::default();
        pardon.add(start + SECOND * 122, SECOND * 120);
        let now = start + SECOND * 122;
        assert_eq!(pardon.silence(start, now), SECOND * 2);
        assert_eq!(pardon.silence(start + SECOND, now), SECOND, "heard between the last look and the pause");
        assert_eq!(pardon.silence(start + SECOND * 122, now + SECOND), SECOND, "nothing to pardon");
        let later = start + SECOND * 200;
        pardon.add(later, SECOND * 10);
        assert_eq!(pardon.silence(start + SECOND * 150, later), SECOND * 40, "a pause before that is not its own");
        assert_eq!(pardon.silence(start, later), SECOND * 70);
    }

    #[test]
    fn s4_a_pause_counts_before_it_has_been_noticed() {
        let start = Instant::now();
        let mut pardon = Pardon::default();
        let back = start + SECOND * 121;
        assert_eq!(pardon.at(back).silence(start, back), SECOND * 121, "she does not look at her clock yet");
        assert_eq!(pardon.look(start), None);
        assert_eq!(pardon.at(start + SECOND * 3).silence(start, start + SECOND * 3), SECOND * 3, "that is no pause");
        assert_eq!(pardon.at(back).silence(start, back), SECOND);
        assert_eq!(pardon.at(back).silence(start + SECOND / 2, back), SECOND / 2);
        assert_eq!(pardon.silence(start, back), SECOND * 121, "nothing is remembered");
        assert_eq!(pardon.look(back), Some(SECOND * 120));
        assert_eq!((pardon.silence(start, back), pardon.at(back).silence(start, back)), (SECOND, SECOND));
    }

    #[test]
    fn many_that_fall_silent_together_are_not_removed_for_15_minutes() {
        let (start, ran) = (Instant::now(), Pardon::default());
        let mut freeze = Freeze::default();
        let mut judge = |after: u32, known, silent: usize| {
            freeze.judge(&ran, start + SECOND * after, known, vec![SECOND * after; silent])
        };
        assert_eq!(judge(20, 10, 3), Removal::Allowed);
        assert_eq!(judge(20, 10, 4), Removal::Frozen { new: true });
        assert_eq!(judge(900, 10, 4), Removal::Frozen { new: false });
        assert_eq!(judge(921, 10, 4), Removal::Allowed);
        assert_eq!(judge(922, 10, 3), Removal::Allowed);
        assert_eq!(judge(923, 10, 4), Removal::Frozen { new: true });
        assert_eq!(judge(924, 9, 9), Removal::Allowed, "a small fleet loses on time");
        let one_by_one = (0..9).map(|i| SECOND * 11 * i).collect();
        assert_eq!(freeze.judge(&ran, start + SECOND * 925, 20, one_by_one), Removal::Allowed);
    }

    #[test]
    fn s4_a_freeze_does_not_run_out_while_the_queen_stands_still() {
        let start = Instant::now();
        let (mut pardon, mut freeze) = (Pardon::default(), Freeze::default());
        let at = |seconds: u32| start + SECOND * seconds;
        pardon.look(at(20));
        assert_eq!(freeze.judge(&pardon, at(20), 10, vec![SECOND * 20; 4]), Removal::Frozen { new: true });
        // 16 minutes in which she looks at nothing, and nobody is silent.
        let back = at(20 + 960);
        pardon.look(back);
        assert!(freeze.holds(&pardon, back));
        let silent = vec![pardon.silence(start, back); 4];
        assert_eq!(freeze.judge(&pardon, back, 10, silent), Removal::Frozen { new: false });
        assert!(freeze.holds(&pardon, back + SECOND * 890) && !freeze.holds(&pardon, back + SECOND * 910));
    }

    #[test]
    fn who_falls_silent_later_has_a_freeze_of_his_own() {
        let (start, ran) = (Instant::now(), Pardon::default());
        let mut freeze = Freeze::default();
        let mut judge = |after: u32, silent: &[u32]| {
            let silent = silent.iter().map(|since| SECOND * (after - since)).collect();
            freeze.judge(&ran, start + SECOND * after, 10, silent)
        };
        let first = [0, 1, 2, 3];
        assert_eq!(judge(15, &first), Removal::Frozen { new: true });
        // One more who belongs to these, a little later.
        assert_eq!(judge(25, &[0, 1, 2, 3, 9]), Removal::Frozen { new: false });
        // Another rack, just before the first freeze is over.
        let both = [0, 1, 2, 3, 9, 880, 881, 882, 883];
        assert_eq!(judge(895, &both), Removal::Frozen { new: true });
        assert_eq!(judge(1_700, &both), Removal::Frozen { new: false });
        assert_eq!(judge(1_800, &both), Removal::Allowed);
    }
}
