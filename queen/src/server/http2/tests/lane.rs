//! Lanes, with connections that only take note of what is asked of them.

use super::peer::PATIENCE;
use crate::server::http2::seats::SEATS;
use crate::server::http2::{Bells, Carried, Gone, Lanes, Turn};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::coop;
use tokio::time::{Instant, timeout};

/// More than one lane has seats for.
const MANY: usize = 600;
/// So often each of two rings.
const RINGS: usize = 20_000;

/// What a connection was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Work { readable: bool },
    Tell,
    Leave,
    Ended { well: bool },
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Waits,
    Ends,
    Panics,
    Rings,
    AlwaysRings,
}

/// What it does the next time, and when it wants to work.
type Behaviour = Arc<Mutex<(Does, Instant)>>;

struct Noting {
    number: usize,
    does: Behaviour,
    bells: Bells,
    notes: UnboundedSender<(usize, Asked)>,
}

impl Noting {
    fn act(&mut self, asked: Asked, turn: &Turn<'_>, acts: bool) -> Poll<Result<(), Gone>> {
        self.notes.send((self.number, asked)).unwrap();
        let (does, due) = &mut *self.does.lock().unwrap();
        if *due <= turn.now {
            *due = far();
        }
        match std::mem::replace(does, if acts { Does::Waits } else { *does }) {
            Does::Ends if acts => Poll::Ready(Ok(())),
            Does::Panics if acts => {
                *does = Does::Waits;
                std::panic::resume_unwind(Box::new("as it was asked to"))
            }
            Does::Rings if acts => {
                self.bells.run.wake_by_ref();
                Poll::Pending
            }
            Does::AlwaysRings if acts => {
                *does = Does::AlwaysRings;
                self.bells.run.wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }
}

impl Carried for Noting {
    fn work(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        self.act(Asked::Work { readable: turn.readable }, turn, self.number.is_multiple_of(2))
    }

    fn tell(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        self.act(Asked::Tell, turn, !self.number.is_multiple_of(2))
    }

    fn due(&self) -> Instant {
        self.does.lock().unwrap().1
    }

    fn leave(&mut self) {
        self.notes.send((self.number, Asked::Leave)).unwrap();
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(1_000_000)
}

/// Lanes, those whom they carry, and what these were asked.
struct Test {
    lanes: Lanes,
    carried: Vec<(Bells, Behaviour)>,
    notes: UnboundedReceiver<(usize, Asked)>,
    sender: UnboundedSender<(usize, Asked)>,
}

impl Test {
    /// So many, each of which has worked once, because there might have been something to be read.
    async fn new(count: usize) -> Self {
        let (sender, notes) = unbounded_channel();
        let mut test = Self { lanes: Lanes::new(Instant::now()), carried: Vec::new(), notes, sender };
        for _ in 0..count {
            test.add();
        }
        let mut noted = test.noted(2 * count).await;
        noted.sort_by_key(|(number, asked)| (*number, *asked == Asked::Tell));
        let each = |number| [(number, Asked::Work { readable: true }), (number, Asked::Tell)];
        assert_eq!(noted, (0..count).flat_map(each).collect::<Vec<_>>());
        test
    }

    fn add(&mut self) {
        self.add_due(far());
    }

    /// One that wants to work then.
    fn add_due(&mut self, due: Instant) {
        let (number, notes) = (self.carried.len(), self.sender.clone());
        let (ended, does) = (notes.clone(), Arc::new(Mutex::new((Does::Waits, due))));
        let mut bells = None;
        let connection = |given: &Bells| {
            bells = Some(given.clone());
            Noting { number, does: does.clone(), bells: given.clone(), notes }
        };
        self.lanes.carry(connection, move |how| {
            assert!(matches!(how, Ok(()) | Err(Gone::Fault)));
            ended.send((number, Asked::Ended { well: how.is_ok() })).unwrap();
        });
        self.carried.push((bells.unwrap(), does));
    }

    fn does(&self, number: usize, does: Does) {
        self.carried[number].1.lock().unwrap().0 = does;
        self.carried[number].0.run.wake_by_ref();
    }

    /// The next so many notes.
    async fn noted(&mut self, count: usize) -> Vec<(usize, Asked)> {
        let mut noted = Vec::new();
        while noted.len() < count {
            noted.push(timeout(PATIENCE, self.notes.recv()).await.expect("in time").unwrap());
        }
        noted
    }

    /// Nothing was noted besides what was looked at, although every lane has had its turn.
    async fn nothing_else(&mut self) {
        for (bells, _) in &self.carried {
            bells.run.wake_by_ref();
        }
        let noted = self.noted(2 * self.carried.len()).await;
        assert!(noted.iter().all(|(_, asked)| [Asked::Work { readable: false }, Asked::Tell].contains(asked)));
        for number in 0..self.carried.len() {
            assert_eq!(noted.iter().filter(|(of, _)| *of == number).count(), 2, "{number}");
        }
    }
}

#[tokio::test]
async fn only_those_who_were_woken_work_and_know_whether_there_is_something_to_be_read() {
    let mut test = Test::new(MANY).await;
    test.carried[7].0.run.wake_by_ref();
    assert_eq!(test.noted(2).await, [(7, Asked::Work { readable: false }), (7, Asked::Tell)]);
    test.carried[200].0.run.wake_by_ref();
    test.carried[200].0.read.wake_by_ref();
    assert_eq!(test.noted(2).await, [(200, Asked::Work { readable: true }), (200, Asked::Tell)]);
    test.nothing_else().await;
}

#[tokio::test]
async fn who_rings_for_itself_while_it_works_or_tells_works_again() {
    let mut test = Test::new(2).await;
    for number in [0, 1] {
        test.does(number, Does::Rings);
        let turn = [(number, Asked::Work { readable: false }), (number, Asked::Tell)];
        assert_eq!(test.noted(4).await, [turn, turn].concat());
    }
    test.nothing_else().await;
}

#[tokio::test]
async fn a_lane_in_which_there_is_always_something_to_do_leaves_others_their_turn() {
    let mut test = Test::new(1).await;
    test.does(0, Does::AlwaysRings);
    // This task and the lane have one thread: it would not come back from here.
    test.noted(100).await;
    test.does(0, Does::Ends);
    while test.noted(1).await != [(0, Asked::Ended { well: true })] {}
}

/// A connection that counts its turns.
struct Counting {
    turns: Arc<AtomicU64>,
}

impl Carried for Counting {
    fn work(&mut self, _: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        Poll::Pending
    }

    fn tell(&mut self, _: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        Poll::Pending
    }

    fn due(&self) -> Instant {
        far()
    }

    fn leave(&mut self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_rings_has_a_turn_however_that_meets_the_end_of_another() {
    let lanes = Lanes::new(Instant::now());
    let ringing = [(); 2].map(|()| {
        let (turns, mut bells) = (Arc::new(AtomicU64::new(0)), None);
        let connection = |given: &Bells| {
            bells = Some(given.clone());
            Counting { turns: turns.clone() }
        };
        lanes.carry(connection, |_| {});
        let bells = bells.unwrap();
        tokio::task::spawn_blocking(move || {
            for _ in 0..RINGS {
                let (before, began) = (turns.load(Ordering::Relaxed), Instant::now());
                bells.run.wake_by_ref();
                while turns.load(Ordering::Relaxed) == before {
                    assert!(began.elapsed() < PATIENCE, "nobody came");
                    std::thread::yield_now();
                }
            }
        })
    });
    for ringing in ringing {
        ringing.await.unwrap();
    }
}

#[tokio::test]
async fn all_of_a_lane_work_before_the_first_one_tells() {
    // There is one processor, so that all of them sit in one lane.
    let mut test = Test::new(11).await;
    let lane = 1..=10;
    lane.clone().for_each(|number| test.does(number, Does::Waits));
    let noted = test.noted(20).await;
    assert!(noted.iter().all(|(number, _)| lane.clone().any(|of| of == *number)), "{noted:?}");
    assert!(noted[..10].iter().all(|(_, asked)| *asked != Asked::Tell), "{noted:?}");
    assert!(noted[10..].iter().all(|(_, asked)| *asked == Asked::Tell), "{noted:?}");
}

#[tokio::test]
async fn who_ends_or_panics_is_the_only_one_who_is_gone_and_its_seat_is_taken_by_the_next() {
    let mut test = Test::new(MANY).await;
    let lanes = test.lanes.count();
    assert_eq!(lanes, MANY.div_ceil(SEATS as usize));
    for (number, does, well) in
        [(10, Does::Ends, true), (11, Does::Ends, true), (12, Does::Panics, false), (13, Does::Panics, false)]
    {
        test.does(number, does);
        let mut expected = vec![(number, Asked::Work { readable: false })];
        if number % 2 == 1 {
            expected.push((number, Asked::Tell));
        }
        expected.push((number, Asked::Ended { well }));
        assert_eq!(test.noted(expected.len()).await, expected);
        test.add();
        let next = test.carried.len() - 1;
        assert_eq!(test.noted(2).await, [(next, Asked::Work { readable: true }), (next, Asked::Tell)]);
    }
    assert_eq!(test.lanes.count(), lanes);
    // A bell of somebody who is gone harms nobody.
    test.carried[10].0.read.wake_by_ref();
    test.carried[599].0.run.wake_by_ref();
    let woken = test.noted(2).await;
    assert!(woken.iter().all(|(number, _)| *number == 599 || *number >= MANY), "{woken:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_due_comes_due_without_being_woken_and_never_early() {
    let mut test = Test::new(3).await;
    let began = Instant::now();
    let due = began + Duration::from_millis(1_234);
    test.add_due(due);
    assert_eq!(test.noted(2).await, [(3, Asked::Work { readable: true }), (3, Asked::Tell)]);
    assert_eq!(test.noted(2).await, [(3, Asked::Work { readable: false }), (3, Asked::Tell)]);
    let took = began.elapsed();
    assert!(took >= due - began && took <= due - began + Duration::from_millis(101), "{took:?}");
    test.nothing_else().await;
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_work_sooner_than_before_comes_due_then() {
    let mut test = Test::new(3).await;
    let began = Instant::now();
    for due in [5_000, 1_234].map(|ms| began + Duration::from_millis(ms)) {
        test.carried[1].1.lock().unwrap().1 = due;
        test.carried[1].0.run.wake_by_ref();
        assert_eq!(test.noted(2).await, [(1, Asked::Work { readable: false }), (1, Asked::Tell)]);
    }
    assert_eq!(test.noted(2).await, [(1, Asked::Work { readable: false }), (1, Asked::Tell)]);
    let took = began.elapsed();
    assert!((1_234..=1_335).contains(&took.as_millis()), "{took:?}");
    test.nothing_else().await;
}

/// A connection that is due each second, and does then what counts against what its task may do in one go.
struct Spending {
    due: Instant,
    notes: UnboundedSender<Instant>,
}

impl Carried for Spending {
    fn work(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        let cx = &mut Context::from_waker(&turn.bells.run);
        if self.due <= turn.now && pin!(coop::consume_budget()).poll(cx).is_ready() {
            self.due += Duration::from_secs(1);
            self.notes.send(turn.now).unwrap();
        }
        Poll::Pending
    }

    fn tell(&mut self, _: &mut Turn<'_>) -> Poll<Result<(), Gone>> {
        Poll::Pending
    }

    fn due(&self) -> Instant {
        self.due
    }

    fn leave(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn more_than_a_task_may_do_in_one_go_come_due_together_and_again() {
    let (began, (sender, mut notes)) = (Instant::now(), unbounded_channel());
    let (lanes, seats) = (Lanes::new(began), SEATS as usize);
    for _ in 0..seats {
        let notes = sender.clone();
        lanes.carry(|_| Spending { due: began + Duration::from_secs(1), notes }, |_| {});
    }
    for second in 1..=5 {
        for _ in 0..seats {
            let then = timeout(PATIENCE, notes.recv()).await.expect("in time").unwrap();
            assert_eq!((then - began).as_secs(), second);
        }
    }
}

#[tokio::test]
async fn all_are_told_to_leave_and_so_are_those_who_come_later() {
    let mut test = Test::new(MANY).await;
    test.lanes.leave();
    let noted = test.noted(3 * MANY).await;
    assert_eq!(noted.iter().filter(|(_, asked)| *asked == Asked::Leave).count(), MANY);
    test.add();
    let late = test.noted(3).await;
    assert_eq!(late, [Asked::Leave, Asked::Work { readable: true }, Asked::Tell].map(|asked| (MANY, asked)));
    assert!(timeout(Duration::ZERO, test.lanes.empty()).await.is_err());
    for number in 0..=MANY {
        test.does(number, Does::Ends);
    }
    timeout(PATIENCE, test.lanes.empty()).await.expect("in time");
}

#[tokio::test]
async fn those_who_stay_are_dropped_at_the_end() {
    let mut test = Test::new(MANY).await;
    test.lanes.leave();
    test.noted(3 * MANY).await;
    test.lanes.end().await;
    assert!(test.carried.iter().all(|(_, does)| Arc::strong_count(does) == 1));
    timeout(PATIENCE, test.lanes.empty()).await.expect("in time");
}
