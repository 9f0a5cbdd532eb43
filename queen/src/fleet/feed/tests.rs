//! Watchers as cursors: whatever they miss on the way, they end in the right state.

use super::mirror::Mirror;
use super::*;
use crate::fleet::{Mask, object};
use proto::{Freshness, WorkerSpec};

fn subject(name: u32, model: &str, state: i32) -> Subject {
    let spec = WorkerSpec {
        hive: "box".into(),
        group: "llm".into(),
        instance: name.to_string(),
        model: Some(model.into()),
        ..WorkerSpec::default()
    };
    Subject::Worker { spec: Arc::new(Spec::of(&spec)), state }
}

/// A feed, and the keys of the workers in it.
pub(super) struct Bench {
    pub feed: Feed,
    keys: HashMap<u32, Key>,
    pub now: Instant,
}

impl Bench {
    pub fn new() -> Self {
        Self { feed: Feed::new("q1".into(), 4), keys: HashMap::new(), now: Instant::now() }
    }

    pub fn put(&mut self, name: u32, model: &str, state: i32) {
        let subject = subject(name, model, state);
        let Subject::Worker { spec, .. } = &subject else { return };
        let bytes = object::worker(spec.bytes(), None, state, Freshness::Live, "", 0);
        let before = self.keys.get(&name).copied();
        let refiltered = before.is_none_or(|key| self.feed.lock().objects.get(key).is_none_or(|o| o.bytes != bytes));
        let key = self.feed.write(self.now).put(before, subject, bytes, refiltered);
        self.keys.insert(name, key);
    }

    pub fn remove(&mut self, name: u32) {
        if let Some(key) = self.keys.remove(&name) {
            self.feed.write(self.now).remove(key);
        }
    }

    /// Reads one page; false at the tip, `None` when behind.
    pub fn page(&self, place: &mut Place, class: Option<&Class>, max: usize, mirror: &mut Mirror) -> Option<bool> {
        match self.feed.read(self.now, place, class, max) {
            Read::Behind => None,
            Read::Page { message, more, .. } => {
                if let Some(message) = message {
                    mirror.apply(message.read());
                }
                Some(more)
            }
        }
    }

    pub fn tip(&self, place: &mut Place, class: Option<&Class>, mirror: &mut Mirror) {
        while self.page(place, class, 400, mirror).unwrap() {}
    }

    /// The class of those who want this, which must not be everything.
    pub fn class(&self, filter: Option<&Filter>, paths: &[&str]) -> Arc<Class> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mask = Mask::compile(&paths).unwrap();
        self.feed.class(Wanted::new(filter.cloned(), mask, false)).unwrap().unwrap()
    }

    /// What a watcher with this filter must hold.
    fn truth(&self, filter: Option<&Filter>) -> Vec<String> {
        let inner = self.feed.lock();
        let live = inner.objects.newer(0, None).map(|(_, _, object)| object).filter(|object| !object.gone);
        let matching = live.filter(|object| filter.is_none_or(|filter| object.subject.matches(filter)));
        let mut names: Vec<String> = matching.map(|object| object.subject.name()).collect();
        names.sort();
        names
    }
}

/// A small deterministic random number generator (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn w1_revisions_strictly_increase_and_no_object_stands_twice() {
    let mut bench = Bench::new();
    let mut last = 0;
    for step in 0..50 {
        bench.put(step % 7, "m", 2);
        let revision = bench.feed.revision();
        assert!(revision > last);
        last = revision;
    }
    assert_eq!(bench.feed.lock().objects.len(), 7);
}

#[test]
fn w2_w7_every_watcher_that_keeps_reading_ends_in_the_right_state() {
    for seed in 1..40 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut bench = Bench::new();
        let only_a = Filter { model: "a".into(), ..Filter::default() };
        let filters = [None, Some(&only_a)];
        let class = bench.class(Some(&only_a), &[]);
        let class_of = |filter: &Option<_>| filter.map(|_| class.as_ref());
        let mut watchers: Vec<(Place, Mirror)> =
            filters.iter().map(|_| (bench.feed.start(), Mirror::default())).collect();
        for _ in 0..400 {
            let name = dice.roll(12) as u32;
            match dice.roll(5) {
                0 => bench.remove(name),
                1 | 2 => bench.put(name, "a", 2),
                _ => bench.put(name, "b", 2),
            }
            // Each watcher reads a little, now and then.
            for (filter, (place, mirror)) in filters.iter().zip(&mut watchers) {
                if dice.roll(4) == 0 {
                    bench.page(place, class_of(filter), 300, mirror).unwrap();
                }
            }
        }
        for (filter, (place, mirror)) in filters.iter().zip(&mut watchers) {
            bench.tip(place, class_of(filter), mirror);
            assert_eq!(mirror.names(), bench.truth(*filter), "seed {seed}, filter {filter:?}");
        }
    }
}

