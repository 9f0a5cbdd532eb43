//! In which order workers are answered, and where a page ended. What is not known comes last, whatever the order.

use super::room;
use crate::fleet::index::IdleFrom;
use crate::fleet::{Measured, Seen};
use common::{HiveId, WorkerId};
use proto::FindOrder;
use std::fmt;
use std::time::Instant;

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
            FindOrder::LongestIdle => seen.idle_from().map(|from| IdleFrom::of(started, from).number()),
            // Numbers of hives are neither negative nor NaN, and then their bits are in their order.
            FindOrder::LeastCpu => seen.stats().and_then(Measured::cpu_pct).map(f64::to_bits),
            FindOrder::MostFreeVram => room::most_free(seen).map(|free| !free),
        };
        Self { unknown: value.is_none(), value: value.unwrap_or(0) }
    }

    /// In the order of idleness: since when, if that is known.
    pub fn idle_from(&self) -> Option<IdleFrom> {
        (!self.unknown).then(|| IdleFrom::from_number(self.value))
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
    fn what_is_not_known_comes_last() {
        assert!(Rank { unknown: false, value: u64::MAX } < Rank { unknown: true, value: 0 });
    }
}
