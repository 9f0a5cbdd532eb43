//! Two rounds of totals to one round of samples: rates, GPU shares, who is idle.

mod engines;
mod machine;
mod waiting;

use super::*;
use crate::gpus::{Device, GpuRound, Outcome, Process};
use crate::sample::collect::{Incarnation, Memory, Reading};
use crate::sample::counters::IoBytes;
use crate::sample::engine::Answer;
use crate::sample::testing::{member, roster};
use proto::{ActivityBasis, EngineSampleState, GpuSampleState as State, Readiness, WorkerState};
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = 1 << 30;

/// One worker, slot 1, pid 10, and a clock.
struct Scene {
    start: Instant,
    member: Member,
    sampler: Sampler,
    totals: Counters,
    gpu: GpuView,
    engines: EngineView,
    round: Round,
    /// The wall clock was set forward by so much.
    set: Duration,
}

impl Scene {
    fn new() -> Self {
        let start = Instant::now();
        let incarnation = Incarnation { pid: 10, start_ticks: 100, cgroup_inode: Some(7) };
        let totals = Counters {
            incarnation,
            at: start,
            cpu_usec: Some(1_000_000),
            throttled_usec: None,
            memory: Memory { current_bytes: Some(5), rss_bytes: Some(3), ..Memory::default() },
            io: Some(IoBytes { read: 1_000, write: 2_000 }),
            pressure: None,
            task_count: None,
            oom_kills: None,
            pids: Some(0..2),
        };
        let gpu = GpuView { round: round_of(Outcome::NoGpu, &[]), answered: Some(start) };
        let round = Round::empty(start, SystemTime::UNIX_EPOCH);
        let (member, sampler, engines) = (member(1, "llm", "8080"), Sampler::new(start), EngineView::default());
        Self { start, member, sampler, totals, gpu, engines, round, set: Duration::ZERO }
    }

    /// The driver answers this at `millis`.
    fn driver(&mut self, millis: u64, processes: &[(u32, usize, u64, f64)]) {
        let answered = Some(self.start + Duration::from_millis(millis));
        self.gpu = GpuView { round: round_of(Outcome::Answered, processes), answered };
    }

    fn at(&mut self, millis: u64) -> Round {
        let now = self.start + Duration::from_millis(millis);
        self.totals.at = now;
        let readings = vec![Reading { slot: 1, counters: Some(self.totals.clone()) }];
        let tick = Tick { readings, pids: vec![10, 11] };
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(millis) + self.set;
        let roster = roster([self.member.clone()]);
        let seen = Seen { now, wall, roster: &roster, tick: &tick, gpu: &self.gpu, engines: &self.engines };
        self.sampler.advance(seen, &mut self.round);
        self.round.clone()
    }

    /// Its engine says this at `millis`.
    fn engine(&mut self, millis: u64, state: EngineSampleState, running: Option<u32>, waiting: Option<u32>) {
        let asked = self.start + Duration::from_millis(millis);
        let (readiness, kv_cache_pct, tokens_per_second) = (Readiness::Ready, Some(12.5), Some(f64::NAN));
        let answer = Answer { asked, state, readiness, running, waiting, kv_cache_pct, tokens_per_second };
        self.engines = EngineView { answers: vec![(1, answer)] };
    }

    fn stats(&mut self, millis: u64) -> ProcessStats {
        self.at(millis).samples[0].stats.clone().unwrap()
    }
}

/// Two GPUs of 24 GiB.
fn round_of(outcome: Outcome, processes: &[(u32, usize, u64, f64)]) -> Arc<GpuRound> {
    let device = |at: usize| Device {
        uuid: format!("GPU-{at}"),
        name: "fake".into(),
        memory_total_bytes: Some(24 * GIB),
        memory_used_bytes: Some(GIB),
        util_pct: Some(50.0),
        per_process: true,
        error: None,
        ..Device::default()
    };
    let process = |(pid, device, vram, util): &(u32, usize, u64, f64)| Process {
        pid: *pid,
        device: *device,
        vram_bytes: Some(*vram),
        util_pct: Some(*util),
        ..Process::default()
    };
    let devices = if outcome == Outcome::Answered { vec![device(0), device(1)] } else { Vec::new() };
    Arc::new(GpuRound { outcome, devices, processes: processes.iter().map(process).collect(), ..GpuRound::default() })
}

fn decided(stats: &ProcessStats) -> (Activity, ActivityBasis) {
    (stats.activity(), stats.activity_basis())
}

#[test]
fn the_first_sample_has_no_rate() {
    let mut scene = Scene::new();
    let stats = scene.stats(0);
    assert_eq!(
        (stats.cpu_pct, stats.io_read_bytes_per_second, stats.io_write_bytes_per_second, stats.uptime),
        (None, None, None, None)
    );
    assert_eq!((stats.memory_current_bytes, stats.rss_bytes, stats.process_count), (Some(5), Some(3), Some(2)));
}

