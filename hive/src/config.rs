//! What a hive is told from outside.

use crate::worker::observe;
use common::HiveId;
use common::link::Access;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything a hive needs to know. Only the command line makes one from the real environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name.
    pub id: HiveId,
    /// The machine's hostname, for people.
    pub hostname: String,
    /// Host under which clients reach this machine's workers.
    pub advertise: String,
    /// The queens it reports to, as `http://host:port` or `https://host:port`.
    pub queens: Vec<String>,
    /// Whom of them it trusts, and what it shows them.
    pub access: Access,
    /// Its state: records, logs, journal, locks.
    pub state_dir: PathBuf,
    /// Its unix socket.
    pub socket: PathBuf,
    /// Name of the cgroup tree it owns, "rbee.slice".
    pub slice: String,
    /// Where to look for cgroup v2 instead of in `/proc/self/mountinfo`; for tests.
    pub cgroup_root: Option<PathBuf>,
    /// Where procfs is mounted.
    pub proc_root: PathBuf,
    /// Where the hives of all users of this machine lock the GPUs that they grant.
    pub gpu_lock_dir: PathBuf,
    /// Where sysfs is mounted.
    pub sys_root: PathBuf,
    /// From one round of samples to the next.
    pub period: Duration,
    /// Load NVML from this file instead of the system's.
    pub nvml_library: Option<PathBuf>,
    /// The `nvidia-smi` to fall back on: a path, or a name to look up in PATH.
    pub nvidia_smi: PathBuf,
    /// This program, for helper processes such as the GPU probe.
    pub program: PathBuf,
    /// Free-form labels of this hive.
    pub labels: BTreeMap<String, String>,
    /// Where the templates are that can be started by name, if it is there. `None`: nothing is.
    pub template_dir: Option<PathBuf>,
    /// What is observed without being asked for, and whom the hive may ask about it.
    pub observe: observe::Settings,
}
