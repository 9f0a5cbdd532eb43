//! How much of a GPU's memory is free: one formula for hives, who grant it, and queens, who look for it. Pure.

/// Bytes that are free: `total − max(used, observed) − held − headroom`, never below zero.
///
/// `used` is what the device itself says, `observed` the sum over the processes that its driver names; the larger one
/// counts. `held` was granted and is not used yet. `None` when the device does not tell its total or what is in use:
/// what is not known is not free.
pub fn free(total: Option<u64>, used: Option<u64>, observed: Option<u64>, held: u64, headroom: u64) -> Option<u64> {
    let taken = used?.max(observed.unwrap_or(0));
    Some(total?.saturating_sub(taken).saturating_sub(held).saturating_sub(headroom))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_two_truths_counts_and_what_is_held_is_taken() {
        assert_eq!(free(Some(24), Some(10), None, 0, 0), Some(14));
        assert_eq!(free(Some(24), Some(10), Some(12), 3, 2), Some(7));
        assert_eq!(free(Some(24), Some(10), Some(4), 3, 2), Some(9));
    }

    #[test]
    fn what_is_not_known_is_not_free_and_nothing_is_below_zero() {
        assert_eq!(free(None, Some(0), Some(0), 0, 0), None);
        assert_eq!(free(Some(24), None, Some(0), 0, 0), None);
        assert_eq!(free(Some(24), Some(30), None, u64::MAX, u64::MAX), Some(0));
    }
}
