//! Two looks at the kernel, one at the GPUs and one at the engines → the round that is reported. Pure: the only place
//! where a sample is made. Uptime is left out, because it is derived where it is shown.

mod activity;
mod devices;
mod past;

pub use activity::{ENGINE_SHOWN_FOR, IDLE_BELOW_CPU_PCT};
pub use devices::FOREIGN_MAX;

use super::collect::{Counters, Tick};
use super::engine::EngineView;
use super::gpu_share::{ByPid, Question, Trust, share};
use crate::gpus::GpuView;
use crate::roster::{Member, Roster, Slot};
use crate::round::{Round, Sample};
use activity::{Engaged, activity, readiness};
use devices::Owned;
use past::{Idle, Past};
use proto::{Activity, ProcessStats};
use std::collections::HashMap;
use std::time::{Instant, SystemTime};

/// What is remembered from round to round.
#[derive(Debug)]
pub struct Sampler {
    since: Instant,
    pasts: HashMap<Slot, Past>,
    by_pid: ByPid,
    owned: Owned,
}

/// What a round is made of.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// When, on the monotonic clock.
    pub now: Instant,
    /// The same instant on the wall clock.
    pub wall: SystemTime,
    /// Who lives.
    pub roster: &'a Roster,
    /// What the kernel said.
    pub tick: &'a Tick,
    /// What the GPUs' drivers last said.
    pub gpu: &'a GpuView,
    /// What the engines last said.
    pub engines: &'a EngineView,
}

impl Sampler {
    /// `since` is when sampling begins.
    pub fn new(since: Instant) -> Self {
        Self { since, pasts: HashMap::new(), by_pid: ByPid::default(), owned: Owned::default() }
    }

    /// Makes the round of a look at all workers, written over what `round` was: nothing is allocated for workers and
    /// GPUs that it has had before.
    pub fn advance(&mut self, seen: Seen<'_>, round: &mut Round) {
        let Seen { now, roster, gpu, .. } = seen;
        self.pasts.retain(|slot, _| roster.members.binary_search_by_key(slot, |member| member.slot).is_ok());
        let trust = Trust::of(gpu, now, self.since);
        self.samples(seen, trust, &mut round.samples);
        self.own(roster);
        devices::write(&mut round.gpus, &gpu.round, trust, &mut self.owned);
        (round.taken, round.sampled_at, round.failed, round.gpu_state) = (now, seen.wall, None, trust.state);
    }

    /// Adds a first look at workers that have just come to the round before. All others keep their samples of then, and
    /// so the round keeps its time: nothing in it is older than it says.
    pub fn extend(&mut self, last: &Round, seen: Seen<'_>) -> Round {
        let mut round = last.clone();
        let mut samples = Vec::new();
        self.samples(seen, Trust::of(seen.gpu, seen.now, self.since), &mut samples);
        for sample in samples {
            match round.samples.binary_search_by_key(&sample.slot, |other| other.slot) {
                Ok(at) => round.samples.splice(at..=at, [sample]).for_each(drop),
                Err(at) => round.samples.insert(at, sample),
            }
        }
        round
    }

    /// The round of a look that failed whole. Nobody is idle on the word of such a round.
    pub fn fail(&mut self, now: Instant, wall: SystemTime, reason: String, gpu: &GpuView, round: &mut Round) {
        for past in self.pasts.values_mut() {
            past.idle = None;
        }
        let trust = Trust::of(gpu, now, self.since);
        round.samples.clear();
        devices::write(&mut round.gpus, &gpu.round, trust, &mut self.owned);
        (round.taken, round.sampled_at, round.failed, round.gpu_state) = (now, wall, Some(reason), trust.state);
    }

