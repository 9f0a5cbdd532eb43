//! `rbee models`: which models are served, by how many workers, and how many of those are idle.

use super::ps;
use crate::args::{Global, Models, Output};
use crate::failure::Failure;
use crate::show::table::{Cell, Column, layout};
use crate::terminal;
use std::collections::BTreeMap;

const COLUMNS: [Column; 5] = [
    Column::text("MODEL", 0),
    Column::number("WORKERS", 0),
    Column::number("IDLE", 0),
    Column::number("BUSY", 0),
    Column::number("UNKNOWN", 0),
];

/// How many workers of a model do what. Only live samples count as idle or busy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    workers: usize,
    idle: usize,
    busy: usize,
}

/// Lists them.
pub async fn run(global: &Global, args: &Models) -> Result<(), Failure> {
    let answer = ps::list(global, Some(args.selection.filter(None))).await?;
    let counts = count(&answer.workers);
    let entry = |(model, count): (&String, &Count)| {
        let unknown = count.workers - count.idle - count.busy;
        serde_json::json!({
            "model": model, "workers": count.workers, "idle": count.idle, "busy": count.busy, "unknown": unknown
        })
    };
    let entries: Vec<serde_json::Value> = counts.iter().map(entry).collect();
    match global.output {
        Output::Json => terminal::put(format!("{:#}\n", serde_json::json!({ "models": entries }))),
        Output::Jsonl => entries.iter().try_for_each(|entry| terminal::put(format!("{entry}\n"))),
        Output::Name => counts.keys().try_for_each(|model| terminal::put_line(model)),
        Output::Table | Output::Wide => {
            let numbers = |count: &Count| {
                [count.workers, count.idle, count.busy, count.workers - count.idle - count.busy]
                    .map(|number| Cell::plain(number.to_string()))
            };
            let row = |(model, count): (&String, &Count)| {
                std::iter::once(Cell::plain(model)).chain(numbers(count)).collect::<Vec<Cell>>()
            };
            let rows: Vec<Vec<Cell>> = counts.iter().map(row).collect();
            terminal::put(layout(&COLUMNS, &rows, terminal::width(), terminal::colourful(global.color)))?;
            if counts.is_empty() && !global.quiet {
                terminal::say("no worker names a model; `rbee run --model M` does");
            }
            Ok(())
        }
    }
}

fn count(workers: &[proto::Worker]) -> BTreeMap<String, Count> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    for worker in workers {
        let Some(model) = worker.spec.as_ref().and_then(|spec| spec.model.as_ref()) else { continue };
        let count = counts.entry(model.clone()).or_default();
        count.workers += 1;
        let live = worker.freshness() == proto::Freshness::Live;
        match worker.stats.as_ref().map(proto::ProcessStats::activity).filter(|_| live) {
            Some(proto::Activity::Idle) => count.idle += 1,
            Some(proto::Activity::Busy) => count.busy += 1,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_worker_is_neither_idle_nor_busy() {
        let worker = |freshness: proto::Freshness| proto::Worker {
            spec: Some(proto::WorkerSpec { model: Some("m".into()), ..Default::default() }),
            stats: Some(proto::ProcessStats { activity: proto::Activity::Idle.into(), ..Default::default() }),
            freshness: freshness.into(),
            ..Default::default()
        };
        let counts =
            count(&[worker(proto::Freshness::Live), worker(proto::Freshness::Stale), proto::Worker::default()]);
        assert_eq!(counts["m"], Count { workers: 2, idle: 1, busy: 0 });
        assert_eq!(counts.len(), 1);
    }
}
