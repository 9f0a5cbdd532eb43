//! What is known of one hive, a line for each thing.

use super::{Lines, or_dash, pairs, word};
use crate::show::{units, workers};
use crate::verbs::{gpus, hives};

/// Its sheet.
pub fn lines(hive: &proto::Hive) -> Lines {
    let mut lines = vec![
        ("hive", hive.id.clone()),
        ("state", hives::state(hive).text),
        ("health", hives::health(hive).text),
        ("hostname", hive.hostname.clone()),
        ("advertise", hive.advertise.clone()),
        ("version", hive.version.clone()),
        ("kernel", hive.kernel.clone()),
        ("workers", hive.worker_count.to_string()),
        ("remote start", if hive.remote_start { "on" } else { "off" }.to_owned()),
        ("cpus", hive.cpu_count.to_string()),
        ("memory", or_dash(hive.memory_total_bytes.map(units::size))),
    ];
    lines.extend(host(&hive.host.clone().unwrap_or_default()));
    lines.extend([
        ("slice", hive.slice.clone()),
        ("socket", hive.socket.clone()),
        ("level", workers::level(hive.placement_level()).to_owned()),
        ("boot id", hive.boot_id.clone()),
        ("labels", pairs(&hive.labels)),
        ("gpu state", word(hive.gpu_sample_state().as_str_name(), "GPU_SAMPLE_STATE_")),
        ("gpu driver", or_dash(hive.gpu_driver_version.clone())),
    ]);
    lines.extend(hive.gpus.iter().flat_map(gpu));
    lines.extend(hive.health_reasons.iter().map(|reason| ("reason", reason.clone())));
    lines.push(("sample age", or_dash(hive.age.as_ref().and_then(common::from_duration).map(units::time))));
    lines
}

fn host(host: &proto::HostStats) -> Lines {
    let loads = [host.load_1, host.load_5, host.load_15].map(|load| load.map(|load| format!("{load:.2}")));
    let swap = host.swap_used_bytes.zip(host.swap_total_bytes);
    let mut lines = vec![
        ("cpu", or_dash(host.cpu_pct.map(|value| units::percent(value) + "% of a core"))),
        ("available", or_dash(host.memory_available_bytes.map(units::size))),
        ("swap", or_dash(swap.map(|(used, total)| format!("{} of {} used", units::size(used), units::size(total))))),
        ("load", loads.into_iter().flatten().collect::<Vec<_>>().join(" ")),
    ];
    lines.extend(host.disks.iter().map(disk));
    lines
}

fn disk(disk: &proto::Disk) -> (&'static str, String) {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let room = disk.free_bytes.zip(disk.total_bytes);
    let room = room.map(|(free, total)| format!("{} of {} free", units::size(free), units::size(total)));
    let rates = [disk.read_bytes_per_second, disk.write_bytes_per_second].map(|rate| known(rate.map(units::rate)));
    let busy = known(disk.busy_pct.map(|value| units::percent(value) + "% busy"));
    let [read, write] = rates;
    ("disk", format!("{}  {}  {}  read {read}  write {write}  {busy}", disk.device, disk.mount, known(room)))
}

/// A line for the GPU, and one for each stranger who holds its memory.
fn gpu(gpu: &proto::Gpu) -> Lines {
    let mut lines = vec![("gpu", format!("{}  {}  {}", gpu.uuid, gpu.name, gpus::figures(gpu).join("  ")))];
    lines.extend(gpu.foreign.iter().map(|process| ("foreign", format!("{}  {}", gpu.uuid, gpus::stranger(process)))));
    lines
}
