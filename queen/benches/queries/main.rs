//! What a question costs over 100,000 workers on 10,000 hives: the document's way and ours, in one run and in turn.
//! CPU time of this thread, medians. Fails when one of our own targets is missed; `--short` takes a tenth of the fleet
//! and judges nothing.

mod document;
mod ours;

use document::Document;
use nix::time::{ClockId, clock_gettime};
use ours::Ours;
use std::process::ExitCode;
use std::time::Duration;

/// Workers of each hive, each with a GPU of its own.
pub const WORKERS: usize = 10;
/// Of so many workers one is idle.
pub const IDLE_OF: u64 = 5;
/// Models of the fleet, evenly spread.
pub const MODELS: u64 = 20;

/// What a scan of the document's may cost, as so many times ours, at least.
const IDLE_TIMES: f64 = 200.0;
const FIT_TIMES: f64 = 40.0;

/// A small multiplicative generator, so that every run measures the same fleet.
pub struct Random(u64);

impl Random {
    /// The next number, below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One worker of the fleet, as both sides are told of it.
pub struct Being {
    /// The number of its hive.
    pub hive: usize,
    /// Which of its hive's workers.
    pub slot: usize,
    /// Whether it does nothing.
    pub idle: bool,
    /// The number of its model.
    pub model: u64,
    /// Bytes in use on its GPU.
    pub vram_used: u64,
}

fn beings(hives: usize) -> Vec<Being> {
    let mut random = Random(0x5eed);
    let being = |at: usize| Being {
        hive: at / WORKERS,
        slot: at % WORKERS,
        idle: random.below(IDLE_OF) == 0,
        model: random.below(MODELS),
        vram_used: random.below(24 << 20) << 10,
    };
    (0..hives * WORKERS).map(being).collect()
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock of this thread").into()
}

/// The median over samples of the mean over turns, in nanoseconds.
struct Clock {
    samples: usize,
}

impl Clock {
    fn nanos<T>(&self, turns: u32, mut turn: impl FnMut() -> T) -> f64 {
        let mut sample = || {
            let began = thread_cpu();
            for _ in 0..turns {
                std::hint::black_box(turn());
            }
            (thread_cpu() - began).as_nanos() as f64 / f64::from(turns)
        };
        sample();
        let mut all: Vec<f64> = (0..self.samples).map(|_| sample()).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

fn line(what: &str, nanos: f64, beside: Option<f64>) {
    let times = beside.map_or(String::new(), |beside| format!("{:>10.0} x", beside / nanos));
    println!("{what:<58}{:>12.2} us{times}", nanos / 1_000.0);
}

fn main() -> ExitCode {
    let short = std::env::args().any(|word| word == "--short");
    let (hives, clock) = if short { (1_000, Clock { samples: 3 }) } else { (10_000, Clock { samples: 9 }) };
    let beings = beings(hives);
    let (document, ours) = (Document::new(&beings), Ours::new(&beings));
    println!("{} workers on {hives} hives; medians of CPU time{:>26}", beings.len(), "the document's takes");

    let idle = clock.nanos(1, || document.find_idle());
    line("idle: the document's, all cloned, then chosen", idle, None);
    let rows = clock.nanos(20, || ours.idle_rows());
    line("  ours, the rows of all that are idle", rows, Some(idle));
    line("  ours, the first 10 by name, answered", clock.nanos(50, || ours.idle(10)), Some(idle));
    line("  ours, the 10 that were idle longest, answered", clock.nanos(3, || ours.longest_idle(10)), Some(idle));
    line("  ours, every one by name, answered", clock.nanos(1, || ours.idle(0)), Some(idle));

    let model = clock.nanos(1, || document.find_with_model("model-7"));
    line("model: the document's, all cloned, then chosen", model, None);
    line("  ours, the first 10 by name, answered", clock.nanos(50, || ours.with_model(10)), Some(model));
    line("  ours, every one by name, answered", clock.nanos(1, || ours.with_model(0)), Some(model));

    let room = clock.nanos(1, || document.find_with_capacity(20 << 10));
    line("room: the document's, all cloned, then chosen", room, None);
    line("  ours, the first 10 by name, answered", clock.nanos(50, || ours.with_room(10)), Some(room));

    let scan = clock.nanos(3, || document.best_fit(8 << 10));
    line("best fit: a scan of the document's map, nothing cloned", scan, None);
    let fit = clock.nanos(200, || ours.best_fit());
    line("  ours, the GPU, answered", fit, Some(scan));
    line("  ours, the first that fits, answered", clock.nanos(200, || ours.first_fit()), Some(scan));

    println!("what every answer carries, and upkeep");
    line("  coverage of an answer", clock.nanos(50, || ours.coverage()), None);
    line("  a worker becomes idle or busy", clock.nanos(20_000, || ours.flip()), None);
    line("  a frame in which no bit changes", clock.nanos(20_000, || ours.no_news()), None);
    line("  the room of a GPU changes", clock.nanos(20_000, || ours.move_room()), None);

    let missed = [
        (idle / rows < IDLE_TIMES, "all idle at 1/200 of the document's scan"),
        (scan / fit < FIT_TIMES, "best fit at 1/40 of the scan"),
    ];
    let missed: Vec<&str> = missed.iter().filter(|(missed, _)| *missed).map(|(_, target)| *target).collect();
    if short || missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    missed.iter().for_each(|target| eprintln!("missed: {target}"));
    ExitCode::FAILURE
}
