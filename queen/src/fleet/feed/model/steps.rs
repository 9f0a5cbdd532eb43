//! What happens in the model.

use super::{WATCHERS, WISHES};
use proptest::prelude::*;

/// What happens. While a list is read, between its revision and its end, a worker changes or is new.
#[derive(Debug, Clone)]
pub enum Step {
    Put { name: u8, model: u8, state: i32, cpu: u8 },
    Sample { name: u8, cpu: u8 },
    Remove { name: u8 },
    Hive { name: u8, hostname: u8 },
    Beat { name: u8 },
    Churn,
    Wait { seconds: u64 },
    Read { watcher: usize, pages: u8, bytes: usize },
    Bookmark { watcher: usize },
    Open { watcher: usize, wish: usize },
    Resume { watcher: usize },
    List { watcher: usize, name: u8, model: u8 },
    Restart { lost: u8 },
}

/// Any of them.
pub fn step() -> impl Strategy<Value = Step> {
    let watcher = 0..WATCHERS;
    prop_oneof![
        12 => (0..8_u8, 0..3_u8, 1..4_i32, 0..3_u8)
            .prop_map(|(name, model, state, cpu)| Step::Put { name, model, state, cpu }),
        12 => (0..8_u8, 0..3_u8).prop_map(|(name, cpu)| Step::Sample { name, cpu }),
        4 => (0..10_u8).prop_map(|name| Step::Remove { name }),
        2 => (0..2_u8, 0..3_u8).prop_map(|(name, hostname)| Step::Hive { name, hostname }),
        2 => (0..2_u8).prop_map(|name| Step::Beat { name }),
        1 => Just(Step::Churn),
        1 => (0..400_u64).prop_map(|seconds| Step::Wait { seconds }),
        12 => (watcher.clone(), 1..4_u8, 150..900_usize)
            .prop_map(|(watcher, pages, bytes)| Step::Read { watcher, pages, bytes }),
        2 => watcher.clone().prop_map(|watcher| Step::Bookmark { watcher }),
        1 => (watcher.clone(), 0..WISHES).prop_map(|(watcher, wish)| Step::Open { watcher, wish }),
        3 => watcher.clone().prop_map(|watcher| Step::Resume { watcher }),
        2 => (watcher, 0..10_u8, 0..3_u8).prop_map(|(watcher, name, model)| Step::List { watcher, name, model }),
        1 => any::<u8>().prop_map(|lost| Step::Restart { lost }),
    ]
}
