//! Numbers of a worker as they are kept until somebody reads them: copied at every change that is watched, so in as few lines
//! of the processor's cache as can be.

use super::{List, Measured, same_names};
use common::columns::Compact;
use proto::{GpuUse, ProcessStats};

/// What a worker's numbers were, in the order in which a reader meets them.
#[derive(Debug)]
#[repr(C)]
pub struct Copied {
    numbers: Compact,
    /// Bit i: `row` says field i more exactly than `numbers`.
    inexact: u32,
    /// It has no GPU, or one that has its own sums: they are not kept twice.
    follows: bool,
    list: List,
    gpus: Vec<GpuUse>,
    row: Option<Box<ProcessStats>>,
}

impl Copied {
    /// As they are.
    pub fn of(stats: &Measured) -> Self {
        Self {
            numbers: Compact::of(&stats.quanta),
            inexact: stats.inexact,
            follows: follows(stats),
            list: stats.list.clone(),
            gpus: stats.gpus.clone(),
            row: stats.row.clone(),
        }
    }

    /// Takes them over, in the room that there is.
    pub fn renew(&mut self, stats: &Measured) {
        self.numbers.write(&stats.quanta);
        // Where all is exact there is no row, and no line of the cache is looked at for it.
        if self.inexact | stats.inexact != 0 {
            self.row.clone_from(&stats.row);
            self.inexact = stats.inexact;
        }
        self.follows = follows(stats);
        if self.follows && self.list.is(&stats.list) {
            return;
        }
        if self.is_on_those_of(stats) {
            for (gpu, from) in self.gpus.iter_mut().zip(&stats.gpus) {
                (gpu.util_pct, gpu.vram_bytes) = (from.util_pct, from.vram_bytes);
            }
        } else {
            self.gpus.clone_from(&stats.gpus);
        }
        self.list = stats.list.clone();
    }

    /// Whether the GPUs are the same, in the same order.
    pub fn is_on_those_of(&self, stats: &Measured) -> bool {
        self.list.is(&stats.list) || same_names(&self.gpus, &stats.gpus)
    }

    /// As a row.
    pub fn row(&self) -> ProcessStats {
        let mut row = self.row.as_deref().cloned().unwrap_or_default();
        self.numbers.quanta().write_fields(!self.inexact, &mut row);
        row.gpus.clone_from(&self.gpus);
        if self.follows {
            for gpu in &mut row.gpus {
                (gpu.util_pct, gpu.vram_bytes) = (row.gpu_util_pct, row.vram_bytes);
            }
        }
        row
    }

    /// As columns have them, if they say everything.
    pub fn numbers(&self) -> Option<&Compact> {
        (self.inexact == 0).then_some(&self.numbers)
    }