#[test]
fn rates_are_over_the_time_that_passed() {
    let mut scene = Scene::new();
    scene.stats(0);
    scene.totals.cpu_usec = Some(1_000_000 + 3_000_000);
    scene.totals.io = Some(IoBytes { read: 1_000 + 4_096, write: 2_000 });
    let stats = scene.stats(2_000);
    assert_eq!(stats.cpu_pct, Some(150.0));
    assert_eq!((stats.io_read_bytes_per_second, stats.io_write_bytes_per_second), (Some(2_048.0), Some(0.0)));
    assert_eq!(scene.stats(2_000).cpu_pct, None, "no time has passed");
}

#[test]
fn a_remade_cgroup_starts_over() {
    let mut scene = Scene::new();
    scene.stats(0);
    scene.totals.incarnation.cgroup_inode = Some(8);
    scene.totals.cpu_usec = Some(9_000_000);
    assert_eq!(scene.stats(1_000).cpu_pct, None);
    scene.totals.cpu_usec = Some(9_500_000);
    assert_eq!(scene.stats(2_000).cpu_pct, Some(50.0));
    scene.totals.incarnation.pid = 99;
    assert_eq!(scene.stats(3_000).cpu_pct, None);
}

#[test]
fn a_counter_that_goes_back_is_absent_once() {
    let mut scene = Scene::new();
    scene.stats(0);
    scene.totals.cpu_usec = Some(500_000);
    assert_eq!(scene.stats(1_000).cpu_pct, None);
    scene.totals.cpu_usec = Some(600_000);
    assert_eq!(scene.stats(2_000).cpu_pct, Some(10.0));
    scene.totals.cpu_usec = None;
    assert_eq!(scene.stats(3_000).cpu_pct, None);
}

#[test]
fn collect_handles_missing_gpu() {
    let mut scene = Scene::new();
    scene.stats(0);
    let round = scene.at(1_000);
    assert_eq!((round.gpu_state, round.gpus.len()), (State::NoGpu, 0));
    let stats = round.samples[0].stats.clone().unwrap();
    assert_eq!((stats.gpu_util_pct, stats.vram_bytes, stats.vram_total_bytes), (None, None, None));
    assert_eq!(stats.gpu_sample_state(), State::NoGpu);
    assert_eq!(decided(&stats), (Activity::Idle, ActivityBasis::Cpu));
}

#[test]
fn two_gpus_are_summed() {
    let mut scene = Scene::new();
    scene.driver(0, &[(10, 0, 2 * GIB, 80.0), (11, 0, GIB, 5.0), (11, 1, 4 * GIB, 60.0), (99, 1, 9 * GIB, 30.0)]);
    let round = scene.at(0);
    let stats = round.samples[0].stats.clone().unwrap();
    assert_eq!((stats.gpu_util_pct, stats.vram_bytes), (Some(145.0), Some(7 * GIB)));
    assert_eq!(stats.vram_total_bytes, Some(48 * GIB));
    let rows: Vec<_> = stats.gpus.iter().map(|gpu| (gpu.uuid.as_str(), gpu.util_pct, gpu.vram_bytes)).collect();
    assert_eq!(rows, [("GPU-0", Some(85.0), Some(3 * GIB)), ("GPU-1", Some(60.0), Some(4 * GIB))]);
    assert_eq!(decided(&stats), (Activity::Busy, ActivityBasis::Gpu));
    assert_eq!((round.gpus.len(), round.gpu_state), (2, State::Ok));
}

#[test]
fn who_uses_no_gpu_uses_zero_and_is_judged_by_cpu() {
    let mut scene = Scene::new();
    scene.driver(0, &[(99, 0, GIB, 90.0)]);
    scene.stats(0);
    scene.totals.cpu_usec = Some(1_000_000 + 40_000);
    let stats = scene.stats(1_000);
    assert_eq!((stats.gpu_util_pct, stats.vram_bytes, stats.vram_total_bytes), (Some(0.0), Some(0), None));
    assert_eq!(decided(&stats), (Activity::Idle, ActivityBasis::Cpu));
    scene.totals.cpu_usec = Some(1_040_000 + 50_000);
    assert_eq!(decided(&scene.stats(2_000)), (Activity::Busy, ActivityBasis::Cpu), "5 % is not below 5 %");
}

