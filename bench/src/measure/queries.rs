//! What a question costs over 100,000 workers: the document's way and ours, in turn. CPU time of this thread.

use crate::Pace;
use crate::queries::{Document, Ours, Reservations, beings};
use crate::table::{Table, median};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Who is asked beside ours.
const CLONED: &str = "the document's map, all cloned, then chosen";
const SCANNED: &str = "a scan of the document's map, nothing cloned";

/// On a thread of its own, whose clock counts nothing else and which may have a runtime.
pub fn run(pace: Pace, table: &mut Table) {
    let measured = std::thread::scope(|scope| scope.spawn(|| measure(pace, table)).join());
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn measure(pace: Pace, table: &mut Table) {
    eprintln!("queries: CPU µs per question");
    let beings = beings();
    let (document, ours) = (Document::new(&beings), Ours::new(&beings));
    let clock = Clock { samples: pace.runs };
    let mut compare = |what: &str, its: f64, (who, target): (&str, Option<f64>), mine: f64| {
        let what = format!("100,000 workers on 10,000 hives, {what}");
        table.ours(&what, mine, "µs CPU", None, false);
        table.peer(&what, who, its, "µs CPU", mine / its, target);
    };
    let idle = clock.micros(1, || document.find_idle());
    let target = (CLONED, Some(1.0 / 200.0));
    compare("the rows of all that are idle", idle, target, clock.micros(20, || ours.idle_rows()));
    compare("the first 10 idle by name, answered", idle, (CLONED, None), clock.micros(50, || ours.idle(10)));
    compare("the 10 idle longest, answered", idle, (CLONED, None), clock.micros(3, || ours.longest_idle(10)));
    compare("all idle by name, answered", idle, (CLONED, None), clock.micros(1, || ours.idle(0)));
    let model = clock.micros(1, || document.find_with_model("model-7"));
    compare("the first 10 with a model, answered", model, (CLONED, None), clock.micros(50, || ours.with_model(10)));
    compare("all with a model, answered", model, (CLONED, None), clock.micros(1, || ours.with_model(0)));
    let room = clock.micros(1, || document.find_with_capacity(20 << 10));
    compare("the first 10 with room, answered", room, (CLONED, None), clock.micros(50, || ours.with_room(10)));
    let scan = clock.micros(3, || document.best_fit(8 << 10));
    let target = (SCANNED, Some(1.0 / 40.0));
    compare("the GPU that fits best, answered", scan, target, clock.micros(200, || ours.best_fit()));
    compare("the first GPU that fits, answered", scan, (SCANNED, None), clock.micros(200, || ours.first_fit()));
    let reservations = Reservations::new(ours.fleet());
    let mut turn = 0;
    let mut keyed = || {
        turn += 1;
        reservations.idle_with("model-7", &format!("job-{turn}"));
    };
    for (what, cost) in [
        (
            "an idle one with a model reserved and given back",
            clock.micros(50, || reservations.idle_with("model-7", "")),
        ),
        ("the same with a key", clock.micros(50, &mut keyed)),
        ("a reservation refused, and why", clock.micros(50, || reservations.in_vain())),
        ("coverage of an answer", clock.micros(50, || ours.coverage())),
        ("a worker becomes idle or busy", clock.micros(20_000, || ours.flip())),
        ("a frame in which no bit changes", clock.micros(20_000, || ours.no_news())),
        ("the room of a GPU changes", clock.micros(20_000, || ours.move_room())),
    ] {
        table.ours(&format!("100,000 workers on 10,000 hives, {what}"), cost, "µs CPU", None, false);
    }
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock of this thread").into()
}

/// The median over samples of the mean over turns.
struct Clock {
    samples: usize,
}

impl Clock {
    fn micros<T>(&self, turns: u32, mut turn: impl FnMut() -> T) -> f64 {
        let mut sample = || {
            let began = thread_cpu();
            for _ in 0..turns {
                std::hint::black_box(turn());
            }
            (thread_cpu() - began).as_nanos() as f64 / 1_000.0 / f64::from(turns)
        };
        sample();
        median((0..self.samples).map(|_| sample()).collect())
    }
}
