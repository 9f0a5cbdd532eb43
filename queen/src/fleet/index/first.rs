//! The rows that have been idle for longest, picked out of all that are offered. Pure.

use super::block::IdleFrom;

/// So many times as many rows as are wanted are gathered before the later ones are dropped.
const GATHERED: usize = 4;

/// Keeps the first `wanted` rows, and those that are level with the last of them.
#[derive(Debug)]
pub struct First {
    wanted: usize,
    /// At so many rows the later ones are dropped.
    full: usize,
    rows: Vec<(IdleFrom, u32)>,
    /// Rows beyond this are not among the first; `None` until some were dropped.
    last: Option<IdleFrom>,
}

impl First {
    pub fn new(wanted: usize) -> Self {
        let full = wanted.saturating_mul(GATHERED);
        Self { wanted, full, rows: Vec::new(), last: None }
    }

    #[inline]
    pub fn offer(&mut self, idle_from: IdleFrom, row: u32) {
        if self.last.is_some_and(|last| idle_from > last) {
            return;
        }
        self.rows.push((idle_from, row));
        if self.rows.len() >= self.full {
            self.drop_later();
        }
    }

    /// The rows in order, and up to which number those are all; `None`: everything that was offered.
    pub fn done(mut self) -> (Vec<(IdleFrom, u32)>, Option<IdleFrom>) {
        if self.rows.len() > self.wanted {
            self.drop_later();
        }
        self.rows.sort_unstable();
        (self.rows, self.last)
    }

    fn drop_later(&mut self) {
        let Some(at) = self.wanted.checked_sub(1).filter(|at| *at < self.rows.len()) else { return };
        let (_, (last, _), _) = self.rows.select_nth_unstable(at);
        let last = *last;
        self.rows.retain(|(idle_from, _)| *idle_from <= last);
        self.last = Some(last);
        // Many that are level must not be looked through again and again.
        self.full = self.full.max(self.rows.len().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(wanted: usize, offered: impl IntoIterator<Item = u64>) -> (Vec<u64>, Option<u64>) {
        let mut first = First::new(wanted);
        for (row, number) in (0..).zip(offered) {
            first.offer(IdleFrom::from_number(number), row);
        }
        let (rows, last) = first.done();
        (rows.into_iter().map(|(from, _)| from.number()).collect(), last.map(IdleFrom::number))
    }

    #[test]
    fn the_first_and_those_level_with_the_last_are_kept() {
        assert_eq!(first(2, [5, 3, 9]), (vec![3, 5], Some(5)));
        assert_eq!(first(2, [5, 3]), (vec![3, 5], None), "all there are");
        assert_eq!(first(2, [7, 1, 7, 7, 8]), (vec![1, 7, 7, 7], Some(7)));
        assert_eq!(first(0, [1, 2]).0, [1, 2], "none is wanted: nothing says where to end");
    }

    #[test]
    fn they_are_the_same_whatever_the_order_of_a_thousand() {
        let shuffled = |step: u64| (0..1_000).map(move |at| (at * step) % 1_000 / 3);
        for step in [1, 7, 333, 999] {
            let (rows, last) = first(10, shuffled(step));
            assert_eq!((rows, last), (vec![0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], Some(3)), "step {step}");
        }
    }
}
