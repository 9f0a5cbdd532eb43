//! The index against a model that knows every state there ever was: objects come, change and go, removals are
//! forgotten, queens restart, and watchers of every kind read, pause, leave and come back.

mod state;
mod steps;
mod wishes;

use super::*;
use crate::fleet::{Measured, object};
use crate::histories::{Client, History, Lens, Log, Object as Seen, check, no_repeats, reached, revision};
use common::columns::Quanta;
use common::told::Told;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::watch_response::Event;
use proto::{Bookmark, Freshness, Hive, SnapshotBegin, SnapshotEnd, SnapshotReason};
use proto::{Update, WatchResponse, Worker, WorkerSpec};
use state::{State, seen, stats, worker_name};
use std::collections::BTreeMap;
use steps::{Step, step};
use wishes::{WISHES, lens, wanted};

/// Cases in the short form, and with `LONG=1`.
const CASES: (u32, u32) = (100, 20_000);
/// Watchers in each case, one for each wish and a second one for some.
const WATCHERS: usize = 13;
/// Fewer objects than change between two looks.
const FEW: u64 = 5;
/// Far more than everything there is takes.
const PAGES: usize = 10_000;
/// So many workers that come and go make the index forget.
const CHURN: u32 = TOMBSTONES_MIN as u32 + 40;

struct Reader {
    wish: usize,
    class: Option<Arc<Class>>,
    place: Place,
    history: History,
    told: Told,
    open: bool,
    in_snapshot: bool,
}

struct Model {
    feed: Feed,
    runs: u32,
    now: Instant,
    keys: BTreeMap<String, Key>,
    objects: BTreeMap<String, State>,
    beats: BTreeMap<String, Key>,
    log: Log,
    readers: Vec<Reader>,
}

