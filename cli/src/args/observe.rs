//! Flags of `rbee observe` and `rbee config`.

use super::parse_pair;
use clap::builder::NonEmptyStringValueParser;
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

/// `rbee observe`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is never signalled and never limited: rbee only looks. A unit or container is followed through \
its restarts.\nWhere a name is not clear: pid:4242, unit:ollama, container:ollama."
)]
pub struct Observe {
    /// A process id, a systemd unit (ollama.service), or the name or id of a container
    #[arg(value_name = "PID|UNIT|CONTAINER", required_unless_present = "end", value_parser = NonEmptyStringValueParser::new())]
    pub target: Option<String>,
    /// Look away from this worker again; it goes on
    #[arg(long, value_name = "WORKER", conflicts_with_all = ["target", "group", "name", "port", "endpoint", "probe", "model", "labels"])]
    pub end: Option<String>,
    /// Which hive, when this machine runs several
    #[arg(long, value_name = "HIVE")]
    pub hive: Option<String>,
    /// First part of its name [default: observed]
    #[arg(long, value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// Second part of its name [default: made from the unit's, container's or program's]
    #[arg(long, value_name = "INSTANCE", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// The port it listens on [default: found by looking]
    #[arg(long, value_name = "PORT", conflicts_with = "endpoint")]
    pub port: Option<u16>,
    /// Where clients reach it, when that is not http on its port
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Which engine it is, so that it can be asked what it does
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = ProbeKind::Auto)]
    pub probe: ProbeKind,
    /// The model it serves [default: what its command line or engine says]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Attach a label (repeatable)
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
}

/// How the engine of a worker is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbeKind {
    // From its command line, else from what its port answers
    Auto,
    // It is asked nothing
    None,
    // llama.cpp's server
    Llama,
    Vllm,
    Sglang,
    Tgi,
    Ollama,
}

impl ProbeKind {
    /// As the wire numbers it.
    pub fn from_wire(probe: i32) -> Self {
        let fits = |kind: &&Self| i32::from(proto::Probe::from(**kind)) == probe;
        Self::value_variants().iter().find(fits).copied().unwrap_or(Self::Auto)
    }

    /// As it is typed.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl From<ProbeKind> for proto::Probe {
    fn from(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Auto => Self::Auto,
            ProbeKind::None => Self::None,
            ProbeKind::Llama => Self::LlamaCpp,
            ProbeKind::Vllm => Self::Vllm,
            ProbeKind::Sglang => Self::Sglang,
            ProbeKind::Tgi => Self::Tgi,
            ProbeKind::Ollama => Self::Ollama,
        }
    }
}

/// `rbee config`
#[derive(Debug, clap::Args)]
pub struct Config {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// What can be done with the configuration files of a hive and a queen.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Read the files of the hive and the queen here and say what is wrong with them
    Check(ConfigFile),
    /// Print what a hive and a queen started here would be told, and where each setting comes from
    Show(ConfigFile),
}

/// What stands below the help of `config check` and `config show`.
const EXAMPLE: &str = r#"A file, of which every line may be left out:
  [hive]
  name = "box"
  queen = ["http://10.0.0.1:7833"]
  labels = { rack = "7" }
  template-dir = "/etc/rbee/templates"
  token-file = "/etc/rbee/token"  # also tls-ca, tls-name

  [[observe]]                     # as often as wanted
  unit = "ollama.service"         # or container = "vllm", or process = "llama-server" or "*vllm serve*"
  group = "llm"
  name = "ollama"
  probe = "ollama"                # also port or endpoint, model, labels

  [queen]                         # in queen.toml; every bound is also a variable, RBEE_MAX_HIVES
  listen = "0.0.0.0:7833"
  tls-cert = "/etc/rbee/cert.pem"
  tls-key = "/etc/rbee/key.pem"
  token-dir = "/etc/rbee/tokens"
  max-hives = 20000"#;

/// Which file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct ConfigFile {
    /// [default: $RBEE_CONFIG, else hive.toml and queen.toml in /etc/rbee for root, else in ~/.config/rbee]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}
