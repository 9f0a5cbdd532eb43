//! Flags of `rbee simulate`.

use crate::show::units;
use std::time::Duration;

/// `rbee simulate`
#[derive(Debug, Clone, clap::Args)]
pub struct Simulate {
    /// How many hives, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub hives: u32,
    /// Workers of each hive
    #[arg(long, value_name = "M", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub workers: u32,
    /// Time from one round of samples to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::parse_duration)]
    pub rate: Duration,
    /// Workers that have new numbers in a round
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = parse_share)]
    pub changed: f64,
    /// Workers that end and are replaced in a minute; as many change their model
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = parse_share)]
    pub churn: f64,
    /// Hives that are cut off in a minute, and come back as if their machine had booted
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = parse_share)]
    pub kill: f64,
    /// Hives that stand still for five seconds in a minute
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = parse_share)]
    pub stall: f64,
    /// Each hive also keeps a tunnel open, on a second connection, as real ones do
    #[arg(long)]
    pub tunnels: bool,
    /// How long, before it is checked that the queen has everything [default: until it is stopped]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// What everything that happens follows from
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// What the names of the hives begin with
    #[arg(long, value_name = "NAME", default_value = "sim")]
    pub prefix: String,
    /// Also watch, so that the frames of sessions that were cut are accounted for
    #[arg(long)]
    pub watch: bool,
    /// Time between two lines
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::parse_duration)]
    pub report: Duration,
}

/// "5%", "0.5%/min" or "5" → that part of one.
fn parse_share(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches("/min").trim_end_matches('%');
    let percent = number.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| format!("{text:?} is not a share: use 0% to 100%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!((parse_share("5%"), parse_share("10%/min"), parse_share("100")), (Ok(0.05), Ok(0.1), Ok(1.0)));
        assert!(parse_share("101%").is_err() && parse_share("-1%").is_err() && parse_share("NaN").is_err());
    }
}
