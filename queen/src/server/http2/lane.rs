//! A lane: many connections take turns in one task. What a hive says is told to hundreds of watchers, and a task for each of
//! them costs more than telling does: waking it, another processor that steals it, the way back to the same code. In a lane
//! everybody who was woken works first, then everybody writes, so that each of the two finds its code in the caches.

use super::connection::Gone;
use super::heart;
use super::seats::{SEATS, Seats, SharedSeats};
use atomic_waker::AtomicWaker;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A lane in which nobody sits looks at the clock this often.
const IDLE: Duration = Duration::from_secs(3_600);
/// So often it looks who was woken meanwhile before other tasks have their turn: what a hive says wakes its watchers …
const ROUNDS: usize = 3;
/// … but no more once it has been at work for so long.
const TURN: Duration = Duration::from_micros(500);

/// A connection in a lane.
pub trait Carried: Send {
    /// Takes in what has come and goes on as far as it can, without writing. Ready when it is over.
    fn work(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>>;
    /// Writes what there is to be said. Ready when it is over.
    fn tell(&mut self, turn: &mut Turn<'_>) -> Poll<Result<(), Gone>>;
    /// When it wants to work although nobody wakes it.
    fn due(&self) -> Instant;
    /// Is to take no further calls, and to be over when those that there are have ended.
    fn leave(&mut self);
}

/// One turn of a connection.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The time.
    pub now: Instant,
    /// There may be something to be read.
    pub readable: bool,
    /// What wakes it again.
    pub bells: &'a Bells,
    /// Room that it may use until its turn is over.
    pub desk: &'a mut Vec<u8>,
}

/// What wakes a connection.
#[derive(Debug, Clone)]
pub struct Bells {
    /// There is something to be read.
    pub read: Waker,
    /// Anything else.
    pub run: Waker,
}

/// What a lane and those who wake it have in common.
#[derive(Debug, Default)]
pub struct Lane {
    /// Where nobody sits.
    pub free: SharedSeats,
    /// Who was woken, and whose reading was.
    woken: SharedSeats,
    readable: SharedSeats,
    task: AtomicWaker,
    /// It is at work, and looks who was woken before it stops: nobody needs to wake it.
    busy: AtomicBool,
    leaving: AtomicBool,
    /// Who is about to sit down.
    arrivals: Mutex<Vec<(u32, Seat)>>,
}

impl Lane {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { free: SharedSeats::all(), ..Self::default() })
    }

    /// Carries those who sit in it. Whose looks at the clock come due at whole steps since `began`.
    pub fn run(self: Arc<Self>, began: Instant) -> impl Future<Output = ()> + Send {
        Running::new(self, began)
    }

    /// Has the connection that is made of its bells sit down.
    pub fn carry<C: Carried + 'static>(
        self: &Arc<Self>,
        seat: u32,
        connection: impl FnOnce(&Bells) -> C,
        ended: Ended,
        counted: TaskTrackerToken,
    ) {
        let bell = |reads| Waker::from(Arc::new(Bell { lane: Arc::clone(self), seat, reads }));
        let bells = Bells { read: bell(true), run: bell(false) };
        let carried = Box::new(connection(&bells));
        let (due, read) = (carried.due(), bells.read.clone());
        self.arrivals().push((seat, Seat { carried, bells, due, ended, _counted: counted }));
        read.wake();
    }

    fn wake(&self, seat: u32) {
        // When a neighbour was woken before and has not worked since, the lane will come by.
        if self.woken.add(seat) && !self.busy.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }

    /// Is at work until [`Lane::rests`].
    fn works(&self) {
        self.busy.store(true, Ordering::SeqCst);
    }

    /// Whether nobody was woken that it has not met. Whoever is woken from now on wakes it.
    fn rests(&self) -> bool {
        self.busy.swap(false, Ordering::SeqCst);
        self.woken.is_empty()
    }

    /// Has everybody leave who sits in it, and who sits down later.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.woken.fill();
        self.task.wake();
    }

    fn arrivals(&self) -> MutexGuard<'_, Vec<(u32, Seat)>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bell {
    lane: Arc<Lane>,
    seat: u32,
    reads: bool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.reads {
            self.lane.readable.add(self.seat);
        }
        self.lane.wake(self.seat);
    }
}

/// Hears how a connection ended.
pub type Ended = Box<dyn FnOnce(Result<(), Gone>) + Send>;

/// Where a connection sits.
struct Seat {
    carried: Box<dyn Carried>,
    bells: Bells,
    due: Instant,
    ended: Ended,
    _counted: TaskTrackerToken,
}

