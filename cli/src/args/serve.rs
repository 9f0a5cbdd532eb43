//! Flags of the verbs that run a part of rbee.

use super::parse_pair;
use crate::show::units;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Most demo workers that `up` starts.
const DEMO_MAX: i64 = 64;

/// `rbee up`
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Also start N demo workers [3 when no number is given]
    #[arg(long, value_name = "N", num_args = 0..=1, default_value_t = 0, default_missing_value = "3", hide_default_value = true,
          value_parser = clap::value_parser!(u32).range(0..=DEMO_MAX))]
    pub demo: u32,
    /// Open the dashboard in a browser
    #[arg(long)]
    pub open: bool,
    #[command(flatten)]
    pub queen: Queen,
    #[command(flatten)]
    pub agent: Agent,
}

/// What `queen` and `up` know about the queen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the queen")]
pub struct Queen {
    /// Address for gRPC, grpc-web and the dashboard; port 0 takes a free one
    /// [default: 127.0.0.1:7833]. Other machines can only reach it with TLS and tokens
    #[arg(long, env = "RBEE_LISTEN", value_name = "IP:PORT", hide_env_values = true)]
    pub listen: Option<SocketAddr>,
    /// Show this certificate (PEM, with those that lead to its authority); read again when the file changes
    #[arg(long, env = "RBEE_TLS_CERT", value_name = "FILE", hide_env_values = true)]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, env = "RBEE_TLS_KEY", value_name = "FILE", hide_env_values = true)]
    pub tls_key: Option<PathBuf>,
    /// Want a token with each call: one file each in this directory, called viewer.NAME, operator.NAME or hive.ID
    #[arg(long, env = "RBEE_TOKEN_DIR", value_name = "DIR", hide_env_values = true)]
    pub token_dir: Option<PathBuf>,
    /// Allow an address that other machines can reach, without TLS and tokens
    #[arg(long, env = "RBEE_INSECURE", hide_env_values = true)]
    pub insecure: bool,
    /// Also answer under this host name (repeatable)
    #[arg(long, env = "RBEE_ALLOW_HOST", value_name = "HOST", value_delimiter = ',', hide_env_values = true)]
    pub allow_host: Vec<String>,
    /// A hive is stale after this much silence [default: 3s]
    #[arg(long, env = "RBEE_STALE_AFTER", value_name = "TIME", value_parser = units::parse_duration, hide_env_values = true)]
    pub stale_after: Option<Duration>,
    /// A hive is lost after this much silence [default: 10s]
    #[arg(long, env = "RBEE_LOST_AFTER", value_name = "TIME", value_parser = units::parse_duration, hide_env_values = true)]
    pub lost_after: Option<Duration>,
    /// A hive is removed after this much silence [default: 90s]
    #[arg(long, env = "RBEE_REMOVE_AFTER", value_name = "TIME", value_parser = units::parse_duration, hide_env_values = true)]
    pub remove_after: Option<Duration>,
    /// Time between two bookmarks of a watch [default: 2.5s]
    #[arg(long, env = "RBEE_BOOKMARK_EVERY", value_name = "TIME", value_parser = units::parse_duration, hide_env_values = true)]
    pub bookmark_every: Option<Duration>,
    /// Finds leave out workers whose last sample is older, unless the caller says otherwise [default: 3s]
    #[arg(long, env = "RBEE_MAX_AGE", value_name = "TIME", value_parser = units::parse_duration, hide_env_values = true)]
    pub max_age: Option<Duration>,
}

/// `rbee queen`
#[derive(Debug, clap::Args)]
pub struct QueenAlone {
    /// Settings of the queen [default: /etc/rbee/queen.toml for root, else ~/.config/rbee/queen.toml, if it is there]
    #[arg(long, env = "RBEE_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub queen: Queen,
}

/// `rbee hive`
#[derive(Debug, clap::Args)]
pub struct Hive {
    #[command(flatten)]
    pub agent: Agent,
}

