//! In which order workers are answered, and where a page ended. What is not known comes last, whatever the order.

use super::room;
use crate::fleet::{Measured, Seen};
use common::{HiveId, WorkerId};
use proto::FindOrder;
use std::fmt;
use std::time::Instant;

/// Half of the numbers that a moment can have: those below it are before the queen started.
const STARTED: u64 = 1 << 63;

/// A worker's place in the order asked for, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    unknown: bool,
    value: u64,
}

impl Rank {
    /// Of one worker. `started`: when the queen did.
    pub fn of(seen: &Seen<'_>, order: FindOrder, started: Instant) -> Self {
        let value = match order {
            FindOrder::Unspecified | FindOrder::Name => Some(0),
            FindOrder::LongestIdle => seen.idle_from().map(|from| since(started, from)),
            // Numbers of hives are neither negative nor NaN, and then their bits are in their order.
            FindOrder::LeastCpu => seen.stats().and_then(Measured::cpu_pct).map(f64::to_bits),
            FindOrder::MostFreeVram => room::most_free(seen).map(|free| !free),
        };
        Self { unknown: value.is_none(), value: value.unwrap_or(0) }
    }
}

/// A moment as a number that never decreases, in nanoseconds.
fn since(started: Instant, at: Instant) -> u64 {
    let nanos = |length: std::time::Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    match at.checked_duration_since(started) {
        Some(after) => STARTED.saturating_add(nanos(after)),
        None => STARTED.saturating_sub(nanos(started.saturating_duration_since(at))),
    }
}

/// Where a page ended. What it was ordered by may have changed since: whoever moved past this place meanwhile is seen
/// twice or not at all, as in any list that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// How many have been answered up to here.
    pub(super) given: usize,
    pub(super) rank: Rank,
    pub(super) hive: HiveId,
    pub(super) id: WorkerId,
}

impl Cursor {
    /// Reads what [`Cursor`]'s `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let given = parts.next()?.parse().ok()?;
        let rank = match parts.next()? {
            "-" => Rank { unknown: true, value: 0 },
            value => Rank { unknown: false, value: u64::from_str_radix(value, 16).ok()? },
        };
        match WorkerId::parse(parts.next()?) {
            Ok((Some(hive), id)) => Some(Self { given, rank, hive, id }),
            _ => None,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.given)?;
        if self.rank.unknown {
            write!(f, "-")?
        } else {
            write!(f, "{:x}", self.rank.value)?
        }
        write!(f, "/{}/{}", self.hive, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let (hive, id) = (HiveId::parse("box").unwrap(), WorkerId::new("llm", "8080").unwrap());
        for rank in [Rank { unknown: false, value: u64::MAX }, Rank { unknown: true, value: 0 }] {
            let cursor = Cursor { given: 7, rank, hive: hive.clone(), id: id.clone() };
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }
        for bad in ["", "7", "7/-", "7/-/box", "7/-/llm/8080", "-1/-/box/llm/8080", "7/g/box/llm/8080", "x/-/a/b/c"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_longer_idle_comes_first_also_from_before_the_queen_started() {
        let started = Instant::now() + Duration::from_secs(10);
        let before = since(started, started - Duration::from_secs(1));
        assert!(before < since(started, started));
        assert!(since(started, started) < since(started, started + Duration::from_nanos(1)));
        let unknown = Rank { unknown: true, value: 0 };
        assert!(Rank { unknown: false, value: u64::MAX } < unknown, "what is not known comes last");
    }
}