#[test]
fn gpu_numbers_go_stale_then_absent() {
    let mut scene = Scene::new();
    scene.driver(0, &[(10, 0, GIB, 0.0)]);
    let idle = scene.stats(2_000);
    assert_eq!(
        (idle.gpu_sample_state(), idle.activity()),
        (State::Unspecified, Activity::Unknown),
        "older than the worker"
    );
    scene.driver(2_000, &[(10, 0, GIB, 0.0)]);
    let idle = scene.stats(4_000);
    assert_eq!((idle.gpu_sample_state(), idle.gpu_util_pct, idle.activity()), (State::Ok, Some(0.0), Activity::Idle));
    let stale = scene.stats(4_001);
    assert_eq!(
        (stale.gpu_sample_state(), stale.vram_bytes, stale.activity()),
        (State::Stale, Some(GIB), Activity::Unknown)
    );
    assert_eq!(stale.idle_since, None);
    let round = scene.at(12_001);
    let gone = round.samples[0].stats.clone().unwrap();
    assert_eq!((gone.gpu_sample_state(), gone.gpu_util_pct, gone.vram_bytes), (State::Timeout, None, None));
    assert_eq!(decided(&gone), (Activity::Unknown, ActivityBasis::Gpu), "it held VRAM before");
    assert_eq!((round.gpus[0].memory_used_bytes, round.gpus[0].memory_total_bytes), (None, Some(24 * GIB)));
}

#[test]
fn unknown_is_never_idle() {
    let mut pending = Scene::new();
    pending.gpu = GpuView { round: Arc::default(), answered: None };
    pending.stats(0);
    let stats = pending.stats(1_000);
    assert_eq!((stats.gpu_sample_state(), stats.activity()), (State::Unspecified, Activity::Unknown));
    let stats = pending.stats(10_001);
    assert_eq!((stats.gpu_sample_state(), stats.activity()), (State::Timeout, Activity::Unknown));

    let mut given = Scene::new();
    given.member.spec.gpu_uuids = vec!["GPU-1".into()];
    given.stats(0);
    assert_eq!(given.stats(1_000).activity(), Activity::Unknown, "given a GPU, and there is no driver");
    given.driver(2_000, &[]);
    let stats = given.stats(2_000);
    assert_eq!((stats.activity(), stats.vram_total_bytes), (Activity::Idle, Some(24 * GIB)));

    let mut starting = Scene::new();
    starting.member.state = WorkerState::Starting;
    starting.stats(0);
    assert_eq!(starting.stats(1_000).activity(), Activity::Unknown, "not ready");

    let mut cpu = Scene::new();
    assert_eq!(decided(&cpu.stats(0)), (Activity::Unknown, ActivityBasis::Cpu), "no rate yet");
}

#[test]
fn what_the_driver_knew_before_it_hung_still_counts() {
    let mut scene = Scene::new();
    scene.driver(0, &[]);
    scene.stats(0);
    let stats = scene.stats(11_000);
    assert_eq!((stats.gpu_sample_state(), stats.gpu_util_pct), (State::Timeout, None));
    assert_eq!(decided(&stats), (Activity::Idle, ActivityBasis::Cpu));
}

#[test]
fn impossible_values_are_thrown_away() {
    for process in
        [(10, 0, GIB, 101.0), (10, 0, GIB, f64::NAN), (10, 0, GIB, -1.0), (10, 0, 25 * GIB, 1.0), (10, 5, GIB, 1.0)]
    {
        let mut scene = Scene::new();
        scene.driver(0, &[process, (11, 1, GIB, 10.0)]);
        let stats = scene.stats(0);
        assert_eq!((stats.gpu_sample_state(), stats.gpu_util_pct, stats.vram_bytes), (State::Error, None, None));
        assert_eq!(stats.activity(), Activity::Unknown);
        assert_eq!(stats.gpus.last().unwrap().util_pct, Some(10.0), "the other GPU is believed");
    }
}

#[test]
fn a_lost_gpu_hides_only_who_may_be_on_it() {
    let mut scene = Scene::new();
    scene.driver(0, &[(10, 0, GIB, 0.0)]);
    assert_eq!(scene.stats(0).activity(), Activity::Idle);
    let lose = |scene: &mut Scene, lost: usize| {
        let mut round = GpuRound::clone(&scene.gpu.round);
        round.devices[lost].error = Some("GPU is lost".into());
        round.processes.retain(|process| process.device != lost);
        scene.gpu.round = Arc::new(round);
    };
    lose(&mut scene, 1);
    assert_eq!(scene.stats(1_000).activity(), Activity::Idle, "it is on the other one");
    lose(&mut scene, 0);
    let stats = scene.stats(1_500);
    assert_eq!(
        (stats.gpu_sample_state(), stats.gpu_util_pct, stats.activity()),
        (State::Error, None, Activity::Unknown)
    );

    let mut new = Scene::new();
    new.driver(0, &[]);
    lose(&mut new, 0);
    assert_eq!(new.stats(0).gpu_sample_state(), State::Error, "nothing is known of it");
}

