//! When a process started and how long it has been running, out of the kernel's clock ticks. Pure.

use std::time::{Duration, SystemTime};

/// When a process started, on the wall clock. `start_ticks` counts from boot, as in `/proc/<pid>/stat`.
pub fn start_time(start_ticks: u64, ticks_per_second: u64, boot_time: SystemTime) -> SystemTime {
    boot_time.checked_add(from_ticks(start_ticks, ticks_per_second)).unwrap_or(boot_time)
}

/// How long a process has been running. `since_boot` is what CLOCK_BOOTTIME shows.
pub fn uptime(start_ticks: u64, ticks_per_second: u64, since_boot: Duration) -> Duration {
    since_boot.saturating_sub(from_ticks(start_ticks, ticks_per_second))
}

fn from_ticks(ticks: u64, per_second: u64) -> Duration {
    let per_second = per_second.max(1);
    let nanos = u128::from(ticks % per_second) * 1_000_000_000 / u128::from(per_second);
    Duration::from_secs(ticks / per_second) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collect_calculates_uptime() {
        assert_eq!(uptime(150, 100, Duration::from_millis(3_600_500)), Duration::from_millis(3_599_000));
        assert_eq!(uptime(1000, 100, Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn a_start_time_is_boot_plus_ticks() {
        let boot = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(start_time(250, 100, boot), boot + Duration::from_millis(2_500));
        assert_eq!(start_time(u64::MAX, 1, boot), boot);
        assert_eq!(start_time(5, 0, boot), boot + Duration::from_secs(5));
    }
}
