//! `rbee gpus`: every GPU of the fleet, who uses it, and who else holds its memory.

use super::{hives, ps};
use crate::args::{Global, Output};
use crate::failure::Failure;
use crate::show::table::{Cell, Column, Tint, layout};
use crate::show::{json, units};
use crate::terminal;
use proto::GpuSampleState;

const COLUMNS: [Column; 11] = [
    Column::text("HIVE", 0),
    Column::number("GPU", 0),
    Column::text("NAME", 2),
    Column::number("USED", 0),
    Column::number("TOTAL", 0),
    Column::number("GPU%", 0),
    Column::number("TEMP", 4),
    Column::number("POWER", 5),
    Column::number("WORKERS", 1),
    Column::text("FOREIGN", 3),
    Column::text("UUID", 6),
];

/// Lists them. As JSON they come as the hives that have them.
pub async fn run(global: &Global) -> Result<(), Failure> {
    let mut answer = hives::list(global).await?;
    answer.hives.retain(|hive| !hive.gpus.is_empty());
    match global.output {
        Output::Json => json::print("ListHivesResponse", &answer),
        Output::Jsonl => answer.hives.iter().try_for_each(|hive| json::print_line("Hive", hive)),
        Output::Name => {
            let all = answer.hives.iter().flat_map(|hive| &hive.gpus);
            all.into_iter().try_for_each(|gpu| terminal::put_line(&gpu.uuid))
        }
        Output::Table | Output::Wide => {
            let fleet = ps::list(global, None).await?.workers;
            let numbered = |hive: &proto::Hive| -> Vec<Vec<Cell>> {
                hive.gpus.iter().enumerate().map(|(at, gpu)| row(hive, at, gpu, &fleet)).collect()
            };
            let rows: Vec<Vec<Cell>> = answer.hives.iter().flat_map(numbered).collect();
            let width = if global.output == Output::Wide { None } else { terminal::width() };
            terminal::put(layout(&COLUMNS, &rows, width, terminal::colourful(global.color)))?;
            if rows.is_empty() && !global.quiet {
                terminal::say("no hive has told of a GPU; `rbee doctor` on that machine says why");
            }
            Ok(())
        }
    }
}

fn row(hive: &proto::Hive, at: usize, gpu: &proto::Gpu, fleet: &[proto::Worker]) -> Vec<Cell> {
    let known = Cell::known;
    // Whose driver does not answer, of that nobody knows who uses it.
    let silent =
        gpu.error.is_some() || matches!(hive.gpu_sample_state(), GpuSampleState::Timeout | GpuSampleState::Error);
    let users = fleet.iter().filter(|worker| {
        let here = worker.spec.as_ref().is_some_and(|spec| spec.hive == hive.id);
        here && worker.stats.as_ref().is_some_and(|stats| stats.gpus.iter().any(|part| part.uuid == gpu.uuid))
    });
    let name = match (&gpu.error, hive.gpu_sample_state()) {
        (Some(error), _) => Cell::tinted(format!("{} ({error})", gpu.name), Tint::Red),
        (None, GpuSampleState::Timeout) => Cell::tinted(format!("{} (driver hangs)", gpu.name), Tint::Red),
        (None, GpuSampleState::Stale) => Cell::tinted(format!("{} (stale)", gpu.name), Tint::Yellow),
        _ => Cell::plain(&gpu.name),
    };
    let foreign: Vec<String> = gpu.foreign.iter().map(stranger).collect();
    vec![
        Cell::plain(&hive.id),
        Cell::plain(at.to_string()),
        name,
        known(gpu.memory_used_bytes.map(units::size)),
        known(gpu.memory_total_bytes.map(units::size)),
        known(gpu.util_pct.map(units::percent)),
        known(gpu.temperature_celsius.map(|celsius| format!("{celsius:.0}°C"))),
        known(gpu.power_watts.map(|watts| format!("{watts:.0}W"))),
        known((!silent).then(|| users.count().to_string())),
        known(Some(foreign.join(", "))),
        Cell::plain(&gpu.uuid),
    ]
}

/// What is known of a GPU in numbers, each with its unit.
pub fn figures(gpu: &proto::Gpu) -> Vec<String> {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let used = known(gpu.memory_used_bytes.map(units::size));
    let total = known(gpu.memory_total_bytes.map(units::size));
    let mut figures = vec![format!("{used} of {total} used"), known(gpu.util_pct.map(|v| units::percent(v) + "%"))];
    figures.extend(gpu.temperature_celsius.map(|celsius| format!("{celsius:.0}°C")));
    figures.extend(gpu.power_watts.map(|watts| match gpu.power_limit_watts {
        Some(limit) => format!("{watts:.0} of {limit:.0} W"),
        None => format!("{watts:.0} W"),
    }));
    figures.extend(gpu.ecc_uncorrected.map(|errors| format!("{errors} ECC errors")));
    figures.extend(gpu.parent_uuid.as_ref().map(|parent| format!("part of {parent}")));
    figures.extend(gpu.error.clone());
    figures
}

/// "python3 4242 8.0G": who holds memory without being a worker.
pub fn stranger(process: &proto::ForeignProcess) -> String {
    let name = if process.name.is_empty() { "?" } else { &process.name };
    let pid = if process.pid == 0 { "(pid not visible)".to_owned() } else { process.pid.to_string() };
    let vram = process.vram_bytes.map_or("-".to_owned(), units::size);
    format!("{name} {pid} {vram}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_shows_its_users_and_strangers() {
        let gpu = proto::Gpu {
            uuid: "GPU-1".into(),
            name: "H100".into(),
            memory_used_bytes: Some(8 << 30),
            foreign: vec![proto::ForeignProcess { pid: 42, name: "python3".into(), vram_bytes: None }],
            ..Default::default()
        };
        let hive = proto::Hive { id: "box".into(), gpus: vec![gpu.clone()], ..Default::default() };
        let part = proto::GpuUse { uuid: "GPU-1".into(), ..Default::default() };
        let worker = |hive: &str| proto::Worker {
            spec: Some(proto::WorkerSpec { hive: hive.into(), ..Default::default() }),
            stats: Some(proto::ProcessStats { gpus: vec![part.clone()], ..Default::default() }),
            ..Default::default()
        };
        let texts: Vec<String> =
            row(&hive, 0, &gpu, &[worker("box"), worker("other")]).into_iter().map(|cell| cell.text).collect();
        assert_eq!(texts, ["box", "0", "H100", "8.0G", "-", "-", "-", "-", "1", "python3 42 -", "GPU-1"]);
        assert_eq!(texts.len(), COLUMNS.len());
    }

    #[test]
    fn figures_leave_out_what_no_driver_said() {
        assert_eq!(figures(&proto::Gpu::default()), ["- of - used", "-"]);
        let hot = proto::Gpu { power_watts: Some(320.4), power_limit_watts: Some(700.0), ..Default::default() };
        assert_eq!(figures(&hot)[2], "320 of 700 W");
    }
}
