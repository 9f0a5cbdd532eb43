//! One program for all targets: the name of one in `RBEE_FUZZ_TARGET`, libFuzzer's own arguments on the command line.
//! `tests/fuzz/run` does that.
#![no_main]

mod disk;
mod engines;
mod gpus;
mod http2;
mod kernel;
mod limits;
mod machine;
mod observed;
mod wire;
mod words;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Takes any bytes; panics when something is not so that always should be.
type Target = fn(&[u8]);

/// What can be fuzzed. `tests/fuzz/run` reads the names here.
const TARGETS: [(&str, Target); 25] = [
    ("kernel_counters", kernel::counters),
    ("kernel_process", kernel::process),
    ("kernel_sockets", kernel::sockets),
    ("kernel_cgroups", kernel::cgroups),
    ("machine_totals", machine::totals),
    ("machine_blocks", machine::blocks),
    ("machine_mounts", machine::mounts),
    ("limits_asked", limits::asked),
    ("limits_lists", limits::lists),
    ("disk_record", disk::record),
    ("disk_journal", disk::journal),
    ("disk_observations", disk::observations),
    ("gpu_answer", gpus::answer),
    ("gpu_smi", gpus::smi),
    ("gpu_fdinfo", gpus::fdinfo),
    ("engine_metrics", engines::metrics),
    ("engine_json", engines::json),
    ("command_shown", words::command_shown),
    ("command_read", words::command_read),
    ("names", words::names),
    ("configuration", words::configuration),
    ("observed", observed::everything),
    ("wire_columns", wire::columns),
    ("wire_gpus", wire::gpus),
    ("http_frames", http2::connection),
];

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("RBEE_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("RBEE_FUZZ_TARGET is {name:?}, which is none of the targets")).1
});

fuzz_target!(|bytes: &[u8]| (*CHOSEN)(bytes));
