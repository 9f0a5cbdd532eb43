//! Times between Rust and the wire. Values that the wire could carry but no clock could show become `None`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that a `Timestamp` can show: the end of the year 9999.
pub(crate) const LAST_SECOND: i64 = 253_402_300_799;

/// An instant on the wall clock; before 1970 becomes 1970.
pub fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// Back again; `None` before 1970, after 9999 or when out of range.
pub fn from_timestamp(at: &prost_types::Timestamp) -> Option<SystemTime> {
    if at.seconds > LAST_SECOND {
        return None;
    }
    let since =
        Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok().filter(|n| *n < 1_000_000_000)?);
    UNIX_EPOCH.checked_add(since)
}

/// A length of time for the wire.
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// Back again; `None` when negative or out of range.
pub fn from_duration(length: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(length.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(length.seconds).ok()?, nanos))
}