    /// Whether it is on no GPU.
    pub fn has_no_gpu(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether what it uses of each GPU follows from the sums: of none, or of one.
    pub fn follows_sums(&self) -> bool {
        self.follows
    }

    /// Its use of each GPU, where columns say everything.
    pub fn gpus(&self) -> impl Iterator<Item = GpuUse> {
        let sums = self.follows.then(|| self.numbers.quanta().gpu_sums());
        self.gpus.iter().map(move |gpu| match sums {
            Some((util_pct, vram_bytes)) => GpuUse { util_pct, vram_bytes, ..gpu.clone() },
            None => gpu.clone(),
        })
    }

    /// Has what a reader needs of it on its way from memory.
    #[inline]
    pub fn touch(&self) -> i64 {
        self.numbers.touch()
    }
}

fn follows(stats: &Measured) -> bool {
    stats.list.is_empty() || matches!(stats.gpus.as_slice(), [only] if (only.util_pct, only.vram_bytes) == stats.sums())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::columns::Quanta;
    use common::gpus::Uses;

    fn measured(cpu_pct: f64, sums: (f64, u64), gpus: &[(&str, f64, u64)]) -> Measured {
        let gpu = |(uuid, util, vram): &(&str, f64, u64)| GpuUse {
            uuid: (*uuid).to_owned(),
            util_pct: Some(*util),
            vram_bytes: Some(*vram),
        };
        let stats = ProcessStats {
            cpu_pct: Some(cpu_pct),
            gpu_util_pct: Some(sums.0),
            vram_bytes: Some(sums.1),
            gpus: gpus.iter().map(gpu).collect(),
            ..ProcessStats::default()
        };
        Measured::of(Quanta::of(&stats), stats)
    }

    #[test]
    fn whatever_was_there_before_it_says_what_it_was_copied_from() {
        let all = [
            Measured::default(),
            measured(1.0, (0.0, 0), &[]),
            measured(2.0, (5.0, 4_096), &[("a", 5.0, 4_096)]),
            measured(3.0, (6.0, 8_192), &[("a", 6.0, 8_192)]),
            measured(3.0, (6.0, 8_192), &[("b", 6.0, 8_192)]),
            measured(4.0, (6.0, 8_192), &[("a", 1.0, 4_096)]),
            measured(4.0, (6.0, 8_192), &[("a", 5.0, 4_096), ("b", 1.0, 4_096)]),
            measured(1.0 / 3.0, (7.0, 4_097), &[("a", 7.0, 4_097)]),
        ];
        for (before, after) in all.iter().flat_map(|before| all.iter().map(move |after| (before, after))) {
            let mut copied = Copied::of(before);
            let names = |stats: &Measured| stats.gpus().iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>();
            assert_eq!(copied.is_on_those_of(after), names(before) == names(after));
            copied.renew(after);
            assert_eq!(copied.row(), after.row(), "after {before:?}");
            assert_eq!(copied.numbers().map(Compact::quanta), (after.inexact == 0).then_some(after.quanta));
            assert_eq!(copied.has_no_gpu(), after.gpus().is_empty());
            if after.inexact == 0 {
                assert_eq!(copied.gpus().collect::<Vec<_>>(), after.gpus());
            }
        }
    }

    #[test]
    fn numbers_move_on_the_same_list_of_gpus() {
        let mut stats = measured(2.0, (5.0, 4_096), &[("a", 5.0, 4_096)]);
        let mut copied = Copied::of(&stats);
        let one =
            |util, vram| Uses::Rows(vec![GpuUse { uuid: "a".into(), util_pct: Some(util), vram_bytes: Some(vram) }]);
        let (sums, apart) = (Uses::Sole("a".into()), one(1.0, 8_192));
        for (uses, cpu_pct) in [(&sums, 5.0), (&apart, 6.0), (&apart, 7.0), (&sums, 8.0), (&sums, 9.0)] {
            let row = ProcessStats { gpu_util_pct: Some(cpu_pct), ..stats.row() };
            stats.quanta = Quanta::of(&row);
            stats.write_gpus(uses);
            copied.renew(&stats);
            assert!(copied.list.is(&stats.list));
            assert_eq!((copied.row(), copied.gpus().collect::<Vec<_>>()), (stats.row(), stats.gpus().to_vec()));
        }
    }

    #[test]
    fn another_list_of_gpus_is_noticed_on_the_same_worker() {
        let mut stats = measured(2.0, (5.0, 4_096), &[("a", 5.0, 4_096)]);
        let mut copied = Copied::of(&stats);
        stats.write_gpus(&Uses::Sole("a".into()));
        assert!(copied.is_on_those_of(&stats) && copied.list.is(&stats.list), "told by what it is called alone");
        stats.write_gpus(&Uses::Sole("b".into()));
        assert!(!copied.is_on_those_of(&stats));
        copied.renew(&stats);
        assert_eq!(copied.row(), stats.row());
        stats.write_gpus(&Uses::default());
        assert!(!copied.is_on_those_of(&stats));
    }
}
