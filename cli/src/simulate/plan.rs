//! What is to be simulated: sizes, and how likely each thing is in one round.

use std::time::Duration;

/// Hives that begin in a second, so that many do not meet in one millisecond.
const BEGIN_PER_SECOND: f64 = 1_000.0;
const MINUTE: f64 = 60.0;

/// A fleet that does not exist. Shares are parts of one; those of churn, kill and stall are for a minute.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Hives.
    pub hives: u32,
    /// Workers of each.
    pub workers: u32,
    /// From one round to the next.
    pub rate: Duration,
    /// Workers with new numbers in a round.
    pub changed: f64,
    /// Workers that end and are replaced; as many change their model.
    pub churn: f64,
    /// Hives that are cut off and come back from another boot.
    pub kill: f64,
    /// Hives that stand still.
    pub stall: f64,
    /// Whether each keeps a tunnel open too, on a connection of its own.
    pub tunnels: bool,
    /// Where all randomness comes from.
    pub seed: u64,
    /// What hives' names begin with.
    pub prefix: String,
}

impl Plan {
    /// The name of a hive.
    pub fn name(&self, index: u32) -> String {
        format!("{}-{index:05}", self.prefix)
    }

    /// Connections in all.
    pub fn connections(&self) -> u64 {
        u64::from(self.hives) * (1 + u64::from(self.tunnels))
    }

    /// How long after the first hive this one begins; also where in a round it stands.
    pub fn begins(&self, index: u32) -> Duration {
        let spread = (f64::from(self.hives) / BEGIN_PER_SECOND).max(self.rate.as_secs_f64());
        Duration::from_secs_f64(spread * f64::from(index) / f64::from(self.hives.max(1)))
    }

    /// The probability in one round of what happens to this part in a minute.
    pub fn in_a_round(&self, in_a_minute: f64) -> f64 {
        (in_a_minute * self.rate.as_secs_f64() / MINUTE).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_are_spread_over_a_round_at_least() {
        let plan = |hives| Plan {
            hives,
            workers: 1,
            rate: Duration::from_secs(1),
            changed: 1.0,
            churn: 0.0,
            kill: 0.6,
            stall: 0.0,
            tunnels: true,
            seed: 1,
            prefix: "sim".to_owned(),
        };
        assert_eq!(plan(10).begins(5), Duration::from_millis(500));
        assert_eq!(plan(10_000).begins(9_000), Duration::from_secs(9));
        assert_eq!(plan(10).connections(), 20);
        assert!((plan(1).in_a_round(0.6) - 0.01).abs() < 1e-9);
    }
}
