//! Flags of the verbs that look at the fleet.

use super::parse_pair;
use crate::show::units;
use clap::ValueEnum;
use std::time::Duration;

/// Which workers; all that is given must match.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Selection {
    /// Only workers of this hive
    #[arg(long, value_name = "HIVE")]
    pub hive: Option<String>,
    /// Only workers of this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Only workers with this label (repeatable)
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
}

impl Selection {
    /// As the wire wants it.
    pub fn filter(&self, model: Option<&str>) -> proto::Filter {
        proto::Filter {
            hive: self.hive.clone().unwrap_or_default(),
            group: self.group.clone().unwrap_or_default(),
            model: model.unwrap_or_default().to_owned(),
            labels: self.labels.iter().cloned().collect(),
            ..Default::default()
        }
    }
}

/// `rbee ps`
#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Only these: hive/group/instance, or any run of whole parts of it
    #[arg(value_name = "WORKER")]
    pub workers: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Only workers that have this model
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Order by this column
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Sort::Worker)]
    pub sort: Sort,
    /// Print again whenever something changes
    #[arg(short, long)]
    pub watch: bool,
}

/// What `ps` can be ordered by; numbers from the greatest down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    Worker,
    Model,
    State,
    Activity,
    Cpu,
    Mem,
    IoR,
    IoW,
    Gpu,
    Vram,
    Pid,
    Uptime,
    Age,
}

/// `rbee models`
#[derive(Debug, clap::Args)]
pub struct Models {
    #[command(flatten)]
    pub selection: Selection,
}

/// `rbee describe`
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// A worker (hive/group/instance, or any run of whole parts of it) or a hive
    #[arg(value_name = "WORKER|HIVE")]
    pub name: String,
}

/// `rbee idle`
#[derive(Debug, clap::Args)]
pub struct Idle {
    #[command(flatten)]
    pub selection: Selection,
    /// Only workers that have this model
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Only workers that have been idle for at least this long
    #[arg(long = "for", value_name = "TIME", value_parser = units::parse_duration)]
    pub at_least: Option<Duration>,
    /// What idle means
    #[arg(long, value_enum, value_name = "BASIS", default_value_t = Basis::Auto)]
    pub basis: Basis,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub limit: u32,
    /// Leave out workers whose last sample is older [default: the queen's, 3s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub max_age: Option<Duration>,
    /// Tell of each candidate whether it fits, and everything that speaks against it
    #[arg(long)]
    pub explain: bool,
}

/// What idle means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Basis {
    // Engine, else GPU, else CPU; unknown is never idle
    Auto,
    // A measured GPU use of exactly 0
    Gpu,
}

/// `rbee find`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("wanted").required(true).multiple(true).args(["model", "vram"]))]
pub struct Find {
    /// Workers that have this model
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// How the model's name is compared
    #[arg(long = "match", value_enum, value_name = "HOW", default_value_t = Match::Exact, conflicts_with = "vram")]
    pub how: Match,
    /// GPUs with this much free memory: 8G, 512M, bytes; with --model, --idle or --group workers that have it on one GPU
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub vram: Option<u64>,
    /// Count this much memory of each GPU as used
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "0", hide_default_value = true, requires = "vram")]
    pub headroom: u64,
    /// Only idle ones
    #[arg(long)]
    pub idle: bool,
    #[command(flatten)]
    pub selection: Selection,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub limit: u32,
    /// Leave out workers whose last sample is older [default: the queen's, 3s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub max_age: Option<Duration>,
    /// Tell of each candidate whether it fits, and everything that speaks against it
    #[arg(long)]
    pub explain: bool,
}

/// `rbee forget`
#[derive(Debug, clap::Args)]
pub struct Forget {
    /// A hive that has not been heard from for ten seconds or more
    #[arg(value_name = "HIVE")]
    pub hive: String,
}

/// How the model's name is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Match {
    // Letter by letter
    Exact,
    // Capitals do not matter
    IgnoreCase,
    // With * and ?
    Glob,
}

/// `rbee watch`
#[derive(Debug, clap::Args)]
pub struct Watch {
    #[command(flatten)]
    pub selection: Selection,
    /// Only workers that have this model
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The shortest time between two updates: 0s sends at once, else rounded up to 50ms, 250ms or 1s
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0s")]
    pub interval: Duration,
    /// Go on after this revision, as an earlier watch printed it
    #[arg(long, value_name = "REVISION")]
    pub resume: Option<String>,
}
