//! How much of a peer's talk is borne that makes work and brings nothing: requests that are taken back as soon as they are made,
//! pings, settings, empty pieces. Each has a budget that fills again with time.

use tokio::time::Instant;

/// A budget of `most`, which fills again at `each_second`.
#[derive(Debug)]
pub struct Budget {
    left: f32,
    most: f32,
    each_second: f32,
    /// When it was last filled: nothing is asked of the clock before it is first spent from.
    filled: Option<Instant>,
}

impl Budget {
    /// A full one.
    pub const fn new(most: u16, each_second: u16) -> Self {
        Self { left: most as f32, most: most as f32, each_second: each_second as f32, filled: None }
    }

    /// Spends one; whether there was one left.
    pub fn spend(&mut self, now: Instant) -> bool {
        let passed = self.filled.replace(now).map_or(0.0, |filled| (now - filled).as_secs_f32());
        self.left = (self.left + passed * self.each_second).min(self.most) - 1.0;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_budget_is_spent_and_fills_again() {
        let (mut budget, mut now) = (Budget::new(10, 2), Instant::now());
        assert!((0..10).all(|_| budget.spend(now)));
        assert!(!budget.spend(now));
        now += Duration::from_secs(1);
        assert_eq!([(); 3].map(|()| budget.spend(now)), [true, false, false]);
        now += Duration::from_secs(3_600);
        assert_eq!((0..20).filter(|_| budget.spend(now)).count(), 10, "it never holds more");
    }
}
