//! Whether a worker can take requests, and whether it is busy: its engine's word first, then its GPUs, then its CPU.
//! Unknown is never idle. Pure.

use super::super::engine::Answer;
use super::super::gpu_share::Share;
use super::past::Past;
use crate::roster::Member;
use proto::{Activity, ActivityBasis, Engine, EngineSampleState, GpuSampleState, Probe, Readiness, WorkerState};
use std::time::{Duration, Instant};

/// A worker that neither has nor was given a GPU is idle below this CPU use, in percent of one core.
pub const IDLE_BELOW_CPU_PCT: f64 = 5.0;
/// An engine's numbers, and its word that it is well, are withdrawn at this age.
pub const ENGINE_SHOWN_FOR: Duration = Duration::from_secs(5);

/// What is believed of an engine's last answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Engaged {
    pub state: EngineSampleState,
    pub readiness: Readiness,
    pub running: Option<u32>,
    pub waiting: Option<u32>,
    pub kv_cache_pct: Option<f64>,
    pub tokens_per_second: Option<f64>,
}

impl Engaged {
    /// What `answer` means now. That somebody is no engine, or does not answer, stays true until it is asked again; how
    /// an engine does, does not.
    pub fn of(answer: Option<&Answer>, now: Instant) -> Self {
        use EngineSampleState::{Loading, NoMetrics, Ok, Timeout};
        let Some(answer) = answer else { return Self::default() };
        let old = now.saturating_duration_since(answer.asked) > ENGINE_SHOWN_FOR;
        let answered = matches!(answer.state, Ok | NoMetrics | Loading);
        if old && answered {
            return Self { state: Timeout, ..Self::default() };
        }
        let readiness = answer.readiness;
        if old {
            return Self { state: answer.state, readiness, ..Self::default() };
        }
        Self {
            state: answer.state,
            readiness,
            running: answer.running,
            waiting: answer.waiting,
            kv_cache_pct: answer.kv_cache_pct.filter(possible),
            tokens_per_second: answer.tokens_per_second.filter(possible),
        }
    }

    /// Whether it does not answer as an engine, or not any more.
    fn is_silent(&self) -> bool {
        use EngineSampleState::{Error, NoEngine, Taken, Timeout, Unreachable, Unspecified};
        matches!(self.state, Unspecified | NoEngine | Unreachable | Timeout | Error | Taken)
    }

    /// Requests that it works on or that wait. What it does not tell of both could only be idle by a guess.
    fn load(&self) -> Option<u64> {
        match (self.running, self.waiting) {
            (Some(running), Some(waiting)) => Some(u64::from(running) + u64::from(waiting)),
            (one, other) => one.or(other).filter(|requests| *requests > 0).map(u64::from),
        }
    }
}

/// Whether it can take requests: its engine or its port says so; who has neither is ready when it runs.
pub fn readiness(member: &Member, engaged: &Engaged) -> Readiness {
    if member.state != WorkerState::Running {
        return Readiness::NotReady;
    }
    let asked = member.spec.probe() != Probe::None;
    let has_port = asked && (member.spec.endpoint.is_some() || member.spec.engine() != Engine::Unspecified);
    match engaged.readiness {
        Readiness::Unspecified if !has_port => Readiness::Ready,
        told => told,
    }
}

/// Busy or idle, and what that was decided from.
pub fn activity(
    member: &Member,
    readiness: Readiness,
    engaged: &Engaged,
    share: &Share,
    past: &Past,
    cpu_pct: Option<f64>,
) -> (Activity, ActivityBasis) {
    let known = member.spec.engine() != Engine::Unspecified && member.spec.probe() != Probe::None;
    if let Some(load) = engaged.load() {
        return (judge(Some(load as f64), 1.0, readiness), ActivityBasis::Engine);
    }
    if known && (engaged.is_silent() || engaged.running.is_some() || engaged.waiting.is_some()) {
        return (Activity::Unknown, ActivityBasis::Engine);
    }
    let by_gpu = share.concerned || !past.gpus_seen.is_empty();
    let no_gpu = share.state == GpuSampleState::NoGpu || past.used_none;
    if by_gpu || !no_gpu {
        let fresh = share.util_pct.filter(|_| share.state == GpuSampleState::Ok);
        (judge(fresh, f64::MIN_POSITIVE, readiness), ActivityBasis::Gpu)
    } else {
        (judge(cpu_pct, IDLE_BELOW_CPU_PCT, readiness), ActivityBasis::Cpu)
    }
}

/// What cannot take requests is neither.
fn judge(load: Option<f64>, idle_below: f64, readiness: Readiness) -> Activity {
    match load {
        _ if readiness == Readiness::NotReady => Activity::Unknown,
        Some(load) if load >= idle_below => Activity::Busy,
        Some(_) => Activity::Idle,
        None => Activity::Unknown,
    }
}

fn possible(number: &f64) -> bool {
    number.is_finite() && *number >= 0.0
}
