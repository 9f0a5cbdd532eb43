//! A whole queen without sockets: hives report, fall silent and come back, queens restart, and real watchers send to
//! clients that read, sleep, leave and return. What the clients heard goes through the checkers.

use super::tests::{heard, shared};
use super::*;
use crate::fleet::feed::{Place, Read, Why};
use crate::fleet::sample::{Session, cpu, hive, row};
use crate::histories::{Client, History, Lens, Log, Moment, Object, bookmarks, check, no_repeats, reached};
use bytes::Bytes;
use common::told::Told;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::push_telemetry_request::Frame;
use proto::{Batch, Hive, ProcessStats, Worker, WorkerSpec};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Cases in the short form, and with `LONG=1`.
const CASES: (u32, u32) = (60, 5_000);
const HIVES: usize = 3;
const WATCHERS: usize = 8;
/// More than anybody opens: a stream that was left gives its place back a little later.
const PLACES: usize = 1_000;
/// Nothing more comes: twice what the slowest interval waits.
const QUIET: Duration = Duration::from_secs(2);
/// More than the last state of a small fleet takes.
const MESSAGES: usize = 200;

#[derive(Debug, Clone)]
enum Step {
    /// A snapshot of the workers whose bits are set.
    Report {
        hive: usize,
        workers: u8,
        model: u8,
        percent: u8,
    },
    /// An empty difference.
    Beat {
        hive: usize,
    },
    /// The stream breaks.
    Break {
        hive: usize,
    },
    /// Time passes, and nobody says anything.
    Silence {
        seconds: u64,
    },
    Read {
        watcher: usize,
        messages: usize,
    },
    Open {
        watcher: usize,
        wish: usize,
    },
    /// Comes back with what it wished before.
    Resume {
        watcher: usize,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (hive, watcher) = (0..HIVES, 0..WATCHERS);
    prop_oneof![
        8 => (hive.clone(), any::<u8>(), 0..2_u8, 0..3_u8)
            .prop_map(|(hive, workers, model, percent)| Step::Report { hive, workers, model, percent }),
        2 => hive.clone().prop_map(|hive| Step::Beat { hive }),
        1 => hive.prop_map(|hive| Step::Break { hive }),
        1 => (1..100_u64).prop_map(|seconds| Step::Silence { seconds }),
        8 => (watcher.clone(), 1..5_usize).prop_map(|(watcher, messages)| Step::Read { watcher, messages }),
        1 => (watcher.clone(), 0..WISHES).prop_map(|(watcher, wish)| Step::Open { watcher, wish }),
        4 => watcher.prop_map(|watcher| Step::Resume { watcher }),
        1 => Just(Step::Restart),
    ]
}

const WISHES: usize = 7;

fn request(wish: usize, resume_after: &str) -> WatchRequest {
    let base = WatchRequest { resume_after: resume_after.into(), ..WatchRequest::default() };
    let fields =
        |paths: &[&str]| Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
    let base = WatchRequest { columns: plain(wish) != wish, ..base };
    match plain(wish) {
        0 => base,
        1 => WatchRequest { min_interval: Some(common::duration(Duration::from_millis(50))), ..base },
        2 => WatchRequest { filter: Some(Filter { model: "a".into(), ..Filter::default() }), ..base },
        _ => WatchRequest { fields: fields(&["workers.stats.cpu_pct"]), ..base },
    }
}

/// The wish for the same without columns.
fn plain(wish: usize) -> usize {
    match wish {
        4 => 0,
        5 => 2,
        6 => 3,
        plain => plain,
    }
}

fn lens(wish: usize, object: &Object) -> Option<Object> {
    match (plain(wish), object) {
        (2, Object::Worker(worker)) if worker.spec.as_ref()?.model.as_deref() != Some("a") => None,
        (3, Object::Worker(worker)) => {
            let spec = worker.spec.clone()?;
            let (hive, group, instance) = (spec.hive, spec.group, spec.instance);
            let stats = worker.stats.as_ref();
            Some(Object::Worker(Box::new(Worker {
                spec: Some(WorkerSpec { hive, group, instance, ..WorkerSpec::default() }),
                stats: stats.map(|stats| ProcessStats { cpu_pct: stats.cpu_pct, ..ProcessStats::default() }),
                ..Worker::default()
            })))
        }
        (3, Object::Hive(hive)) => Some(Object::Hive(Box::new(Hive { id: hive.id.clone(), ..Hive::default() }))),
        _ => Some(object.clone()),
    }
}

struct Watching {
    wish: usize,
    stream: Option<Messages>,
    told: Told,
    client: Client,
    history: History,
    began: tokio::time::Instant,
}

impl Watching {
    fn note(&mut self, moment: Moment) {
        self.client.take(&moment);
        self.history.note(self.began.elapsed(), moment);
    }

