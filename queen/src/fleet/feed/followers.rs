//! Who follows the index, and how they are woken: some by every change, others together at the beats of an interval, so that
//! they share their messages.

use super::Feed;
use atomic_waker::AtomicWaker;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;
use tokio::sync::Notify;

/// The least time between two updates; what is asked for is rounded up.
pub const INTERVALS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];
/// The first group is woken by every change, the others by the beats of an interval.
const GROUPS: usize = 1 + INTERVALS.len();

/// Why a follower is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// There is something to read.
    Changed = 1,
    /// A bookmark has been made.
    Bookmark = 2,
    /// The queen stops.
    Stopping = 4,
}

/// What a follower is woken by.
#[derive(Debug, Default)]
pub struct Bell {
    /// Why it was rung since it was last answered.
    rung: AtomicU8,
    waker: AtomicWaker,
}

impl Bell {
    /// Rings it. Who was rung for the same reasons and has not answered since needs no second call.
    pub fn ring(&self, whys: &[Why]) {
        let reasons = whys.iter().fold(0, |reasons, why| reasons | *why as u8);
        if self.rung.fetch_or(reasons, Ordering::AcqRel) & reasons != reasons {
            self.waker.wake();
        }
    }

    /// Answers what it was rung for, and has `waker` woken the next time. Tells whether a reason is among them.
    pub fn answer(&self, waker: &Waker) -> impl Fn(Why) -> bool + use<> {
        self.waker.register(waker);
        let rung = self.rung.swap(0, Ordering::AcqRel);
        move |why| rung & why as u8 != 0
    }

    /// Whether it was rung and not answered.
    pub fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed) != 0
    }
}

/// How soon a follower is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm(usize);

impl Rhythm {
    /// As asked, rounded up; zero is at once.
    pub fn of(asked: Duration) -> Self {
        let slowest = INTERVALS.len() - 1;
        let found = || INTERVALS.iter().position(|interval| asked <= *interval).unwrap_or(slowest);
        Self(if asked.is_zero() { 0 } else { 1 + found() })
    }

    /// Its interval; `None` is at once.
    pub fn interval(self) -> Option<Duration> {
        self.0.checked_sub(1).map(|index| INTERVALS[index])
    }
}

#[derive(Debug, Default)]
struct Group {
    members: Mutex<BTreeMap<u64, Arc<Bell>>>,
    /// What had changed at the last beat.
    told: AtomicU64,
    /// Somebody has not read everything that there was at the last beat.
    again: AtomicBool,
    /// There is a bookmark that its members have not been woken for.
    bookmark: AtomicBool,
}