impl Seat {
    fn end(self, how: Result<(), Gone>) {
        drop(self.carried);
        (self.ended)(how);
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("due", &self.due).finish_non_exhaustive()
    }
}

/// Who was woken.
struct Woken {
    seats: Seats,
    readable: Seats,
    now: Instant,
}

/// The task of a lane.
struct Running {
    lane: Arc<Lane>,
    seats: Vec<Option<Seat>>,
    /// Whose turn comes first.
    first: u32,
    left: bool,
    /// Whose multiples count when it looks at the clock.
    began: Instant,
    clock: Pin<Box<Sleep>>,
    deadline: Instant,
    /// Somebody may be due before that.
    sooner: bool,
    desk: Vec<u8>,
}

impl Running {
    fn new(lane: Arc<Lane>, began: Instant) -> Self {
        let deadline = Instant::now() + IDLE;
        let (seats, clock) = ((0..SEATS).map(|_| None).collect(), Box::pin(sleep_until(deadline)));
        Self { lane, seats, first: 0, left: false, began, clock, deadline, sooner: false, desk: Vec::new() }
    }

    fn admit(&mut self) {
        let arrived = std::mem::take(&mut *self.lane.arrivals());
        self.sooner |= !arrived.is_empty();
        for (at, mut seat) in arrived {
            if self.left {
                seat.carried.leave();
            }
            self.seats[at as usize] = Some(seat);
        }
    }

    fn leave(&mut self) {
        self.left = true;
        self.seats.iter_mut().flatten().for_each(|seat| seat.carried.leave());
    }

    /// Everybody who was woken works, then everybody writes. When it began.
    fn round(&mut self, cx: &mut Context<'_>) -> Instant {
        let mut seats = self.lane.woken.take();
        let readable = self.lane.readable.take_of(&seats);
        self.admit();
        if !self.left && self.lane.leaving.load(Ordering::Acquire) {
            self.leave();
        }
        let now = Instant::now();
        self.add_due(now, &mut seats);
        let woken = Woken { seats, readable, now };
        self.each(&woken, |carried, turn| carried.work(turn));
        self.each(&woken, |carried, turn| carried.tell(turn));
        self.first = (self.first + 1) % SEATS;
        if std::mem::take(&mut self.sooner) || now >= self.deadline {
            self.wind(now, cx);
        }
        now
    }

    /// Adds those who are to work although nobody woke them.
    fn add_due(&self, now: Instant, to: &mut Seats) {
        if now >= self.deadline {
            let due = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| seat.due <= now);
            (0..).zip(&self.seats).filter(|(_, seat)| due(seat)).for_each(|(at, _)| to.add(at));
        }
    }

    /// Has everybody act who was woken; who is over leaves.
    fn each(&mut self, woken: &Woken, act: impl Fn(&mut dyn Carried, &mut Turn<'_>) -> Poll<Result<(), Gone>>) {
        for at in woken.seats.from(self.first) {
            let Some(seat) = &mut self.seats[at as usize] else { continue };
            let readable = woken.readable.has(at);
            let mut turn = Turn { now: woken.now, readable, bells: &seat.bells, desk: &mut self.desk };
            // One that panics takes nobody else with it.
            let ended = match catch_unwind(AssertUnwindSafe(|| act(&mut *seat.carried, &mut turn))) {
                Ok(Poll::Pending) => {
                    seat.due = seat.carried.due();
                    let sooner = seat.due < self.deadline && heart::round(self.began, seat.due) < self.deadline;
                    self.sooner |= sooner;
                    continue;
                }
                Ok(Poll::Ready(ended)) => ended,
                Err(_) => Err(Gone::Fault),
            };
            if let Some(seat) = self.seats[at as usize].take() {
                let _panicked = catch_unwind(AssertUnwindSafe(|| seat.end(ended)));
            }
            self.lane.free.add(at);
        }
    }

    /// Looks at the clock again when the first one is due.
    fn wind(&mut self, now: Instant, cx: &mut Context<'_>) {
        let first = self.seats.iter().flatten().map(|seat| seat.due).min();
        self.deadline = first.map_or(now + IDLE, |first| heart::round(self.began, first));
        self.clock.as_mut().reset(self.deadline);
        // When others have used up what this task may do in one go, the clock would not take note of who is to be woken.
        if pin!(coop::unconstrained(self.clock.as_mut())).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.lane.task.register(cx.waker());
        let began = Instant::now();
        for _ in 0..ROUNDS {
            this.lane.works();
            let now = this.round(cx);
            if this.lane.rests() {
                return Poll::Pending;
            }
            if now - began > TURN || !coop::has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