    fn open(&mut self, shared: &Shared, wish: usize) {
        if wish != self.wish {
            (self.wish, self.client, self.history) = (wish, Client::default(), History::default());
            self.told = Told::default();
        }
        let after = self.client.revision.clone();
        self.note(Moment::Ended);
        self.note(Moment::Opened(after.clone()));
        self.stream = Some(open(shared, request(wish, &after)).unwrap());
    }

    /// Reads one message; false when none came for a while, or the stream ended.
    async fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        match timeout(QUIET, heard(stream)).await {
            Ok(Some(Ok(mut message))) => {
                self.told.take(&mut message).unwrap();
                self.note(Moment::Heard(Box::new(message)));
                true
            }
            Ok(_) => {
                self.note(Moment::Ended);
                self.stream = None;
                false
            }
            Err(_) => false,
        }
    }

    fn judge(&self, log: &Log) {
        let shown: Lens<'_> = &|object: &Object| lens(self.wish, object);
        let found = check(&self.history, log, shown);
        // Without a mask, columns are told of every change, be it back to what was.
        let found =
            if plain(self.wish) < 2 || self.wish == 5 { found } else { found.and_then(|()| no_repeats(&self.history)) };
        found.unwrap_or_else(|fault| panic!("wish {}: {fault}", self.wish));
    }
}

/// One run of a queen, and one who has read every state of it.
struct Run {
    shared: Shared,
    bookmarks: watch::Sender<Bytes>,
    witness: Place,
    seen: Client,
}

impl Run {
    fn start(number: u32, now: Instant) -> Self {
        let (shared, bookmarks) = shared(&format!("q{number}"), now, PLACES);
        tokio::spawn(rhythm::keep(shared.clone()));
        let witness = shared.fleet.feed().start();
        Self { shared, bookmarks, witness, seen: Client::default() }
    }

    /// Notes everything that is new. Nobody reads between a step and this.
    fn note(&mut self, log: &mut Log) {
        let feed = self.shared.fleet.feed();
        // Far enough ahead that no page is shared.
        let now = Instant::now() + Duration::from_secs(1_000);
        while let Read::Page { message: Some(message), more, .. } = feed.read(now, &mut self.witness, None, usize::MAX)
        {
            let before = self.seen.objects.clone();
            self.seen.take(&Moment::Heard(Box::new(message.read())));
            let revision = self.witness.cursor();
            let gone = before.keys().filter(|name| !self.seen.objects.contains_key(*name));
            gone.for_each(|name| log.note(feed.instance(), revision, name, None));
            for (name, object) in &self.seen.objects {
                if before.get(name) != Some(object) {
                    log.note(feed.instance(), revision, name, Some(object.clone()));
                }
            }
            if !more {
                break;
            }
        }
    }
}

/// What the hives say; their sessions with the present queen by number.
struct Hives {
    now: Instant,
    sessions: BTreeMap<usize, (String, u64, Instant)>,
    last: BTreeMap<usize, Vec<proto::WorkerRow>>,
}

impl Hives {
    /// One frame, in a session of its own if there is none. A refusal ends the session.
    fn say(&mut self, run: &Run, number: usize, frame: Frame) {
        let fleet = &*run.shared.fleet;
        let mut session = match self.sessions.remove(&number) {
            Some((session, sequence, opened)) => Session { fleet, session, sequence, opened },
            None => {
                let mut session = Session::open(fleet, hive(&format!("h{number}")), self.now).unwrap();
                let rows = self.last.get(&number).cloned().unwrap_or_default();
                session.snapshot(self.now, rows).unwrap();
                session
            }
        };
        let frame = session.frame(self.now, frame);
        if fleet.apply(self.now, frame).is_ok() {
            self.sessions.insert(number, (session.session, session.sequence, session.opened));
        }
    }

    fn report(&mut self, run: &Run, number: usize, workers: u8, model: u8, percent: u8) {
        let rows = (0..8).filter(|bit| workers & (1 << bit) != 0).map(|slot| {
            let mut row = row(&format!("h{number}"), slot, cpu(f64::from(percent)));
            // Workers change their model without changing their name.
            if let Some(spec) = &mut row.spec {
                spec.model = Some(if slot % 2 == u32::from(model) { "a" } else { "b" }.into());
            }
            // A slot is one worker's for the whole session.
            row.slot = slot + 1;
            row
        });
        let rows: Vec<_> = rows.collect();
        self.last.insert(number, rows.clone());
        self.say(run, number, Frame::Snapshot(proto::Snapshot { rows, last: true }));
    }
}

