//! Flags of the verbs that act on any hive.

use super::parse_pair;
use crate::show::units;
use clap::builder::NonEmptyStringValueParser;
use std::time::Duration;

/// `rbee start`
#[derive(Debug, clap::Args)]
pub struct Start {
    /// The template's name, as `rbee templates` lists it
    #[arg(value_name = "TEMPLATE", value_parser = NonEmptyStringValueParser::new())]
    pub template: String,
    /// On this hive [default: the only one that has the template]
    #[arg(long, value_name = "HIVE")]
    pub hive: Option<String>,
    /// A parameter of the template (repeatable)
    #[arg(long = "set", value_name = "K=V", value_parser = parse_pair)]
    pub parameters: Vec<(String, String)>,
    /// First part of its name
    #[arg(long, value_name = "GROUP", default_value = "default", value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// Second part of its name [default: the next free number]
    #[arg(long, value_name = "INSTANCE", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Attach a label (repeatable)
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
    /// With what this reservation holds
    #[arg(long, value_name = "ID")]
    pub reservation: Option<String>,
    /// Answer when it is ready: its engine says so, or its port takes connections
    #[arg(long)]
    pub wait: bool,
    /// With --wait: no longer than this
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "10m", requires = "wait")]
    pub wait_timeout: Duration,
}

/// `rbee templates`
#[derive(Debug, clap::Args)]
pub struct Templates {
    /// Of this hive [default: all that the queen knows]
    #[arg(long, value_name = "HIVE")]
    pub hive: Option<String>,
}

/// `rbee drain`, `rbee undrain`
#[derive(Debug, clap::Args)]
pub struct Drain {
    /// The hive, as `rbee hives` lists it
    #[arg(value_name = "HIVE")]
    pub hive: String,
}
