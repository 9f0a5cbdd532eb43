//! What the objects of the model are.

use super::Seen;
use crate::fleet::Spec;
use proto::{Freshness, GpuUse, Hive, ProcessStats, Worker};
use std::sync::Arc;

/// What an object is.
#[derive(Clone)]
pub enum State {
    Worker { spec: Arc<Spec>, state: i32, stats: ProcessStats },
    Hive(Hive),
}

/// Even ones are on one hive, odd ones on the other.
pub fn worker_name(name: u32) -> String {
    format!("h{}/g/{name}", name % 2)
}

/// Numbers with a CPU use; some workers have a GPU, some two, and one more digits than columns have.
pub fn stats(name: u32, cpu: u8) -> ProcessStats {
    let gpu = |uuid: &str, util_pct| GpuUse { uuid: uuid.into(), util_pct: Some(util_pct), vram_bytes: Some(4096) };
    let util = f64::from(cpu) + 0.5;
    let gpus = match name % 4 {
        0 | 1 => vec![],
        2 => vec![gpu("one", util)],
        _ => vec![gpu("one", util), gpu("other", if cpu == 2 { 0.125 } else { 0.0 })],
    };
    let sums = (!gpus.is_empty()).then_some((util, 4096 * gpus.len() as u64));
    let cpu_pct = if name == 1 && cpu == 2 { 1.0 / 3.0 } else { cpu.into() };
    let (gpu_util_pct, vram_bytes) = sums.unzip();
    ProcessStats { cpu_pct: Some(cpu_pct), gpu_util_pct, vram_bytes, gpus, ..ProcessStats::default() }
}

/// A state in the checkers' words.
pub fn seen(state: &State) -> Seen {
    match state {
        State::Worker { spec, state, stats } => Seen::Worker(Box::new(Worker {
            spec: Some(spec.whole()),
            state: *state,
            stats: Some(stats.clone()),
            freshness: Freshness::Live.into(),
            ..Worker::default()
        })),
        State::Hive(hive) => Seen::Hive(Box::new(hive.clone())),
    }
}