impl Hives {
    /// What the queen knows of the hives it hears from is what they said last.
    fn agree(&self, run: &Run) {
        for (number, rows) in self.last.iter().filter(|(number, _)| self.sessions.contains_key(number)) {
            let said = rows.iter().map(|row| (row.spec.clone(), row.state, row.stats.clone()));
            let known = run.seen.objects.values().filter_map(|object| match object {
                Object::Worker(worker) if worker.spec.as_ref()?.hive == format!("h{number}") => {
                    Some((worker.spec.clone(), worker.state, worker.stats.clone()))
                }
                _ => None,
            });
            assert_eq!(known.collect::<Vec<_>>(), said.collect::<Vec<_>>(), "h{number}");
        }
    }
}

async fn walk(steps: Vec<Step>) {
    let (mut log, mut runs) = (Log::default(), 1);
    let mut hives = Hives { now: Instant::now(), sessions: BTreeMap::new(), last: BTreeMap::new() };
    let mut run = Run::start(0, hives.now);
    let began = tokio::time::Instant::now();
    let watching = |wish: usize| Watching {
        wish: wish % WISHES,
        stream: None,
        told: Told::default(),
        client: Client::default(),
        history: History::default(),
        began,
    };
    let mut watchers: Vec<Watching> = (0..WATCHERS).map(watching).collect();
    for step in steps {
        hives.now += Duration::from_millis(100);
        match step {
            Step::Report { hive, workers, model, percent } => hives.report(&run, hive, workers, model, percent),
            Step::Beat { hive } => hives.say(&run, hive, Frame::Batch(Batch::default())),
            Step::Break { hive } => {
                if let Some((session, ..)) = hives.sessions.remove(&hive) {
                    run.shared.fleet.detach(hives.now, &session, false);
                }
            }
            Step::Silence { seconds } => {
                hives.now += Duration::from_secs(seconds);
                for gone in run.shared.fleet.expire(hives.now).removed {
                    hives.sessions.retain(|number, _| format!("h{number}") != gone.as_str());
                }
            }
            Step::Read { watcher, messages } => {
                for _ in 0..messages {
                    watchers[watcher].read().await;
                }
            }
            Step::Open { watcher, wish } => {
                watchers[watcher].judge(&log);
                watchers[watcher].open(&run.shared, wish);
            }
            Step::Resume { watcher } => {
                let wish = watchers[watcher].wish;
                watchers[watcher].open(&run.shared, wish);
            }
            Step::Restart => {
                run.shared.stopping.cancel();
                run = Run::start(runs, hives.now);
                (runs, hives.sessions) = (runs + 1, BTreeMap::new());
            }
        }
        run.note(&mut log);
    }
    hives.agree(&run);
    finish(&run, &log, &mut watchers).await;
}

/// Everybody reads to the end.
async fn finish(run: &Run, log: &Log, watchers: &mut [Watching]) {
    for watching in &mut *watchers {
        if watching.stream.is_none() || watching.client.revision.is_empty() {
            watching.open(&run.shared, watching.wish);
        }
        let mut messages = 0;
        while watching.read().await || watching.stream.is_none() {
            if watching.stream.is_none() {
                watching.open(&run.shared, watching.wish);
            }
            messages += 1;
            assert!(messages < MESSAGES, "it does not come to rest");
        }
        watching.judge(log);
        let shown: Lens<'_> = &|object: &Object| lens(watching.wish, object);
        let last = log.last(run.shared.fleet.feed().instance(), shown);
        reached(&watching.history, &last).unwrap_or_else(|fault| panic!("wish {}: {fault}", watching.wish));
    }
    // W4: all who are at the tip get the next one.
    run.bookmarks.send_replace(Bytes::new());
    run.shared.fleet.feed().wake_all(Why::Bookmark);
    for watching in watchers {
        assert!(watching.read().await, "a bookmark");
        bookmarks(&watching.history, Duration::from_secs(3_600)).unwrap();
    }
}

#[test]
fn w2_to_w7_hold_in_a_whole_queen() {
    let cases = if std::env::var_os("LONG").is_some() { CASES.1 } else { CASES.0 };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let steps = proptest::collection::vec(step(), 1..80);
    let ran = TestRunner::new(config).run(&steps, |steps| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(walk(steps));
        Ok(())
    });
    ran.unwrap();
}
