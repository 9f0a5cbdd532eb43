//! `rbee describe WORKER|HIVE`: everything that is known about one of them.

use super::{hives, ps};
use crate::args::{Global, Output};
use crate::failure::Failure;
use crate::show::{json, units, workers};
use crate::{naming, terminal};
use std::time::SystemTime;

/// Prints it. A name that is a hive's means the hive.
pub async fn run(global: &Global, name: &str) -> Result<(), Failure> {
    let hives = hives::list(global).await?.hives;
    if let Some(hive) = hives.into_iter().find(|hive| hive.id == name) {
        return match global.output {
            Output::Json | Output::Jsonl => {
                json::print_next(global.output, "GetHiveResponse", &proto::GetHiveResponse { hive: Some(hive) })
            }
            Output::Name => terminal::put(format!("{}\n", hive.id)),
            Output::Table | Output::Wide => terminal::put(sheet(&hive_lines(&hive))),
        };
    }
    let fleet = ps::list(global, None).await?.workers;
    let worker = naming::unique(name, &fleet).map_err(|failure| match failure {
        Failure::Nothing(_) => Failure::Nothing(format!(
            "neither a worker nor a hive is called {name:?}; `rbee ps` and `rbee hives` list them"
        )),
        other => other,
    })?;
    match global.output {
        Output::Json | Output::Jsonl => {
            let answer = proto::GetWorkerResponse { worker: Some(worker.clone()) };
            json::print_next(global.output, "GetWorkerResponse", &answer)
        }
        Output::Name => terminal::put(naming::full(worker) + "\n"),
        Output::Table | Output::Wide => terminal::put(sheet(&worker_lines(worker, SystemTime::now()))),
    }
}

type Lines = Vec<(&'static str, String)>;

/// A name and a value on each line; what is not known is a dash.
fn sheet(lines: &Lines) -> String {
    let widest = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in lines {
        let clean: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let shown = if clean.is_empty() { "-" } else { &clean };
        out.push_str(&format!("{name:<widest$}  {shown}\n"));
    }
    out
}

fn worker_lines(worker: &proto::Worker, now: SystemTime) -> Lines {
    let spec = worker.spec.clone().unwrap_or_default();
    let stats = worker.stats.clone().unwrap_or_default();
    let placement = spec.placement.clone().unwrap_or_default();
    let limits = spec.limits.clone().unwrap_or_default();
    let or_dash = |value: Option<String>| value.unwrap_or_default();
    let origin = spec.origin().as_str_name().trim_start_matches("ORIGIN_").to_lowercase();
    let mut lines = vec![
        ("worker", naming::full(worker)),
        ("model", spec.model_names.join(", ")),
        ("state", workers::state(worker).text),
        ("activity", workers::activity(&stats, now).text),
        ("endpoint", or_dash(spec.endpoint.as_ref().map(workers::endpoint))),
        ("pid", spec.pid.to_string()),
        ("started", or_dash(spec.start_time.as_ref().map(units::instant))),
        ("uptime", or_dash(workers::uptime(worker, now).map(units::time))),
        ("origin", origin),
        ("command", spec.command.join(" ")),
        ("labels", pairs(&spec.labels)),
        ("cpu", or_dash(stats.cpu_pct.map(|value| units::percent(value) + "% of a core"))),
        ("memory", or_dash(stats.memory_current_bytes.map(units::size))),
        ("rss", or_dash(stats.rss_bytes.map(units::size))),
        ("read", or_dash(stats.io_read_bytes_per_second.map(units::rate))),
        ("write", or_dash(stats.io_write_bytes_per_second.map(units::rate))),
        ("processes", or_dash(stats.process_count.map(|count| count.to_string()))),
        ("gpu state", stats.gpu_sample_state().as_str_name().trim_start_matches("GPU_SAMPLE_STATE_").to_lowercase()),
        ("gpu use", or_dash(stats.gpu_util_pct.map(|value| units::percent(value) + "%"))),
        ("vram", or_dash(stats.vram_bytes.map(units::size))),
        ("vram total", or_dash(stats.vram_total_bytes.map(units::size))),
        ("gpus given", spec.gpu_uuids.join(", ")),
        ("cpu limit", limits.cpu),
        ("memory limit", limits.memory),
        ("level", workers::level(placement.level()).to_owned()),
        ("cgroup", placement.cgroup.clone()),
        ("applied", pairs(&placement.applied)),
    ];
    for gpu in &stats.gpus {
        let vram = or_dash(gpu.vram_bytes.map(units::size));
        let util = or_dash(gpu.util_pct.map(|value| units::percent(value) + "%"));
        lines.push(("gpu", format!("{}  {vram}  {util}", gpu.uuid)));
    }
    lines.extend(placement.not_applied.iter().map(|sentence| ("not applied", sentence.clone())));
    lines.push(("sample age", or_dash(worker.age.as_ref().and_then(common::from_duration).map(units::time))));
    lines
}

fn hive_lines(hive: &proto::Hive) -> Lines {
    let or_dash = |value: Option<String>| value.unwrap_or_default();
    let gpu_state = hive.gpu_sample_state().as_str_name().trim_start_matches("GPU_SAMPLE_STATE_").to_lowercase();
    let mut lines = vec![
        ("hive", hive.id.clone()),
        ("state", hives::state(hive).text),
        ("health", hives::health(hive).text),
        ("hostname", hive.hostname.clone()),
        ("advertise", hive.advertise.clone()),
        ("version", hive.version.clone()),
        ("workers", hive.worker_count.to_string()),
        ("cpus", hive.cpu_count.to_string()),
        ("memory", or_dash(hive.memory_total_bytes.map(units::size))),
        ("slice", hive.slice.clone()),
        ("socket", hive.socket.clone()),
        ("level", workers::level(hive.placement_level()).to_owned()),
        ("boot id", hive.boot_id.clone()),
        ("labels", pairs(&hive.labels)),
        ("gpu state", gpu_state),
    ];
    for gpu in &hive.gpus {
        let used = gpu.memory_used_bytes.map_or("-".to_owned(), units::size);
        let total = gpu.memory_total_bytes.map_or("-".to_owned(), units::size);
        let util = gpu.util_pct.map_or("-".to_owned(), |value| units::percent(value) + "%");
        lines.push(("gpu", format!("{}  {}  {used} of {total} used  {util}", gpu.uuid, gpu.name)));
    }
    lines.extend(hive.health_reasons.iter().map(|reason| ("reason", reason.clone())));
    lines.push(("sample age", or_dash(hive.age.as_ref().and_then(common::from_duration).map(units::time))));
    lines
}

fn pairs(map: &std::collections::HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(", ")
}
