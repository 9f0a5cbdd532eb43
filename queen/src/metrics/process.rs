//! What the queen's process uses, under the names that Prometheus knows: from procfs, left out where that says nothing.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::path::PathBuf;

/// Clock ticks a second and bytes a page: what Linux tells every program on the machines that rbee is built for.
const TICKS: f64 = 100.0;
const PAGE: u64 = 4_096;

/// Reads a procfs.
#[derive(Debug)]
pub struct Process {
    own: PathBuf,
}

impl Process {
    /// Of this process, in a procfs mounted there.
    pub fn new(proc_root: PathBuf) -> Self {
        Self { own: proc_root.join("self") }
    }

    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.own.join(file)).ok()
    }
}

/// User and system time in seconds, from `stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS)
}

/// Resident memory in bytes, from `statm`.
fn resident_bytes(statm: &str) -> Option<u64> {
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}

/// The soft limit on open files, from `limits`.
fn max_fds(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        if let Some(seconds) = self.read("stat").and_then(|stat| cpu_seconds(&stat)) {
            let metric = ConstCounter::new(seconds);
            let help = "User and system time of the process";
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, metric.metric_type())?)?;
        }
        let fds = std::fs::read_dir(self.own.join("fd")).ok().map(|all| all.count() as u64);
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                self.read("statm").and_then(|statm| resident_bytes(&statm)),
            ),
            ("process_open_fds", "Open file descriptors", fds),
            (
                "process_max_fds",
                "Most file descriptors that may be open",
                self.read("limits").and_then(|limits| max_fds(&limits)),
            ),
        ] {
            let Some(value) = value else { continue };
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1000 1 2";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a"), None);
        assert_eq!(resident_bytes("100 25 3 4 5 6 7"), Some(25 * 4_096));
        assert_eq!(max_fds("Limit  Soft\nMax open files            1024                 20000   files\n"), Some(1_024));
        assert_eq!(max_fds("Max open files   unlimited unlimited files"), None);
    }
}
