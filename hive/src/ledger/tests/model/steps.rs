//! What can happen in a history. Few names and small numbers, so that they meet.

use super::super::*;
use super::world::GPUS;
use proptest::prelude::*;

/// One of them.
#[derive(Debug, Clone)]
pub enum Step {
    Hold(Ask),
    /// Two ask at the same time.
    Both(Ask, Ask),
    Renew {
        reservation: String,
        ttl: Duration,
        confirm: bool,
    },
    Release(String),
    /// A start with a reservation.
    Start {
        reservation: String,
        worker: String,
        /// It names an older token.
        old: bool,
        fate: Fate,
    },
    /// A start with memory and without a reservation.
    Promise {
        worker: String,
        units: u64,
    },
    End(String),
    Use {
        worker: String,
        gpu: usize,
        percent: u64,
    },
    Foreign {
        gpu: usize,
        units: u64,
    },
    Pass(Duration),
    Crash {
        torn: Option<usize>,
    },
    Reboot,
}

/// What becomes of a start.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Answered,
    Fails,
    /// The hive is killed before it answers, after the process was born or before.
    Killed {
        born: bool,
    },
}

/// So many in the middle of many histories; a wrong one can become as short as it likes.
pub fn steps(mean: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..2 * mean)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => ask().prop_map(Step::Hold),
        3 => (ask(), ask()).prop_map(|(one, other)| Step::Both(one, other)),
        3 => (reservation(), ttl(), any::<bool>())
            .prop_map(|(reservation, ttl, confirm)| Step::Renew { reservation, ttl, confirm }),
        3 => reservation().prop_map(Step::Release),
        5 => (reservation(), worker(), prop::bool::weighted(0.1), fate())
            .prop_map(|(reservation, worker, old, fate)| Step::Start { reservation, worker, old, fate }),
        3 => (worker(), 1..16_u64).prop_map(|(worker, units)| Step::Promise { worker, units }),
        4 => worker().prop_map(Step::End),
        4 => (worker(), 0..GPUS.len(), 0..=100_u64)
            .prop_map(|(worker, gpu, percent)| Step::Use { worker, gpu, percent }),
        2 => (0..GPUS.len(), 0..12_u64).prop_map(|(gpu, units)| Step::Foreign { gpu, units }),
        4 => (1..4000_u64).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
        2 => prop::option::of(1..200_usize).prop_map(|torn| Step::Crash { torn }),
        1 => prop::bool::weighted(0.3).prop_map(|reboot| if reboot { Step::Reboot } else { Step::Crash { torn: None } }),
    ]
}

fn reservation() -> impl Strategy<Value = String> {
    (1..6_u32).prop_map(|number| format!("r{number}"))
}

fn worker() -> impl Strategy<Value = String> {
    (1..6_u32).prop_map(|number| format!("llm/w{number}"))
}

fn ttl() -> impl Strategy<Value = Duration> {
    (1..8000_u64).prop_map(Duration::from_millis)
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Answered),
        1 => Just(Fate::Fails),
        1 => any::<bool>().prop_map(|born| Fate::Killed { born }),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let key = || (1..4_u32).prop_map(|number| format!("k{number}"));
    let wished = prop_oneof![
        6 => (prop::option::of(key()), prop::collection::vec(wish(), 1..4)),
        1 => key().prop_map(|key| (Some(key), vec![Wish::Key])),
    ];
    (reservation(), wished, 1..3_u64, ttl()).prop_map(|(reservation, (key, wishes), wish, ttl)| Ask {
        key: key.unwrap_or_default(),
        wish,
        ttl,
        ..super::super::ask(&reservation, &wishes)
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let id = worker().prop_map(|name| WorkerId::parse(&name).unwrap().1);
    let gpu = prop::option::of(0..GPUS.len());
    prop_oneof![
        2 => id.prop_map(Wish::Worker),
        3 => (1..16_u64, gpu, 0..3_u64).prop_map(|(bytes, gpu, headroom)| Wish::Vram {
            bytes,
            gpu: gpu.map(|at| GPUS[at].0.to_owned()).unwrap_or_default(),
            headroom,
        }),
    ]
}
