//! What the queen's process uses, under the names that Prometheus knows: from procfs, left out where that says nothing.

use nix::unistd::{SysconfVar, sysconf};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::path::PathBuf;

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

/// User and system time in seconds, from `stat`; a second has so many ticks.
fn cpu_seconds(stat: &str, ticks_per_second: i64) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / ticks_per_second as f64)
}

/// Resident memory in bytes, from `status`, which tells it in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// The soft limit on open files, from `limits`.
fn max_fds(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        if let Some(seconds) = self.read("stat").zip(ticks).and_then(|(stat, ticks)| cpu_seconds(&stat, ticks)) {
            let metric = ConstCounter::new(seconds);
            let help = "User and system time of the process";
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, metric.metric_type())?)?;
        }
        let fds = std::fs::read_dir(self.own.join("fd")).ok().map(|all| all.count() as u64);
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                self.read("status").and_then(|status| resident_bytes(&status)),
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
        assert_eq!(cpu_seconds(stat, 100), Some(2.0));
        assert_eq!(cpu_seconds("7 (a", 100), None);
        assert_eq!(resident_bytes("Name:\tqueen\nVmRSS:\t     100 kB\n"), Some(102_400));
        assert_eq!(max_fds("Limit  Soft\nMax open files            1024                 20000   files\n"), Some(1_024));
        assert_eq!(max_fds("Max open files   unlimited unlimited files"), None);
    }
}
