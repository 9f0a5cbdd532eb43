//! `rbee hives`: the machines.

use crate::args::{Global, Output};
use crate::connect;
use crate::failure::Failure;
use crate::show::table::{Cell, Column, Tint, layout};
use crate::show::{json, units, workers};
use crate::terminal;

/// Hives in one answer; the queen is asked again for the next.
const PAGE: i32 = 1_000;

const COLUMNS: [Column; 11] = [
    Column::text("HIVE", 0),
    Column::word("STATE", 0),
    Column::word("HEALTH", 0),
    Column::number("WORKERS", 0),
    Column::number("CPUS", 2),
    Column::number("MEM", 2),
    Column::text("GPUS", 0),
    Column::word("LEVEL", 4),
    Column::text("HOST", 5),
    Column::word("VERSION", 6),
    Column::number("AGE", 1),
];

/// Lists them.
pub async fn run(global: &Global) -> Result<(), Failure> {
    let answer = list(global).await?;
    match global.output {
        Output::Json => json::print("ListHivesResponse", &answer),
        Output::Jsonl => answer.hives.iter().try_for_each(|hive| json::print_line("Hive", hive)),
        Output::Name => answer.hives.iter().try_for_each(|hive| terminal::put_line(&hive.id)),
        Output::Table | Output::Wide => {
            let rows: Vec<Vec<Cell>> = answer.hives.iter().map(row).collect();
            let width = if global.output == Output::Wide { None } else { terminal::width() };
            terminal::put(layout(&COLUMNS, &rows, width, terminal::colourful(global.color)))?;
            if answer.hives.is_empty() && !global.quiet {
                terminal::say("no hives; start one with `rbee up` or `rbee hive`");
            }
            Ok(())
        }
    }
}

/// All hives that the queen knows, in one answer.
pub async fn list(global: &Global) -> Result<proto::ListHivesResponse, Failure> {
    let mut client = connect::fleet(global).await?;
    let mut whole = proto::ListHivesResponse::default();
    loop {
        let page_token = std::mem::take(&mut whole.next_page_token);
        let request = proto::ListHivesRequest { page_size: PAGE, page_token };
        let page = connect::answer(global.timeout, "list hives", client.list_hives(request)).await?;
        let last = page.next_page_token.is_empty() || page.hives.is_empty();
        whole.hives.extend(page.hives);
        whole.revision = page.revision;
        if last {
            return Ok(whole);
        }
        whole.next_page_token = page.next_page_token;
    }
}

fn row(hive: &proto::Hive) -> Vec<Cell> {
    let known = Cell::known;
    vec![
        Cell::plain(&hive.id),
        state(hive),
        health(hive),
        Cell::plain(hive.worker_count.to_string()),
        known((hive.cpu_count > 0).then(|| hive.cpu_count.to_string())),
        known(hive.memory_total_bytes.map(units::size)),
        known(Some(gpus(hive))),
        known(Some(workers::level(hive.placement_level()).to_owned())),
        known(Some(hive.advertise.clone())),
        known(Some(hive.version.clone())),
        known(hive.age.as_ref().and_then(common::from_duration).map(units::time)),
    ]
}

/// What it does, unless what we know of it is old.
pub fn state(hive: &proto::Hive) -> Cell {
    match hive.freshness() {
        proto::Freshness::Stale => return Cell::tinted("stale", Tint::Yellow),
        proto::Freshness::Lost => return Cell::tinted("lost", Tint::Red),
        proto::Freshness::Live | proto::Freshness::Unspecified => {}
    }
    match hive.operational_status() {
        proto::OperationalStatus::Unspecified => Cell::known(None),
        proto::OperationalStatus::Starting => Cell::tinted("starting", Tint::Yellow),
        proto::OperationalStatus::Ready => Cell::tinted("ready", Tint::Green),
        proto::OperationalStatus::Draining => Cell::tinted("draining", Tint::Yellow),
        proto::OperationalStatus::Stopping => Cell::tinted("stopping", Tint::Yellow),
    }
}

/// Healthy or degraded.
pub fn health(hive: &proto::Hive) -> Cell {
    match hive.health_status() {
        proto::HealthStatus::Unspecified => Cell::known(None),
        proto::HealthStatus::Healthy => Cell::plain("healthy"),
        proto::HealthStatus::Degraded => Cell::tinted("degraded", Tint::Yellow),
    }
}

/// "2× NVIDIA H100, 12.0G of 160G used": sums only what is known.
fn gpus(hive: &proto::Hive) -> String {
    let Some(first) = hive.gpus.first() else { return String::new() };
    let same = hive.gpus.iter().all(|gpu| gpu.name == first.name);
    let name = if same { first.name.as_str() } else { "GPUs" };
    let used: Option<u64> = hive.gpus.iter().map(|gpu| gpu.memory_used_bytes).sum();
    let total: Option<u64> = hive.gpus.iter().map(|gpu| gpu.memory_total_bytes).sum();
    let room = match (used, total) {
        (Some(used), Some(total)) => format!(", {} of {} used", units::size(used), units::size(total)),
        _ => String::new(),
    };
    format!("{}× {name}{room}", hive.gpus.len())
}