impl Model {
    fn new() -> Self {
        let feed = feed(0);
        let reader = |index: usize| Reader {
            wish: index % WISHES,
            class: None,
            place: feed.start(),
            history: History::default(),
            told: Told::default(),
            open: false,
            in_snapshot: false,
        };
        let readers = (0..WATCHERS).map(reader).collect();
        let (keys, objects, beats) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { feed, runs: 1, now: Instant::now(), keys, objects, beats, log: Log::default(), readers }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put { name, model, state, cpu } => self.put_worker(name.into(), model, state, cpu),
            Step::Sample { name, cpu } => self.sample(name.into(), cpu),
            Step::Remove { name } if name < 8 => self.remove(&worker_name(name.into())),
            Step::Remove { name } => self.remove(&format!("h{}", name - 8)),
            Step::Hive { name, hostname } => {
                let hive = Hive { id: format!("h{name}"), hostname: hostname.to_string(), ..Hive::default() };
                self.put(&hive.id.clone(), State::Hive(hive));
            }
            Step::Beat { name } => {
                let hive = format!("h{name}");
                let beat = Beat { hive: &Arc::from(&*hive), sampled_at: None, sequence: 0, epoch: 0 };
                let key = self.feed.write(self.now).beat(self.beats.get(&hive).copied(), &beat);
                self.beats.insert(hive, key);
            }
            Step::Churn => (100..100 + CHURN).for_each(|name| {
                self.put_worker(name, 0, 2, 0);
                self.remove(&worker_name(name));
            }),
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.feed.forget(self.now);
            }
            Step::Read { watcher, pages, bytes } => {
                for _ in 0..pages {
                    self.read(watcher, bytes);
                }
            }
            Step::Bookmark { watcher } => self.bookmark(watcher),
            Step::Open { watcher, wish } => {
                self.judge(watcher);
                let reader = &mut self.readers[watcher];
                (reader.wish, reader.history, reader.told) = (wish, History::default(), Told::default());
                self.open(watcher);
            }
            Step::Resume { watcher } => self.open(watcher),
            Step::List { watcher, name, model } => self.list(watcher, u32::from(name), model),
            Step::Restart { lost } => self.restart(lost),
        }
    }

    fn put_worker(&mut self, name: u32, model: u8, state: i32, cpu: u8) {
        let spec = WorkerSpec {
            hive: format!("h{}", name % 2),
            group: "g".into(),
            instance: name.to_string(),
            model: Some(["a", "b", "c"][usize::from(model)].into()),
            ..WorkerSpec::default()
        };
        let spec = Arc::new(Spec::of(&spec));
        self.put(&worker_name(name), State::Worker { spec, state, stats: stats(name, cpu) });
    }

    /// Nothing of a worker changes but its numbers.
    fn sample(&mut self, name: u32, cpu: u8) {
        let Some(State::Worker { spec, state, .. }) = self.objects.get(&worker_name(name)).cloned() else { return };
        self.put(&worker_name(name), State::Worker { spec, state, stats: stats(name, cpu) });
    }

    fn put(&mut self, name: &str, state: State) {
        let key = self.keys.get(name).copied();
        let before = self.objects.get(name);
        let mut writer = self.feed.write(self.now);
        let key = match &state {
            State::Worker { spec, state, stats } => {
                let same = matches!(before, Some(State::Worker { spec: s, state: t, .. }) if s == spec && t == state);
                let (freshness, held, refiltered) = (Freshness::Live, None, !same);
                let measured = Measured::of(Quanta::of(stats), stats.clone());
                let news = News { spec, stats: Some(&measured), state: *state, freshness, held, refiltered };
                writer.put_worker(key, &news)
            }
            State::Hive(hive) => {
                let subject = Subject::Hive { id: Arc::from(name) };
                writer.put(key, subject, object::hive(hive), before.is_none())
            }
        };
        drop(writer);
        self.keys.insert(name.to_owned(), key);
        let seen = seen(&state);
        self.objects.insert(name.to_owned(), state);
        self.log.note(self.feed.instance(), self.feed.revision(), name, Some(seen));
    }

    fn remove(&mut self, name: &str) {
        if let Some(key) = self.keys.remove(name) {
            self.objects.remove(name);
            self.feed.write(self.now).remove(key);
            self.log.note(self.feed.instance(), self.feed.revision(), name, None);
        }
    }

    /// Another queen, which hears of the same objects but some.
    fn restart(&mut self, lost: u8) {
        self.feed = feed(self.runs);
        self.runs += 1;
        self.keys.clear();
        self.beats.clear();
        for (number, (name, state)) in std::mem::take(&mut self.objects).into_iter().enumerate() {
            if number >= 8 || lost & (1 << number) == 0 {
                self.put(&name, state);
            }
        }
        self.readers.iter_mut().for_each(|reader| reader.open = false);
    }

    fn say(&mut self, watcher: usize, event: Event) {
        self.readers[watcher].hear(WatchResponse { event: Some(event) });
    }

    fn begin(&mut self, watcher: usize, reason: SnapshotReason) {
        let reader = &mut self.readers[watcher];
        (reader.place, reader.in_snapshot) = (self.feed.start(), true);
        self.say(watcher, Event::SnapshotBegin(SnapshotBegin { reason: reason.into() }));
    }

    /// Opens, after the last revision that was read.
    fn open(&mut self, watcher: usize) {
        let after = self.readers[watcher].history.client().revision;
        self.open_after(watcher, &after);
    }

    fn open_after(&mut self, watcher: usize, after: &str) {
        let reader = &mut self.readers[watcher];
        reader.history.ended(Duration::ZERO);
        reader.history.opened(Duration::ZERO, after);
        (reader.open, reader.in_snapshot, reader.class) = (true, false, None);
        reader.class = self.feed.class(wanted(reader.wish)).unwrap();
        match revision(after) {
            None => self.begin(watcher, SnapshotReason::Initial),
            Some((instance, _)) if instance != self.feed.instance() => {
                self.begin(watcher, SnapshotReason::QueenRestarted);
            }
            Some(_) => match self.feed.resume(Revision::parse(after.split_once(':').unwrap().1).unwrap()) {
                Some(place) => self.readers[watcher].place = place,
                None => self.begin(watcher, SnapshotReason::Compacted),
            },
        }
    }

    /// Lists everything instead of watching, and goes on from there. A list takes its time: while it is read, a worker
    /// changes.
    fn list(&mut self, watcher: usize, name: u32, model: u8) {
        self.judge(watcher);
        let (wish, began) = (self.readers[watcher].wish, self.feed.name_tip());
        self.put_worker(name, model, 2, 1);
        self.readers[watcher].history = History::default();
        let lens = |object: &Seen| lens(wish, object);
        let end = self.feed.name_tip();
        let mut update = Update { revision: end.clone(), ..Update::default() };
        for object in self.log.last(self.feed.instance(), &lens).into_values() {
            match object {
                Seen::Worker(worker) => {
                    let key = self.keys[&Seen::Worker(worker.clone()).name()];
                    update.workers.push(Worker { slot: slot(key), ..*worker });
                }
                Seen::Hive(hive) => update.hives.push(*hive),
            }
        }
        self.readers[watcher].history.opened(Duration::ZERO, "");
        self.say(watcher, Event::SnapshotBegin(SnapshotBegin { reason: SnapshotReason::Initial.into() }));
        self.say(watcher, Event::Update(update));
        self.say(watcher, Event::SnapshotEnd(SnapshotEnd { revision: end }));
        self.open_after(watcher, &began);
    }

    fn bookmark(&mut self, watcher: usize) {
        let reader = &self.readers[watcher];
        if reader.open && !reader.in_snapshot {
            let revision = self.feed.name_revision(reader.place.revision());
            self.say(watcher, Event::Bookmark(Bookmark { revision, ..Bookmark::default() }));
        }
    }

    /// Reads one page as a watcher does; whether there is more.
    fn read(&mut self, watcher: usize, bytes: usize) -> bool {
        let reader = &mut self.readers[watcher];
        if !reader.open {
            return false;
        }
        match self.feed.read(self.now, &mut reader.place, reader.class.as_deref(), bytes) {
            Read::Behind => {
                self.begin(watcher, SnapshotReason::FellBehind);
                true
            }
            Read::Page { message, more, later } => {
                if let Some(message) = message {
                    reader.hear(message.read());
                }
                if !more && std::mem::take(&mut reader.in_snapshot) {
                    reader.place.end_snapshot();
                    let revision = self.feed.name_revision(reader.place.revision());
                    self.say(watcher, Event::SnapshotEnd(SnapshotEnd { revision }));
                }
                more || later
            }
        }
    }

    /// Everything that can be said of a history so far.
    fn judge(&self, watcher: usize) {
        let reader = &self.readers[watcher];
        let lens: Lens<'_> = &|object: &Seen| lens(reader.wish, object);
        let found = check(&reader.history, &self.log, lens);
        // Without a mask, and without the bytes of what was told before, a watcher is told of what changed, be it as it was.
        let unmasked = [0, 6, 7].contains(&reader.wish);
        let found = if unmasked { found } else { found.and_then(|()| no_repeats(&reader.history)) };
        found.unwrap_or_else(|fault| panic!("watcher {watcher}, wish {}: {fault}", reader.wish));
    }

    /// Lets everybody read to the end, and judges.
    fn finish(&mut self) {
        // What others were given a moment ago is not given any more.
        self.now += Duration::from_secs(1);
        for watcher in 0..WATCHERS {
            if !self.readers[watcher].open {
                self.open(watcher);
            }
            let pages = (0..PAGES).take_while(|_| self.read(watcher, 700)).count();
            assert!(pages < PAGES, "watcher {watcher}, wish {}: there is no end", self.readers[watcher].wish);
            self.judge(watcher);
            let reader = &self.readers[watcher];
            let lens: Lens<'_> = &|object: &Seen| lens(reader.wish, object);
            let last = self.log.last(self.feed.instance(), lens);
            reached(&reader.history, &last)
                .unwrap_or_else(|fault| panic!("watcher {watcher}, wish {}: {fault}", reader.wish));
        }
    }
}

