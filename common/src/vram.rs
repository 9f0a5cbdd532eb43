//! How much memory of a GPU may still be granted: one formula, for the hive that grants and for the queen that looks for
//! somebody to ask. Pure; nothing wraps around, and what is not known is absent.

/// The memory of one GPU, in bytes, as far as its driver tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: Option<u64>,
    /// What the device says is in use, by anybody.
    pub used: Option<u64>,
    /// Sum over the processes that the driver names; absent when it does not tell how much they hold.
    pub observed: Option<u64>,
    /// Granted or promised, and not used yet: a sum of [`due`].
    pub held: u64,
}

impl Memory {
    /// What may be granted if `headroom` bytes are to stay free beside it:
    /// total − max(used, observed) − held − headroom, and never less than nothing. `None` when the driver does not tell
    /// the total or what is in use.
    pub fn free(&self, headroom: u64) -> Option<u64> {
        let in_use = self.used?.max(self.observed.unwrap_or(0));
        Some(self.total?.saturating_sub(in_use).saturating_sub(self.held).saturating_sub(headroom))
    }
}

impl From<&proto::Gpu> for Memory {
    fn from(gpu: &proto::Gpu) -> Self {
        Self {
            total: gpu.memory_total_bytes,
            used: gpu.memory_used_bytes,
            observed: gpu.observed_bytes,
            held: gpu.held_bytes,
        }
    }
}

/// What somebody who was granted memory, and uses some already, may still come to use: it counts as taken.
pub fn due(granted: u64, used: u64) -> u64 {
    granted.saturating_sub(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = 1 << 30;

    fn memory(total: u64, used: u64) -> Memory {
        Memory { total: Some(total), used: Some(used), ..Memory::default() }
    }

    #[test]
    fn g1_free_is_what_nobody_uses_and_nobody_was_granted() {
        let gpu = Memory { observed: Some(10 * G), held: 3 * G, ..memory(24 * G, 6 * G) };
        assert_eq!((gpu.free(0), gpu.free(2 * G)), (Some(11 * G), Some(9 * G)));
        assert_eq!(Memory { observed: None, ..gpu }.free(0), Some(15 * G));
        assert_eq!((due(8 * G, 3 * G), due(8 * G, 9 * G)), (5 * G, 0));
    }

    #[test]
    fn g1_too_much_of_anything_leaves_nothing_and_does_not_wrap_around() {
        let gpu = memory(24 * G, 6 * G);
        for full in [
            memory(24 * G, u64::MAX),
            Memory { observed: Some(u64::MAX), ..gpu },
            Memory { held: u64::MAX, ..gpu },
            Memory { held: 20 * G, ..gpu },
        ] {
            assert_eq!((full.free(0), full.free(u64::MAX)), (Some(0), Some(0)), "{full:?}");
        }
    }

    #[test]
    fn g1_what_is_not_known_is_no_room() {
        let gpu = memory(24 * G, 6 * G);
        assert_eq!(Memory { total: None, ..gpu }.free(0), None);
        assert_eq!(Memory { used: None, observed: Some(G), ..gpu }.free(0), None);
        assert_eq!(Memory::from(&proto::Gpu::default()).free(0), None);
    }
}
