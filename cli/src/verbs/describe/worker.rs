//! What is known of one worker, a line for each thing.

use super::{Lines, or_dash, pairs, word};
use crate::naming;
use crate::show::{units, workers};
use crate::verbs::events;
use proto::{Limits, ProcessStats, Worker, WorkerSpec};
use std::time::SystemTime;

/// Its sheet.
pub fn lines(worker: &Worker, now: SystemTime) -> Lines {
    let spec = worker.spec.clone().unwrap_or_default();
    let stats = worker.stats.clone().unwrap_or_default();
    let mut lines = identity(worker, &spec, now);
    lines.extend(life(&spec, now));
    lines.push(("activity", workers::activity(&stats, now).text));
    if !worker.reservation.is_empty() {
        lines.push(("held by", worker.reservation.clone()));
    }
    lines.extend(engine(&spec, &stats));
    lines.extend(kernel(&stats));
    lines.extend(gpus(&spec, &stats));
    lines.extend(placement(&spec));
    lines.push(("sample age", or_dash(worker.age.as_ref().and_then(common::from_duration).map(units::time))));
    lines
}

fn identity(worker: &Worker, spec: &WorkerSpec, now: SystemTime) -> Lines {
    let mut lines = vec![
        ("worker", naming::full(worker)),
        ("model", spec.model_names.join(", ")),
        ("state", workers::state(worker, now).text),
        ("endpoint", or_dash(spec.endpoint.as_ref().map(workers::endpoint))),
        ("pid", if spec.pid == 0 { String::new() } else { spec.pid.to_string() }),
        ("started", or_dash(spec.start_time.as_ref().map(units::instant))),
        ("uptime", or_dash(workers::uptime(worker, now).map(units::time))),
        ("origin", word(spec.origin().as_str_name(), "ORIGIN_")),
        ("command", spec.command.join(" ")),
        ("labels", pairs(&spec.labels)),
    ];
    if !spec.template.is_empty() {
        lines.push(("template", spec.template.clone()));
    }
    if !spec.observed.is_empty() {
        lines.push(("observed", spec.observed.clone()));
    }
    if !spec.user.is_empty() {
        lines.push(("user", spec.user.clone()));
    }
    lines
}

/// Restarts; nothing for a worker that is never started again and never was.
fn life(spec: &WorkerSpec, now: SystemTime) -> Lines {
    let mut lines = Lines::new();
    if spec.restart() != proto::RestartPolicy::Unspecified {
        lines.push(("restart", word(spec.restart().as_str_name(), "RESTART_POLICY_")));
    }
    if spec.restarts > 0 {
        lines.push(("restarts", spec.restarts.to_string()));
    }
    if let Some(exit) = &spec.last_exit {
        lines.push(("last end", events::cause(exit)));
    }
    if let Some(at) = spec.next_start.as_ref().and_then(common::from_timestamp) {
        lines.push(("next start", format!("in {}", units::time(at.duration_since(now).unwrap_or_default()))));
    }
    lines
}

fn engine(spec: &WorkerSpec, stats: &ProcessStats) -> Lines {
    let mut lines = vec![("readiness", word(stats.readiness().as_str_name(), "READINESS_"))];
    if spec.engine() != proto::Engine::Unspecified {
        lines.push(("engine", word(spec.engine().as_str_name(), "ENGINE_")));
    }
    if stats.engine_sample_state() != proto::EngineSampleState::Unspecified {
        lines.push(("engine state", word(stats.engine_sample_state().as_str_name(), "ENGINE_SAMPLE_STATE_")));
        lines.push(("requests", or_dash(workers::requests(stats))));
        lines.push(("tokens/s", or_dash(stats.tokens_per_second.map(units::percent))));
        lines.push(("kv cache", or_dash(stats.kv_cache_pct.map(percent))));
    }
    lines
}

fn kernel(stats: &ProcessStats) -> Lines {
    let size = |bytes: Option<u64>| or_dash(bytes.map(units::size));
    let share = |value: Option<f64>| or_dash(value.map(percent));
    let count = |value: Option<u32>| or_dash(value.map(|count| count.to_string()));
    let pressure = [stats.cpu_pressure_pct, stats.memory_pressure_pct, stats.io_pressure_pct].map(share);
    vec![
        ("cpu", or_dash(stats.cpu_pct.map(|value| percent(value) + " of a core"))),
        ("throttled", share(stats.cpu_throttled_pct)),
        ("memory", size(stats.memory_current_bytes)),
        ("working set", size(stats.working_set_bytes)),
        ("rss", size(stats.rss_bytes)),
        ("anonymous", size(stats.anon_bytes)),
        ("memory peak", size(stats.memory_peak_bytes)),
        ("swap", size(stats.swap_bytes)),
        ("oom kills", count(stats.oom_kills)),
        ("read", or_dash(stats.io_read_bytes_per_second.map(units::rate))),
        ("write", or_dash(stats.io_write_bytes_per_second.map(units::rate))),
        ("processes", count(stats.process_count)),
        ("tasks", count(stats.task_count)),
        ("cpu pressure", pressure[0].clone()),
        ("memory pressure", pressure[1].clone()),
        ("io pressure", pressure[2].clone()),
    ]
}