#[test]
fn w3_a_resume_yields_everything_newer() {
    let mut bench = Bench::new();
    (0..10).for_each(|name| bench.put(name, "m", 2));
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, None, &mut mirror);
    bench.put(3, "m", 3);
    bench.remove(4);
    let mut resumed = bench.feed.resume(place.revision()).unwrap();
    bench.tip(&mut resumed, None, &mut mirror);
    assert_eq!(mirror.names(), bench.truth(None));
    assert_eq!((mirror.removed.clone(), mirror.workers["box/llm/3"].state), (vec!["box/llm/4".to_owned()], 3));
}

#[test]
fn w3_a_watch_after_a_list_is_told_of_what_came_and_went_since_the_list_began() {
    let mut bench = Bench::new();
    bench.put(1, "a", 2);
    let list = Revision::at(bench.feed.revision());
    // The list tells of these too: it is read for longer than the moment by whose revision it goes.
    bench.put(2, "a", 2);
    bench.put(3, "a", 2);
    bench.remove(2);
    bench.put(3, "b", 2);
    let only_a = Filter { model: "a".into(), ..Filter::default() };
    for filter in [None, Some(&only_a)] {
        let class = filter.map(|filter| bench.class(Some(filter), &[]));
        let (mut place, mut mirror) = (bench.feed.resume(list).unwrap(), Mirror::default());
        bench.tip(&mut place, class.as_deref(), &mut mirror);
        let gone: &[&str] = if filter.is_some() { &["box/llm/2", "box/llm/3"] } else { &["box/llm/2"] };
        assert_eq!(mirror.removed, gone);
    }
    // Who was there all along is not told of somebody he has never heard of.
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, None, &mut mirror);
    bench.put(4, "a", 2);
    bench.remove(4);
    bench.tip(&mut place, None, &mut mirror);
    assert_eq!(mirror.removed, Vec::<String>::new());
}

#[test]
fn w3_a_place_behind_forgotten_removals_is_told_so() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    bench.put(2, "m", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, None, &mut mirror);
    let cursor = place.revision();
    bench.remove(1);
    bench.now += TOMBSTONE_AGE;
    assert!(bench.feed.resume(cursor).is_some());
    bench.feed.forget(bench.now);
    assert!(bench.feed.resume(cursor).is_none());
    assert_eq!(bench.page(&mut place, None, 400, &mut mirror), None, "a slow reader starts over too");
    let (mut fresh, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut fresh, None, &mut mirror);
    assert_eq!(mirror.names(), ["box/llm/2"]);
}

#[test]
fn removals_are_remembered_no_longer_than_there_is_room() {
    let mut bench = Bench::new();
    for name in 0..3_000 {
        bench.put(name, "m", 2);
        bench.remove(name);
    }
    let inner = bench.feed.lock();
    assert_eq!((inner.gone.len(), inner.objects.len()), (TOMBSTONES_MIN, TOMBSTONES_MIN));
    assert!(inner.forgotten > 0);
}

#[test]
fn names_that_leave_and_come_back_leave_nothing_behind() {
    let mut bench = Bench::new();
    bench.put(0, "m", 2);
    bench.put(1, "m", 2);
    let kept = bench.keys[&0];
    bench.feed.write(bench.now).remove(kept);
    for _ in 0..10 * TOMBSTONES_MIN {
        let key = bench.keys[&1];
        bench.feed.write(bench.now).remove(key);
        bench.keys.remove(&1);
        bench.put(1, "m", 2);
    }
    let inner = bench.feed.lock();
    assert!(inner.tombstones.len() <= TOMBSTONES_MIN + 4, "{}", inner.tombstones.len());
    assert_eq!((inner.gone.len(), inner.forgotten), (1, 0), "the removal that counts is still remembered");
}

#[test]
fn w5_at_the_end_of_a_snapshot_nothing_is_missing() {
    let mut bench = Bench::new();
    (0..30).for_each(|name| bench.put(name, "m", 2));
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    let mut name = 0;
    while bench.page(&mut place, None, 400, &mut mirror).unwrap() {
        // Objects move behind and ahead of the reader, come and go, while it reads.
        bench.put(name % 30, "m", 3);
        bench.remove(29 - name % 30);
        bench.put(100 + name, "m", 2);
        name += 1;
        assert!(name < 500, "a reader that is faster than the changes arrives");
    }
    assert_eq!(mirror.names(), bench.truth(None));
    assert_eq!(place.cursor(), bench.feed.revision());
}

