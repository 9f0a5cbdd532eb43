//! Flags of the verbs about reservations.

use super::look::{Match, Selection};
use crate::show::units;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use std::time::Duration;

/// `rbee reserve`. What goes with one kind of thing only conflicts with the others: clap forgets that an argument is
/// required where another one excludes it.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("wanted").required(true).args(["worker", "model", "vram"]))]
pub struct Reserve {
    /// This worker: hive/group/instance, or any run of whole parts of it (repeatable: all of them or none)
    #[arg(long, value_name = "WORKER")]
    pub worker: Vec<String>,
    /// Any worker that has this model; the one that was idle longest comes first
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// How the model's name is compared
    #[arg(long = "match", value_enum, value_name = "HOW", default_value_t = Match::Exact, conflicts_with_all = ["worker", "vram"])]
    pub how: Match,
    /// Only an idle one
    #[arg(long, conflicts_with_all = ["worker", "vram"])]
    pub idle: bool,
    /// This much memory on one GPU: 8G, 512M, bytes
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub vram: Option<u64>,
    /// Leave this much memory free beside it
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "0", hide_default_value = true, conflicts_with_all = ["worker", "model"])]
    pub headroom: u64,
    /// Only on this GPU
    #[arg(long, value_name = "UUID", conflicts_with_all = ["worker", "model"], value_parser = NonEmptyStringValueParser::new())]
    pub gpu: Option<String>,
    /// Which GPU comes first among those with room
    #[arg(long, value_enum, value_name = "HOW", default_value_t = FitKind::Best, conflicts_with_all = ["worker", "model"])]
    pub fit: FitKind,
    /// So many of them, all or none
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "worker")]
    pub count: u32,
    #[command(flatten)]
    pub selection: Selection,
    /// How long it lives unless it is renewed [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub ttl: Option<Duration>,
    /// A name for this wish: asking again with the same key never holds twice
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub key: Option<String>,
    /// Who asks, for people [default: your user name]
    #[arg(long, value_name = "TEXT")]
    pub holder: Option<String>,
}

/// Which GPU comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FitKind {
    // The one with least to spare
    Best,
    // By hive and position
    First,
    // The one with most to spare
    MostFree,
}

/// `rbee renew`
#[derive(Debug, clap::Args)]
pub struct Renew {
    /// The reservation
    #[arg(value_name = "ID")]
    pub id: String,
    /// How long it lives from now on [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub ttl: Option<Duration>,
}

/// `rbee release`
#[derive(Debug, clap::Args)]
pub struct Release {
    /// The reservations
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}
