//! `rbee watch`: a line for everything that changes, for ever.

use crate::args::{Global, Output, Watch};
use crate::failure::Failure;
use crate::follow::Follow;
use crate::show::{json, units, workers};
use crate::{naming, terminal};
use proto::watch_response::Event;
use std::fmt::Write;
use std::time::SystemTime;

/// Follows until it is interrupted.
pub async fn run(global: &Global, args: Watch) -> Result<(), Failure> {
    let request = proto::WatchRequest {
        filter: Some(args.selection.filter(args.model.as_deref())),
        resume_after: args.resume.unwrap_or_default(),
        min_interval: Some(common::duration(args.interval)),
        ..Default::default()
    };
    let mut follow = Follow::open(global, request).await?;
    loop {
        let message = follow.next().await?;
        match global.output {
            Output::Json | Output::Jsonl => json::print_next(global.output, "WatchResponse", &message)?,
            Output::Name => terminal::put(names(&message))?,
            Output::Table | Output::Wide => terminal::put(lines(&message, global.verbose > 0, SystemTime::now()))?,
        }
    }
}

fn names(message: &proto::WatchResponse) -> String {
    let Some(Event::Update(update)) = &message.event else { return String::new() };
    update.workers.iter().map(|worker| terminal::plain(&naming::full(worker)) + "\n").collect()
}

fn lines(message: &proto::WatchResponse, verbose: bool, now: SystemTime) -> String {
    let at = units::instant(&common::timestamp(now));
    let mut out = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing into a String cannot fail.
        let _written = writeln!(out, "{at}  {}", terminal::plain(&words.to_string()));
    };
    match &message.event {
        Some(Event::SnapshotBegin(begin)) => {
            let reason = begin.reason().as_str_name().trim_start_matches("SNAPSHOT_REASON_");
            line(format_args!("snapshot {}", reason.to_lowercase().replace('_', " ")));
        }
        Some(Event::SnapshotEnd(end)) => line(format_args!("snapshot complete at {}", end.revision)),
        Some(Event::Update(update)) => {
            for hive in &update.hives {
                line(format_args!("hive {}  {}", hive.id, hive_words(hive)));
            }
            for worker in &update.workers {
                line(format_args!("worker {}  {}", naming::full(worker), worker_words(worker)));
            }
            for name in &update.removed_workers {
                line(format_args!("worker {name}  gone"));
            }
            for name in &update.removed_hives {
                line(format_args!("hive {name}  gone"));
            }
        }
        Some(Event::Bookmark(mark)) if verbose => line(format_args!(
            "bookmark {}  {} workers, {} available  {} hives, {} available",
            mark.revision, mark.workers_online, mark.workers_available, mark.hives_online, mark.hives_available
        )),
        Some(Event::Bookmark(_)) | None => {}
    }
    out
}

fn hive_words(hive: &proto::Hive) -> String {
    let state = super::hives::state(hive).text;
    let health = super::hives::health(hive).text;
    let reasons = hive.health_reasons.join("; ");
    if reasons.is_empty() { format!("{state}  {health}") } else { format!("{state}  {health}: {reasons}") }
}

fn worker_words(worker: &proto::Worker) -> String {
    let stats = worker.stats.clone().unwrap_or_default();
    let now = SystemTime::now();
    let mut words = vec![workers::state(worker, now).text, workers::activity(&stats, now).text];
    let mut also = |name: &str, value: Option<String>| words.extend(value.map(|value| format!("{name} {value}")));
    also("model", worker.spec.as_ref().and_then(|spec| spec.model.clone()));
    also("cpu", stats.cpu_pct.map(|value| units::percent(value) + "%"));
    also("mem", stats.memory_current_bytes.map(units::size));
    also("read", stats.io_read_bytes_per_second.map(units::rate));
    also("write", stats.io_write_bytes_per_second.map(units::rate));
    also("gpu", stats.gpu_util_pct.map(|value| units::percent(value) + "%"));
    also("vram", stats.vram_bytes.map(units::size));
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(event: Event, verbose: bool) -> String {
        lines(&proto::WatchResponse { event: Some(event) }, verbose, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn an_end_is_one_line() {
        let update = proto::Update { removed_workers: vec!["box/llm/1\x1b[2J".into()], ..Default::default() };
        assert_eq!(told(Event::Update(update), false), "1970-01-01T00:00:00Z  worker box/llm/1 [2J  gone\n");
    }

    #[test]
    fn bookmarks_are_shown_on_request() {
        let mark = proto::Bookmark { revision: "q:7".into(), workers_online: 3, ..Default::default() };
        assert_eq!(told(Event::Bookmark(mark.clone()), false), "");
        assert!(told(Event::Bookmark(mark), true).contains("bookmark q:7  3 workers"));
    }
}