#[test]
fn w7_leaving_the_filter_is_a_removal_for_those_who_may_hold_it() {
    let mut bench = Bench::new();
    let only_a = Filter { model: "a".into(), ..Filter::default() };
    let class = bench.class(Some(&only_a), &[]);
    bench.put(1, "a", 2);
    bench.put(2, "b", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!(mirror.names(), ["box/llm/1"]);
    bench.put(1, "b", 2);
    bench.put(3, "a", 2);
    bench.put(3, "b", 2);
    bench.remove(2);
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!(mirror.names(), Vec::<&str>::new());
    assert_eq!(mirror.removed, ["box/llm/1"], "2 and 3 were never shown");
    bench.put(1, "b", 2);
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!(mirror.removed.len(), 1, "it is told once");
}

#[test]
fn a_name_that_comes_back_is_not_removed_by_its_own_tombstone() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, None, &mut mirror);
    bench.remove(1);
    bench.put(1, "m", 3);
    bench.tip(&mut place, None, &mut mirror);
    assert_eq!((mirror.names(), mirror.removed.len()), (vec!["box/llm/1"], 0));
    assert_eq!(bench.feed.lock().objects.len(), 1);
}

#[test]
fn merged_states_are_counted() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    bench.put(2, "m", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, None, &mut mirror);
    place.end_snapshot();
    (0..5).for_each(|_| bench.put(1, "m", 2));
    bench.put(2, "m", 2);
    bench.tip(&mut place, None, &mut mirror);
    assert_eq!(mirror.conflated, 4);
}

#[test]
fn merged_states_are_counted_for_a_filter_too() {
    let mut bench = Bench::new();
    let only_m = Filter { model: "m".into(), ..Filter::default() };
    let class = bench.class(Some(&only_m), &[]);
    bench.put(1, "m", 2);
    bench.put(2, "m", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, Some(&class), &mut mirror);
    place.end_snapshot();
    // Nobody of the class looks meanwhile.
    (0..5).for_each(|at| bench.put(1, "m", 3 - at % 2));
    (0..5).for_each(|_| bench.put(3, "other", 2));
    bench.put(2, "m", 3);
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!(mirror.conflated, 4);
}

#[test]
fn watchers_at_the_same_place_share_one_message() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    let read = || match bench.feed.read(bench.now, &mut bench.feed.start(), None, 400) {
        Read::Page { message: Some(message), .. } => message.framed().as_ptr(),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(), read());
}

#[test]
fn an_idle_fleet_beats_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, None, &mut mirror);
    let (revision, workers) = (mirror.revision.clone(), mirror.workers.clone());
    let (hive, mut key) = (Arc::from("box"), None);
    for sequence in [3, 4] {
        let beat = Beat { hive: &hive, sampled_at: None, sequence, epoch: 7 };
        key = Some(bench.feed.write(bench.now).beat(key, &beat));
        bench.tip(&mut place, None, &mut mirror);
        assert_eq!((&mirror.revision, &mirror.workers), (&revision, &workers));
        assert_eq!((mirror.beats["box"].sequence, mirror.beats["box"].epoch), (sequence, 7));
    }
}

#[test]
fn a_shared_message_does_not_hide_what_came_after_it() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    let (mut first, mut second) = (bench.feed.start(), bench.feed.start());
    let read = |place: &mut Place| match bench.feed.read(bench.now, place, None, 400) {
        Read::Page { message, more, later } => (message.unwrap(), more, later),
        Read::Behind => panic!("behind"),
    };
    let (message, more, later) = read(&mut first);
    assert!(!more && !later);
    bench.feed.write(bench.now).beat(None, &Beat { hive: &Arc::from("box"), sampled_at: None, sequence: 0, epoch: 0 });
    assert_eq!(read(&mut second), (message, false, true));
    assert!(matches!(read(&mut second), (_, false, false)));
}

#[test]
fn a_new_watcher_is_never_told_old_state() {
    let mut bench = Bench::new();
    bench.put(1, "m", 2);
    bench.tip(&mut bench.feed.start(), None, &mut Mirror::default());
    bench.put(1, "m", 4);
    bench.remove(1);
    bench.put(2, "m", 2);
    bench.now += Duration::from_secs(24);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    assert_eq!(bench.page(&mut place, None, 400, &mut mirror), Some(false));
    assert_eq!(mirror.workers.keys().cloned().collect::<Vec<_>>(), bench.truth(None));
}