/// The index of one run of a queen. Every other one looks at few objects for one page, so that classes are behind it.
fn feed(run: u32) -> Feed {
    let feed = Feed::new(format!("q{run}"), WISHES);
    feed.lock().scan = if run.is_multiple_of(2) { FEW } else { SCAN };
    feed
}

impl Reader {
    fn hear(&mut self, mut message: WatchResponse) {
        self.told.take(&mut message).unwrap();
        self.history.heard(Duration::ZERO, message);
    }
}

#[test]
fn what_came_back_between_two_pages_is_told_with_the_states_that_were_passed_over() {
    let mut model = Model::new();
    let read = |watcher, pages, bytes| Step::Read { watcher, pages, bytes };
    let hive = || Step::Hive { name: 0, hostname: 0 };
    let put = |name| Step::Put { name, model: 0, state: 1, cpu: 0 };
    let steps = [hive(), Step::Resume { watcher: 3 }, Step::Open { watcher: 1, wish: 3 }, Step::Churn, read(1, 2, 150)];
    let later = [Step::Remove { name: 8 }, put(0), put(1), read(3, 2, 150), hive(), read(1, 1, 150)];
    steps.into_iter().chain(later).for_each(|step| model.take(step));
    model.finish();
}

#[test]
fn a_removal_that_was_forgotten_though_nothing_came_after_it_is_no_page_without_end() {
    for wish in 0..WISHES {
        let mut model = Model::new();
        let hive = |name| Step::Hive { name, hostname: 0 };
        let forgotten = [hive(0), hive(1), Step::Remove { name: 9 }, Step::Wait { seconds: 700 }];
        forgotten.into_iter().for_each(|step| model.take(step));
        model.take(Step::Open { watcher: 0, wish });
        model.finish();
    }
}

