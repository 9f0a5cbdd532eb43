//! Flags of the verbs that talk to the hive of this machine.

use super::parse_pair;
use crate::show::units;
use clap::builder::NonEmptyStringValueParser;
use std::time::Duration;

/// `rbee run`
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Program and arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Which hive, when this machine runs several
    #[arg(long, value_name = "HIVE")]
    pub hive: Option<String>,
    /// First part of its name
    #[arg(long, value_name = "GROUP", default_value = "default", value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// Second part of its name [default: the next free number]
    #[arg(long, value_name = "INSTANCE", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// CPU limit: 200% is two cores
    #[arg(long, value_name = "PERCENT")]
    pub cpu: Option<String>,
    /// Memory limit: 4G, 512M, bytes
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// GPUs given to it, by number or UUID
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    pub gpu: Vec<String>,
    /// The model it serves [default: what its command line or engine says]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Set an environment variable (repeatable)
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    pub env: Vec<(String, String)>,
    /// The port it listens on [default: found by looking]
    #[arg(long, value_name = "PORT", conflicts_with = "endpoint")]
    pub port: Option<u16>,
    /// Where clients reach it, when that is not http on its port
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Refuse to start unless every limit can be applied
    #[arg(long)]
    pub require_limits: bool,
    /// Attach a label (repeatable)
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
}

/// `rbee events`
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Only of these: group/instance, or any run of whole parts of the name
    #[arg(value_name = "WORKER")]
    pub workers: Vec<String>,
    /// Go on with what happens next
    #[arg(short, long)]
    pub follow: bool,
    /// Only what happened within this time
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub since: Option<Duration>,
}

/// `rbee logs`
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// hive/group/instance, or any run of whole parts of it
    #[arg(value_name = "WORKER")]
    pub worker: String,
    /// Go on with what is written next
    #[arg(short, long)]
    pub follow: bool,
    /// Begin this many lines before the end
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
}

/// `rbee stop`
#[derive(Debug, clap::Args)]
pub struct Stop {
    /// hive/group/instance, or any run of whole parts of it that names one worker
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
    /// From the polite signal to the end
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "30s")]
    pub grace: Duration,
}
