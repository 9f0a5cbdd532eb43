//! Workers as rows.

use super::json;
use super::table::{Cell, Column, Tint, layout};
use super::units;
use crate::args::{Global, Output, Sort};
use crate::failure::Failure;
use crate::{naming, terminal};
use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

/// Columns of every table of workers; the second half is for `-o wide`.
const COLUMNS: [Column; 23] = [
    Column::text("WORKER", 0),
    Column::text("MODEL", 0),
    Column::word("STATE", 0),
    Column::word("ACTIVITY", 1),
    Column::number("REQS", 3),
    Column::number("TOK/S", 5),
    Column::number("CPU%", 0),
    Column::number("MEM", 0),
    Column::number("IO-R", 6),
    Column::number("IO-W", 6),
    Column::number("GPU%", 2),
    Column::number("VRAM", 2),
    Column::number("PID", 5),
    Column::number("UPTIME", 4),
    Column::text("ENDPOINT", 7),
    Column::number("AGE", 3),
    Column::word("HELD", 7),
    Column::number("RSS", 8),
    Column::number("WSET", 8),
    Column::number("THROT%", 8),
    Column::number("RESTARTS", 8),
    Column::word("LEVEL", 8),
    Column::text("COMMAND", 9),
];
/// So many of them without `-o wide`.
const NARROW: usize = 16;

/// Prints an answer that is a list of workers: `whole` is the message they came in, called `name` in the contract.
pub fn print<M: prost::Message>(
    global: &Global,
    name: &str,
    whole: &M,
    workers: &[proto::Worker],
) -> Result<(), Failure> {
    match global.output {
        Output::Json => json::print(name, whole),
        Output::Jsonl => workers.iter().try_for_each(|worker| json::print_line("Worker", worker)),
        Output::Name => workers.iter().try_for_each(|worker| terminal::put_line(&naming::full(worker))),
        Output::Table | Output::Wide => terminal::put(table(global, workers)),
    }
}

/// The table alone.
pub fn table(global: &Global, workers: &[proto::Worker]) -> String {
    let now = SystemTime::now();
    let columns = if global.output == Output::Wide { &COLUMNS[..] } else { &COLUMNS[..NARROW] };
    let rows: Vec<Vec<Cell>> = workers.iter().map(|worker| row(worker, now)).collect();
    let width = if global.output == Output::Wide { None } else { terminal::width() };
    layout(columns, &rows, width, terminal::colourful(global.color))
}

fn row(worker: &proto::Worker, now: SystemTime) -> Vec<Cell> {
    let spec = worker.spec.clone().unwrap_or_default();
    let stats = worker.stats.clone().unwrap_or_default();
    let level = spec.placement.as_ref().map(|placement| level(placement.level()).to_owned());
    let known = Cell::known;
    vec![
        Cell::plain(naming::full(worker)),
        known(spec.model.clone()),
        state(worker, now),
        activity(&stats, now),
        known(requests(&stats)),
        known(stats.tokens_per_second.map(units::percent)),
        known(stats.cpu_pct.map(units::percent)),
        known(stats.memory_current_bytes.map(units::size)),
        known(stats.io_read_bytes_per_second.map(units::rate)),
        known(stats.io_write_bytes_per_second.map(units::rate)),
        known(stats.gpu_util_pct.map(units::percent)),
        known(stats.vram_bytes.map(units::size)),
        known((spec.pid != 0).then(|| spec.pid.to_string())),
        known(uptime(worker, now).map(units::time)),
        known(spec.endpoint.as_ref().map(endpoint)),
        known(worker.age.as_ref().and_then(common::from_duration).map(units::time)),
        known(Some(worker.reservation.clone())),
        known(stats.rss_bytes.map(units::size)),
        known(stats.working_set_bytes.map(units::size)),
        known(stats.cpu_throttled_pct.map(units::percent)),
        known((spec.restarts > 0).then(|| spec.restarts.to_string())),
        known(level),
        known(Some(spec.command.join(" "))),
    ]
}

/// "2+1": requests that its engine works on, and that wait.
pub fn requests(stats: &proto::ProcessStats) -> Option<String> {
    match (stats.requests_running, stats.requests_waiting) {
        (None, None) => None,
        (running, waiting) => {
            let shown = |count: Option<u32>| count.map_or("?".to_owned(), |count| count.to_string());
            Some(format!("{}+{}", shown(running), shown(waiting)))
        }
    }
}

/// Running, and how far that can be believed.
pub fn state(worker: &proto::Worker, now: SystemTime) -> Cell {
    match worker.freshness() {
        proto::Freshness::Stale => return Cell::tinted("stale", Tint::Yellow),
        proto::Freshness::Lost => return Cell::tinted("lost", Tint::Red),
        proto::Freshness::Live | proto::Freshness::Unspecified => {}
    }
    match worker.state() {
        proto::WorkerState::Unspecified => Cell::known(None),
        proto::WorkerState::Running if is_not_ready(worker) => Cell::tinted("not ready", Tint::Yellow),
        proto::WorkerState::Running => Cell::plain("running"),
        proto::WorkerState::Starting => Cell::tinted("starting", Tint::Yellow),
        proto::WorkerState::Backoff => Cell::tinted(until_start("backoff", worker, now), Tint::Yellow),
        proto::WorkerState::CrashLoop => Cell::tinted(until_start("crash loop", worker, now), Tint::Red),
        proto::WorkerState::Stopping => Cell::tinted("stopping", Tint::Yellow),
    }
}

fn is_not_ready(worker: &proto::Worker) -> bool {
    worker.stats.as_ref().is_some_and(|stats| stats.readiness() == proto::Readiness::NotReady)
}