#[test]
fn who_resumes_in_small_pages_is_told_of_what_left_his_filter_before_the_first_of_them() {
    let mut model = Model::new();
    let put = |name, model, cpu| Step::Put { name, model, state: 2, cpu };
    let read = |pages| Step::Read { watcher: 0, pages, bytes: 150 };
    let before = [put(0, 0, 0), Step::Open { watcher: 0, wish: 1 }, read(4)];
    // It leaves the filter, others come, and then it changes again: its newest revision is behind the first page.
    let after = [put(0, 1, 0), put(2, 0, 0), put(4, 0, 0), put(6, 0, 0), put(0, 1, 1)];
    before.into_iter().chain(after).chain([Step::Resume { watcher: 0 }, read(9)]).for_each(|step| model.take(step));
    model.finish();
}

#[test]
fn who_reads_in_small_pages_is_told_of_more_than_numbers_that_changed_before_the_first_of_them() {
    let mut model = Model::new();
    let put = |name, state| Step::Put { name, model: 0, state, cpu: 0 };
    let open = |watcher| Step::Open { watcher, wish: 6 };
    let read = |watcher, pages| Step::Read { watcher, pages, bytes: 150 };
    let before = [put(0, 1), put(2, 1), put(4, 1), put(6, 1), open(0), open(1), read(0, 9), read(1, 9)];
    // One reads the new state, then only numbers change: its newest revision is behind the other one's first page.
    let after = [put(0, 2), read(0, 9), put(2, 2), put(4, 2), put(6, 2), Step::Sample { name: 0, cpu: 1 }];
    // What the other one was told a moment ago would be told again as it is.
    let later = [Step::Wait { seconds: 1 }, read(1, 9)];
    before.into_iter().chain(after).chain(later).for_each(|step| model.take(step));
    model.finish();
}

#[test]
fn what_its_class_has_not_looked_at_again_is_told_to_nobody_as_it_is_now() {
    let mut model = Model::new();
    let put = |name, state| Step::Put { name, model: 0, state, cpu: 0 };
    let open = |watcher| Step::Open { watcher, wish: 6 };
    let read = |watcher, pages| Step::Read { watcher, pages, bytes: 900 };
    (0..8).for_each(|name| model.take(put(name, 1)));
    [open(0), open(1), read(0, 9), read(1, 9), put(0, 2), read(0, 9)].into_iter().for_each(|step| model.take(step));
    // More than a class looks at for one page, and then what one has read already and the other has not.
    (1..8).for_each(|name| model.take(put(name, 2)));
    let after = [Step::Sample { name: 0, cpu: 1 }, Step::Wait { seconds: 1 }, read(1, 9)];
    after.into_iter().for_each(|step| model.take(step));
    model.finish();
}

#[test]
fn w1_to_w7_hold_whatever_happens() {
    let cases = if std::env::var_os("LONG").is_some() { CASES.1 } else { CASES.0 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let steps = proptest::collection::vec(step(), 1..160);
    let ran = TestRunner::new(config).run(&steps, |steps| {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.take(step));
        model.finish();
        Ok(())
    });
    ran.unwrap();
    assert_eq!(Client::default().revision, "");
}
