//! Flags of the verbs that talk to the hive of this machine.

use super::observe::ProbeKind;
use super::parse_pair;
use crate::show::units;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use std::path::PathBuf;
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
    /// GPUs given to it, by number or UUID
    #[arg(long, value_name = "GPU", value_delimiter = ',')]
    pub gpu: Vec<String>,
    /// Give it a GPU with this much memory free; with --gpu, one of those
    #[arg(long, value_name = "SIZE")]
    pub vram: Option<String>,
    /// The model it serves [default: what its command line or engine says]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Set an environment variable (repeatable)
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    pub env: Vec<(String, String)>,
    /// Hand on nothing of the hive's environment but PATH, HOME, LANG and TZ
    #[arg(long)]
    pub clear_env: bool,
    /// With --clear-env: hand on this variable too (repeatable)
    #[arg(long, value_name = "K", value_delimiter = ',', requires = "clear_env")]
    pub keep_env: Vec<String>,
    /// Run it as this user of the machine; the hive has to be root's
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// Let it gain nothing from setuid programs
    #[arg(long)]
    pub no_new_privileges: bool,
    /// Where it works [default: here]
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// The port it listens on [default: found by looking]
    #[arg(long, value_name = "PORT", conflicts_with = "endpoint")]
    pub port: Option<u16>,
    /// Where clients reach it, when that is not http on its port
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Which engine it is, so that it can be asked what it does
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = ProbeKind::Auto)]
    pub probe: ProbeKind,
    /// Start it again when it ends by itself. When its first process fails and others of it live on, they are killed
    /// 10 s later and it is started again; with `never` they live on. One that ends with code 0 and leaves others behind
    /// has gone into the background, which is no end
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = RestartWhen::Never)]
    pub restart: RestartWhen,
    /// Kill it when it was ready and then is not for this long; --restart says what follows
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub health_timeout: Option<Duration>,
    /// Answer when it is ready: its engine says so, or its port takes connections
    #[arg(long)]
    pub wait: bool,
    /// With --wait: no longer than this
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "10m", requires = "wait")]
    pub wait_timeout: Duration,
    /// Attach a label (repeatable)
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
    /// What it may use. The last, because its heading is that of all that follows.
    #[command(flatten)]
    pub limits: RunLimits,
}

/// What a worker may use, as people write it: the hive says what it does not understand.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct RunLimits {
    /// CPU limit: 200% is two cores
    #[arg(long, value_name = "PERCENT")]
    pub cpu: Option<String>,
    /// Share of the CPU when it is short, beside the other workers: 1 to 10000, 100 is usual
    #[arg(long, value_name = "N")]
    pub cpu_weight: Option<String>,
    /// CPUs it may run on: 0-3,8
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Memory nodes it may use: 0
    #[arg(long, value_name = "LIST")]
    pub memory_nodes: Option<String>,
    /// Memory limit: 4G, 512M, bytes
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Slow it down and reclaim above this much memory, without killing
    #[arg(long, value_name = "SIZE")]
    pub memory_high: Option<String>,
    /// How much of it may be swapped out: 0 is nothing
    #[arg(long, value_name = "SIZE")]
    pub swap: Option<String>,
    /// At its memory limit kill one process, not the whole worker
    #[arg(long)]
    pub no_oom_group: bool,
    /// At most this many processes and threads
    #[arg(long, value_name = "N")]
    pub pids: Option<String>,
    /// Rates of one disk: "/dev/nvme0n1 rbps=100M wiops=1000" (repeatable)
    #[arg(long, value_name = "DISK RATES")]
    pub io: Vec<String>,
    /// Niceness among its own processes and those without a cgroup: -20 to 19
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub nice: Option<i32>,
    /// Limit of each process, as setrlimit(2) names it: nofile=1024:4096 (repeatable)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = parse_pair)]
    pub rlimit: Vec<(String, String)>,
    /// Refuse to start unless every limit can be applied
    #[arg(long)]
    pub require_limits: bool,
}

/// When a worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartWhen {
    // Not at all
    Never,
    // After a code other than 0, a signal, its memory limit or --health-timeout
    OnFailure,
    // After any end that nobody asked for, and after a reboot
    Always,
}

impl From<RestartWhen> for proto::RestartPolicy {
    fn from(when: RestartWhen) -> Self {
        match when {
            RestartWhen::Never => Self::Never,
            RestartWhen::OnFailure => Self::OnFailure,
            RestartWhen::Always => Self::Always,
        }
    }
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

/// `rbee restart`
#[derive(Debug, clap::Args)]
pub struct Restart {
    /// hive/group/instance, or any run of whole parts of it that names one worker
    #[arg(value_name = "WORKER", required = true)]
    pub workers: Vec<String>,
    /// From the polite signal to the end
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "30s")]
    pub grace: Duration,
}