/// "backoff 4.0s": how long it still waits for its next start.
fn until_start(word: &str, worker: &proto::Worker, now: SystemTime) -> String {
    let next = worker.spec.as_ref().and_then(|spec| spec.next_start.as_ref()).and_then(common::from_timestamp);
    match next.and_then(|next| next.duration_since(now).ok()) {
        Some(rest) => format!("{word} {}", units::time(rest)),
        None => word.to_owned(),
    }
}

/// Busy, idle and for how long, or unknown.
pub fn activity(stats: &proto::ProcessStats, now: SystemTime) -> Cell {
    match stats.activity() {
        proto::Activity::Unspecified => Cell::known(None),
        proto::Activity::Unknown => Cell::tinted("unknown", Tint::Dim),
        proto::Activity::Busy => Cell::plain("busy"),
        proto::Activity::Idle => {
            let since = stats.idle_since.as_ref().and_then(common::from_timestamp);
            let length = since.and_then(|since| now.duration_since(since).ok());
            Cell::tinted(
                length.map_or("idle".to_owned(), |length| format!("idle {}", units::time(length))),
                Tint::Green,
            )
        }
    }
}

/// How long it has been running: as told, else from its start on this machine's clock.
pub fn uptime(worker: &proto::Worker, now: SystemTime) -> Option<Duration> {
    let told = worker.stats.as_ref().and_then(|stats| stats.uptime.as_ref()).and_then(common::from_duration);
    let start = worker.spec.as_ref().and_then(|spec| spec.start_time.as_ref()).and_then(common::from_timestamp);
    told.or_else(|| now.duration_since(start?).ok())
}

/// As a client would write it.
pub fn endpoint(endpoint: &proto::Endpoint) -> String {
    let scheme = if endpoint.scheme.is_empty() { "http" } else { &endpoint.scheme };
    let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    format!("{scheme}://{host}:{}", endpoint.port)
}

/// The step of the ladder, in one word.
pub fn level(level: proto::PlacementLevel) -> &'static str {
    match level {
        proto::PlacementLevel::Unspecified => "",
        proto::PlacementLevel::Full => "full",
        proto::PlacementLevel::Cgroup => "cgroup",
        proto::PlacementLevel::Process => "process",
    }
}

/// Orders workers by a column: texts upwards, numbers downwards, the unknown last, equals by name.
pub fn sort(workers: &mut [proto::Worker], by: Sort) {
    workers.sort_by(|a, b| compare(a, b, by).then_with(|| naming::full(a).cmp(&naming::full(b))));
}

fn compare(a: &proto::Worker, b: &proto::Worker, by: Sort) -> Ordering {
    let now = SystemTime::UNIX_EPOCH;
    let word = |worker: &proto::Worker| -> Option<String> {
        match by {
            Sort::Model => worker.spec.as_ref()?.model.clone(),
            Sort::State => Some(state(worker, now).text),
            Sort::Activity => Some(activity(worker.stats.as_ref()?, now).text),
            _ => None,
        }
    };
    let number = |worker: &proto::Worker| -> Option<f64> {
        let stats = worker.stats.as_ref();
        match by {
            Sort::Cpu => stats?.cpu_pct,
            Sort::Mem => stats?.memory_current_bytes.map(|bytes| bytes as f64),
            Sort::IoR => stats?.io_read_bytes_per_second,
            Sort::IoW => stats?.io_write_bytes_per_second,
            Sort::Gpu => stats?.gpu_util_pct,
            Sort::Vram => stats?.vram_bytes.map(|bytes| bytes as f64),
            Sort::Pid => worker.spec.as_ref().map(|spec| -f64::from(spec.pid)),
            // The oldest start is the longest time.
            Sort::Uptime => worker.spec.as_ref()?.start_time.as_ref().map(|start| -(start.seconds as f64)),
            Sort::Age => worker.age.as_ref().map(|age| age.seconds as f64 + f64::from(age.nanos) * 1e-9),
            Sort::Worker | Sort::Model | Sort::State | Sort::Activity => None,
        }
    };
    let words = match (word(a), word(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    words.then_with(|| match (number(a), number(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(instance: &str, cpu: Option<f64>) -> proto::Worker {
        proto::Worker {
            spec: Some(proto::WorkerSpec {
                hive: "box".into(),
                group: "llm".into(),
                instance: instance.into(),
                ..Default::default()
            }),
            stats: Some(proto::ProcessStats { cpu_pct: cpu, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn the_unknown_is_a_dash_and_zero_is_zero() {
        let cells = row(&worker("a", Some(0.0)), SystemTime::now());
        assert_eq!(cells[6].text, "0.0");
        let cells = row(&worker("a", None), SystemTime::now());
        assert!(cells[1..NARROW].iter().all(|cell| cell.text == "-"), "{cells:?}");
        assert_eq!(cells.len(), COLUMNS.len());
    }

    #[test]
    fn requests_of_which_one_part_is_known_say_so() {
        let stats = |running, waiting| proto::ProcessStats {
            requests_running: running,
            requests_waiting: waiting,
            ..Default::default()
        };
        assert_eq!(requests(&stats(Some(2), Some(0))).as_deref(), Some("2+0"));
        assert_eq!(requests(&stats(Some(2), None)).as_deref(), Some("2+?"));
        assert_eq!(requests(&stats(None, None)), None);
    }

    #[test]
    fn workers_are_ordered_with_the_unknown_last() {
        let mut workers = [worker("a", None), worker("b", Some(1.0)), worker("c", Some(9.0)), worker("d", Some(1.0))];
        sort(&mut workers, Sort::Cpu);
        let order: Vec<String> = workers.iter().map(|w| w.spec.clone().unwrap().instance).collect();
        assert_eq!(order, ["c", "b", "d", "a"]);
    }
}