#[test]
fn use_that_cannot_be_told_per_process_is_unsupported() {
    let mut scene = Scene::new();
    scene.driver(0, &[(10, 0, GIB, 0.0)]);
    let mut round = GpuRound::clone(&scene.gpu.round);
    round.devices[0].per_process = false;
    scene.gpu.round = Arc::new(round);
    let stats = scene.stats(0);
    assert_eq!((stats.gpu_sample_state(), stats.gpu_util_pct, stats.vram_bytes), (State::Unsupported, None, Some(GIB)));
    assert_eq!(stats.activity(), Activity::Unknown);
}

#[test]
fn a_driver_that_fails_hides_its_numbers() {
    let mut scene = Scene::new();
    scene.gpu = GpuView { round: round_of(Outcome::Failed("broken".into()), &[]), answered: Some(scene.start) };
    let stats = scene.stats(0);
    assert_eq!((stats.gpu_sample_state(), stats.vram_bytes, stats.activity()), (State::Error, None, Activity::Unknown));
}

#[test]
fn idle_since_is_the_beginning_of_the_stretch() {
    let mut scene = Scene::new();
    let since = |stats: &ProcessStats| stats.idle_since.as_ref().and_then(common::from_timestamp);
    let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
    assert_eq!(since(&scene.stats(0)), None);
    assert_eq!(since(&scene.stats(1_000)), at(1_000));
    assert_eq!(since(&scene.stats(2_000)), at(1_000));
    scene.totals.cpu_usec = Some(2_000_000);
    assert_eq!(since(&scene.stats(3_000)), None);
    assert_eq!(since(&scene.stats(4_000)), at(4_000));
    let now = scene.start + Duration::from_secs(5);
    scene.sampler.fail(now, SystemTime::UNIX_EPOCH, "no procfs".into(), &scene.gpu, &mut scene.round);
    let failed = scene.round.clone();
    assert_eq!((failed.failed.as_deref(), failed.samples.len()), (Some("no procfs"), 0));
    assert_eq!(since(&scene.stats(6_000)), at(6_000));
}

#[test]
fn s3_a_clock_that_is_set_makes_no_stretch_longer_or_shorter() {
    let mut scene = Scene::new();
    let since = |stats: &ProcessStats| stats.idle_since.as_ref().and_then(common::from_timestamp);
    let at = |millis| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
    scene.stats(0);
    assert_eq!(since(&scene.stats(1_000)), at(1_000));
    scene.set = Duration::from_secs(315_360_000);
    assert_eq!(since(&scene.stats(5_000)), at(315_360_001_000), "four seconds ago");
    scene.set += Duration::from_millis(900);
    assert_eq!(since(&scene.stats(6_000)), at(315_360_001_000), "slewing moves nothing");
    scene.set = Duration::ZERO;
    assert_eq!(since(&scene.stats(7_000)), at(1_000));
}

#[test]
fn t4_one_failing_worker_removes_nothing_else() {
    let mut scene = Scene::new();
    let pids = vec![10, 11];
    let good = Reading { slot: 3, counters: Some(scene.totals.clone()) };
    let readings = vec![Reading { slot: 1, counters: None }, good];
    let roster = roster([member(1, "llm", "dead"), member(3, "llm", "good")]);
    let tick = Tick { readings, pids };
    let (now, wall) = (scene.start, SystemTime::UNIX_EPOCH);
    let seen = Seen { now, wall, roster: &roster, tick: &tick, gpu: &scene.gpu, engines: &scene.engines };
    scene.sampler.advance(seen, &mut scene.round);
    let round = scene.round;
    let told: Vec<_> = round.samples.iter().map(|sample| (sample.slot, sample.stats.is_some())).collect();
    assert_eq!((told, round.failed), (vec![(1, false), (3, true)], None));
}

#[test]
fn an_early_round_adds_newcomers_and_keeps_its_time() {
    let mut scene = Scene::new();
    let last = scene.at(1_000);
    let newcomer = Reading { slot: 2, counters: Some(scene.totals.clone()) };
    let tick = Tick { readings: vec![newcomer], pids: vec![10, 11] };
    let roster = roster([scene.member.clone(), member(2, "llm", "new")]);
    let now = scene.start + Duration::from_millis(1_300);
    let wall = SystemTime::now();
    let seen = Seen { now, wall, roster: &roster, tick: &tick, gpu: &scene.gpu, engines: &scene.engines };
    let round = scene.sampler.extend(&last, seen);
    assert_eq!((round.taken, round.sampled_at), (last.taken, last.sampled_at));
    assert_eq!(round.samples.iter().map(|sample| sample.slot).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(round.samples[0], last.samples[0]);
    assert!(round.samples[1].stats.is_some());
}