/// What `hive` and `up` know about the agent.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the hive")]
pub struct Agent {
    /// Settings and rules of the hive [default: /etc/rbee/hive.toml for root, else ~/.config/rbee/hive.toml, if it is there]
    #[arg(long, env = "RBEE_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Name of the hive, its own among all hives of a queen [default: the hostname, made to fit]
    #[arg(long, env = "RBEE_NAME", value_name = "NAME", hide_env_values = true)]
    pub name: Option<String>,
    /// Records, logs and locks [default: /var/lib/rbee for root, else ~/.local/state/rbee]
    #[arg(long, env = "RBEE_STATE_DIR", value_name = "DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Name of the cgroup tree it owns; hives beside one another take different ones [default: rbee.slice]
    #[arg(long, env = "RBEE_SLICE", value_name = "SLICE", hide_env_values = true)]
    pub slice: Option<String>,
    /// Host under which clients reach this machine's workers [default: 127.0.0.1 for a queen here, else the hostname]
    #[arg(long, env = "RBEE_ADVERTISE", value_name = "HOST", hide_env_values = true)]
    pub advertise: Option<String>,
    /// Attach a label to this hive (repeatable)
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
    /// Load NVML from this file instead of the system's
    #[arg(long, env = "RBEE_NVML_LIBRARY", value_name = "FILE", hide_env_values = true)]
    pub nvml_library: Option<PathBuf>,
    /// Templates of workers that can be started by name, from elsewhere too [default: /etc/rbee/templates for root, else none]
    #[arg(long, env = "RBEE_TEMPLATE_DIR", value_name = "DIR", hide_env_values = true)]
    pub template_dir: Option<PathBuf>,
    /// The nvidia-smi to fall back on
    #[arg(long, value_name = "PROGRAM", default_value = "nvidia-smi", hide = true)]
    pub nvidia_smi: PathBuf,
    /// Where cgroup v2 is, instead of looking
    #[arg(long, value_name = "DIR", hide = true)]
    pub cgroup_root: Option<PathBuf>,
    /// Where procfs is
    #[arg(long, value_name = "DIR", default_value = "/proc", hide = true)]
    pub proc_root: PathBuf,
    /// Where the hives of all users of this machine lock the GPUs that they grant [default: /run/lock, else /tmp]
    #[arg(long, env = "RBEE_GPU_LOCK_DIR", value_name = "DIR", hide = true)]
    pub gpu_lock_dir: Option<PathBuf>,
    /// From one round of samples to the next
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "1s", hide = true)]
    pub period: Duration,
}

/// `rbee completions`
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `rbee demo-worker`
#[derive(Debug, clap::Args)]
pub struct DemoWorker {
    /// Which of the loads to make: 0 steady, 1 in waves, 2 mostly idle; greater numbers begin again
    #[arg(long, default_value_t = 0)]
    pub profile: u32,
    /// The model it pretends to serve
    #[arg(long, default_value = "demo")]
    pub model: String,
    /// The slice's lock file; without a live owner this worker ends itself
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// How long to go on without an owner
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "60s")]
    pub orphan_after: Duration,
}

/// `rbee gpu-probe`
#[derive(Debug, clap::Args)]
pub struct GpuProbe {
    /// Load NVML from this file
    #[arg(long, value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
    /// The nvidia-smi to fall back on
    #[arg(long, value_name = "PROGRAM", default_value = "nvidia-smi")]
    pub nvidia_smi: PathBuf,
    /// Held while this probe runs, so that there is one
    #[arg(long, value_name = "FILE")]
    pub lock: PathBuf,
    /// Where procfs is
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc_root: PathBuf,
    /// Where sysfs is
    #[arg(long, env = "RBEE_SYS_ROOT", value_name = "DIR", default_value = "/sys")]
    pub sys_root: PathBuf,
    /// In a container: where the host's procfs is, to translate the process numbers that GPU drivers tell
    #[arg(long, env = "RBEE_HOST_PROC", value_name = "DIR")]
    pub host_proc: Option<PathBuf>,
    /// In a container: the GPU drivers name processes by their numbers in it, not on the host
    #[arg(long, env = "RBEE_TRUST_GPU_PIDS")]
    pub trust_gpu_pids: bool,
}