impl Group {
    fn members(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Bell>>> {
        // A waker that panics leaves the list as it was.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, whys: &[Why]) {
        self.members().values().for_each(|bell| bell.ring(whys));
    }

    /// There is something to read. A bookmark that waits goes along: it costs nobody a message of its own.
    fn wake_to_read(&self) {
        let whys = [Why::Changed, Why::Bookmark];
        self.wake(if self.takes_bookmark() { &whys } else { &whys[..1] });
    }

    fn takes_bookmark(&self) -> bool {
        // Most of the time there is none: a look is cheaper than a swap.
        self.bookmark.load(Ordering::Relaxed) && self.bookmark.swap(false, Ordering::AcqRel)
    }
}

/// All followers.
#[derive(Debug, Default)]
pub(super) struct Followers {
    groups: [Group; GROUPS],
    begun: AtomicU64,
    count: AtomicUsize,
    /// So much has changed.
    changed: AtomicU64,
    arrived: Notify,
}

impl Followers {
    /// Something was linked: revisions and beats together are so many.
    pub fn changed(&self, so_many: u64) {
        self.changed.fetch_max(so_many, Ordering::AcqRel);
        self.groups[0].wake_to_read();
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

/// A follower's place, given back when it drops.
#[derive(Debug)]
pub struct Following {
    followers: Arc<Followers>,
    rhythm: Rhythm,
    number: u64,
}

impl Following {
    /// Has it woken again when its rhythm allows, although nothing else may change.
    pub fn again(&self) {
        let group = &self.followers.groups[self.rhythm.0];
        if self.rhythm.interval().is_some() {
            group.again.store(true, Ordering::Release);
        } else if let Some(bell) = group.members().get(&self.number) {
            bell.ring(&[Why::Changed]);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let left = self.followers.groups[self.rhythm.0].members().remove(&self.number);
        self.followers.count.fetch_sub(usize::from(left.is_some()), Ordering::AcqRel);
    }
}

impl Feed {
    /// Has a bell rung from now on.
    pub fn follow(&self, rhythm: Rhythm, bell: Arc<Bell>) -> Following {
        let followers = Arc::clone(&self.followers);
        let number = followers.begun.fetch_add(1, Ordering::Relaxed);
        followers.groups[rhythm.0].members().insert(number, bell);
        followers.count.fetch_add(1, Ordering::AcqRel);
        if rhythm.interval().is_some() {
            followers.arrived.notify_one();
        }
        Following { followers, rhythm, number }
    }

    /// Until somebody comes who is woken by beats.
    pub async fn arrived(&self) {
        self.followers.arrived.notified().await;
    }

    /// Whether anybody is woken by beats.
    pub fn needs_beats(&self) -> bool {
        self.followers.groups[1..].iter().any(|group| !group.members().is_empty())
    }

    /// A beat of the interval of this index in [`INTERVALS`]: wakes its followers if there is anything to read.
    pub fn flush(&self, interval: usize) {
        let Some(group) = self.followers.groups.get(1 + interval) else { return };
        let changed = self.followers.changed.load(Ordering::Acquire);
        let again = group.again.swap(false, Ordering::AcqRel);
        if group.told.swap(changed, Ordering::AcqRel) != changed || again {
            group.wake_to_read();
        }
    }

    /// A bookmark has been made: whoever is woken to read is told of it, too.
    pub fn announce_bookmark(&self) {
        self.followers.groups.iter().for_each(|group| group.bookmark.store(true, Ordering::Release));
    }

    /// Wakes those for the bookmark who have had nothing to read since it was announced.
    pub fn wake_for_bookmark(&self) {
        let waiting = self.followers.groups.iter().filter(|group| group.takes_bookmark());
        waiting.for_each(|group| group.wake(&[Why::Bookmark]));
    }

    /// Wakes everybody.
    pub fn wake_all(&self, why: Why) {
        self.followers.groups.iter().for_each(|group| group.wake(&[why]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was rung since the last look.
    fn rung(bell: &Bell) -> bool {
        bell.answer(Waker::noop())(Why::Changed)
    }

    #[test]
    fn intervals_are_rounded_up() {
        let ms = Duration::from_millis;
        for (asked, given) in [(1, 50), (50, 50), (51, 250), (251, 1_000), (60_000, 1_000)] {
            assert_eq!(Rhythm::of(ms(asked)).interval(), Some(ms(given)), "{asked}");
        }
        assert_eq!(Rhythm::of(Duration::ZERO).interval(), None);
    }

    #[test]
    fn some_are_woken_by_changes_others_by_beats_after_one() {
        let feed = Feed::new("q".into(), 1);
        let (now, later) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let _one = feed.follow(Rhythm::of(Duration::ZERO), now.clone());
        let other = feed.follow(Rhythm::of(Duration::from_millis(50)), later.clone());
        feed.followers.changed(1);
        assert_eq!((rung(&now), rung(&later)), (true, false));
        feed.flush(0);
        assert_eq!((rung(&now), rung(&later)), (false, true));
        feed.flush(0);
        assert!(!rung(&later), "a beat without a change wakes nobody");
        other.again();
        feed.flush(1);
        assert!(!rung(&later), "that was another interval");
        feed.flush(0);
        assert!(rung(&later));
        feed.wake_all(Why::Bookmark);
        assert!(now.is_rung() && later.is_rung() && !rung(&now) && !now.is_rung());
    }

    #[test]
    fn a_bookmark_goes_along_with_what_there_is_to_read_or_alone() {
        let feed = Feed::new("q".into(), 1);
        let (now, later) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let _one = feed.follow(Rhythm::of(Duration::ZERO), now.clone());
        let _other = feed.follow(Rhythm::of(Duration::from_millis(50)), later.clone());
        let whys = |bell: &Bell| {
            let rung = bell.answer(Waker::noop());
            (rung(Why::Changed), rung(Why::Bookmark))
        };
        feed.announce_bookmark();
        assert!(!now.is_rung() && !later.is_rung());
        feed.followers.changed(1);
        assert_eq!((whys(&now), later.is_rung()), ((true, true), false));
        feed.followers.changed(2);
        assert_eq!(whys(&now), (true, false), "told once");
        feed.wake_for_bookmark();
        assert_eq!((now.is_rung(), whys(&later)), (false, (false, true)));
        feed.flush(0);
        assert_eq!(whys(&later), (true, false));
    }

    #[test]
    fn who_reads_at_once_and_wants_to_go_on_is_woken_at_once() {
        let (feed, bell) = (Feed::new("q".into(), 1), Arc::new(Bell::default()));
        feed.follow(Rhythm::of(Duration::ZERO), bell.clone()).again();
        assert!(rung(&bell));
    }

    #[test]
    fn who_left_is_not_woken_nor_counted() {
        let (feed, bell) = (Feed::new("q".into(), 1), Arc::new(Bell::default()));
        let following = feed.follow(Rhythm::of(Duration::from_secs(1)), bell.clone());
        assert!(feed.needs_beats() && feed.followers.count() == 1);
        drop(following);
        feed.wake_all(Why::Changed);
        assert_eq!((rung(&bell), feed.followers.count(), feed.needs_beats()), (false, 0, false));
    }
}