fn gpus(spec: &WorkerSpec, stats: &ProcessStats) -> Lines {
    let mut lines = vec![
        ("gpu state", word(stats.gpu_sample_state().as_str_name(), "GPU_SAMPLE_STATE_")),
        ("gpu use", or_dash(stats.gpu_util_pct.map(percent))),
        ("vram", or_dash(stats.vram_bytes.map(units::size))),
        ("vram total", or_dash(stats.vram_total_bytes.map(units::size))),
        ("gpus given", spec.gpu_uuids.join(", ")),
    ];
    for gpu in &stats.gpus {
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let (vram, util) = (known(gpu.vram_bytes.map(units::size)), known(gpu.util_pct.map(percent)));
        lines.push(("gpu", format!("{}  {vram}  {util}", gpu.uuid)));
    }
    lines
}

fn placement(spec: &WorkerSpec) -> Lines {
    let placement = spec.placement.clone().unwrap_or_default();
    let mut lines: Lines = asked(&spec.limits.clone().unwrap_or_default())
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(flag, text)| ("asked", format!("{flag} {text}")))
        .collect();
    lines.push(("level", workers::level(placement.level()).to_owned()));
    lines.push(("cgroup", placement.cgroup.clone()));
    lines.push(("applied", pairs(&placement.applied)));
    lines.extend(placement.not_applied.iter().map(|sentence| ("not applied", sentence.clone())));
    lines
}

/// What was asked for, by the flags of `rbee run`.
fn asked(limits: &Limits) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("--cpu", limits.cpu.clone()),
        ("--cpu-weight", limits.cpu_weight.clone()),
        ("--cpus", limits.cpus.clone()),
        ("--memory", limits.memory.clone()),
        ("--memory-high", limits.memory_high.clone()),
        ("--memory-nodes", limits.memory_nodes.clone()),
        ("--swap", limits.swap.clone()),
        ("--pids", limits.processes.clone()),
        ("--vram", limits.vram.clone()),
        ("--nice", or_dash(limits.nice.map(|nice| nice.to_string()))),
    ];
    if limits.oom_group == Some(false) {
        all.push(("--no-oom-group", "(one process at a time)".to_owned()));
    }
    all.extend(limits.io.iter().map(|line| ("--io", line.clone())));
    let mut rlimits: Vec<(&'static str, String)> =
        limits.rlimits.iter().map(|(name, value)| ("--rlimit", format!("{name}={value}"))).collect();
    rlimits.sort();
    all.extend(rlimits);
    all
}

fn percent(value: f64) -> String {
    units::percent(value) + "%"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(lines: &'a Lines, name: &str) -> Option<&'a str> {
        lines.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn what_is_not_known_is_empty_and_zero_is_zero() {
        let stats = ProcessStats { oom_kills: Some(0), ..ProcessStats::default() };
        let told = lines(&Worker { stats: Some(stats), ..Worker::default() }, SystemTime::now());
        assert_eq!(
            (value(&told, "oom kills"), value(&told, "swap"), value(&told, "pid")),
            (Some("0"), Some(""), Some(""))
        );
        assert_eq!((value(&told, "restart"), value(&told, "engine"), value(&told, "asked")), (None, None, None));
    }

    #[test]
    fn a_waiting_worker_says_how_it_ended_and_when_it_starts() {
        let now = SystemTime::now();
        let spec = WorkerSpec {
            restart: proto::RestartPolicy::OnFailure.into(),
            restarts: 3,
            last_exit: Some(proto::ExitCause {
                reason: proto::ExitReason::Code.into(),
                code: Some(7),
                ..Default::default()
            }),
            next_start: Some(common::timestamp(now + std::time::Duration::from_secs(4))),
            limits: Some(Limits { processes: "64".into(), ..Limits::default() }),
            ..WorkerSpec::default()
        };
        let worker = Worker { spec: Some(spec), state: proto::WorkerState::Backoff.into(), ..Worker::default() };
        let told = lines(&worker, now);
        assert_eq!((value(&told, "restart"), value(&told, "restarts")), (Some("on failure"), Some("3")));
        assert_eq!(value(&told, "last end"), Some("ended by itself, code 7"));
        assert_eq!((value(&told, "next start"), value(&told, "asked")), (Some("in 4.0s"), Some("--pids 64")));
        assert_eq!(value(&told, "state"), Some("backoff 4.0s"));
    }
}