    fn samples(&mut self, seen: Seen<'_>, trust: Trust, samples: &mut Vec<Sample>) {
        self.by_pid.index(&seen.gpu.round);
        let mut count = 0;
        for reading in &seen.tick.readings {
            let Ok(at) = seen.roster.members.binary_search_by_key(&reading.slot, |member| member.slot) else {
                continue;
            };
            let Some(member) = seen.roster.members.get(at) else { continue };
            if samples.len() == count {
                samples.push(Sample { slot: reading.slot, stats: None });
            }
            let Some(sample) = samples.get_mut(count) else { continue };
            sample.slot = reading.slot;
            match &reading.counters {
                Some(counters) => {
                    self.sample(member, counters, seen, trust, sample.stats.get_or_insert_with(ProcessStats::default));
                }
                None => {
                    self.pasts.entry(reading.slot).and_modify(|past| past.idle = None);
                    sample.stats = None;
                }
            }
            count += 1;
        }
        samples.truncate(count);
    }

    fn sample(&mut self, member: &Member, counters: &Counters, seen: Seen<'_>, trust: Trust, stats: &mut ProcessStats) {
        let Seen { tick, gpu, .. } = seen;
        let past = self.pasts.entry(member.slot).or_insert_with(|| Past::new(counters));
        let pids = tick.pids_of(counters);
        let rates = past.advance(counters, pids);
        let told = gpu.answered.is_some_and(|answered| answered >= past.first_at);
        let asked =
            Question { pids, given: &member.spec.gpu_uuids, seen: &past.gpus_seen, told, used_none: past.used_none };
        let mut gpus = std::mem::take(&mut stats.gpus);
        let share = share(&gpu.round, &self.by_pid, trust, asked, &mut gpus);
        past.remember(&share, &gpus);
        let engaged = Engaged::of(seen.engines.of(member.slot), seen.now);
        let ready = readiness(member, &engaged);
        let (activity, basis) = activity(member, ready, &engaged, &share, past, rates.cpu_pct);
        past.idle = (activity == Activity::Idle).then(|| match past.idle {
            Some(idle) => idle.at(seen.now, seen.wall),
            None => Idle::new(seen.now, seen.wall),
        });
        *stats = ProcessStats {
            cpu_pct: rates.cpu_pct,
            memory_current_bytes: counters.memory.current_bytes,
            rss_bytes: counters.memory.rss_bytes,
            io_read_bytes_per_second: rates.io_read,
            io_write_bytes_per_second: rates.io_write,
            uptime: None,
            gpu_util_pct: share.util_pct,
            vram_bytes: share.vram_bytes,
            vram_total_bytes: share.vram_total_bytes,
            gpus,
            gpu_sample_state: share.state.into(),
            process_count: pids.and_then(|pids| u32::try_from(pids.len()).ok()),
            activity: activity.into(),
            idle_since: past.idle.map(|idle| common::timestamp(idle.told())),
            activity_basis: basis.into(),
            anon_bytes: counters.memory.anon_bytes,
            working_set_bytes: counters.memory.working_set_bytes,
            memory_peak_bytes: counters.memory.peak_bytes,
            swap_bytes: counters.memory.swap_bytes,
            cpu_throttled_pct: rates.throttled_pct,
            cpu_pressure_pct: rates.waiting.cpu_pct,
            memory_pressure_pct: rates.waiting.memory_pct,
            io_pressure_pct: rates.waiting.io_pct,
            task_count: counters.task_count,
            oom_kills: counters.oom_kills,
            engine_sample_state: engaged.state.into(),
            requests_running: engaged.running,
            requests_waiting: engaged.waiting,
            kv_cache_pct: engaged.kv_cache_pct,
            tokens_per_second: engaged.tokens_per_second,
            readiness: ready.into(),
        };
    }

    /// Whose processes are workers': those of the last good look at each, so that one that could not be read in this
    /// round does not become a stranger.
    fn own(&mut self, roster: &Roster) {
        self.owned.clear();
        for member in &roster.members {
            if let Some(past) = self.pasts.get(&member.slot) {
                self.owned.add(&past.pids);
            }
            if let Some(pid) = member.pid() {
                self.owned.add(&[pid]);
            }
        }
        self.owned.settle();
    }
}

#[cfg(test)]
mod tests;
