//! What a hive is told: flags and environment, else the configuration file, else defaults from the real machine.

use super::settings::{self, File};
use crate::args::{Agent, DEFAULT_QUEEN, Global};
use crate::failure::Failure;
use crate::locate;
use ::hive::worker::observe;
use common::HiveId;
use common::link::{Access, TokenSource};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The cgroup tree that a hive owns unless told otherwise.
const SLICE: &str = "rbee.slice";
/// Where Docker and Podman listen for root.
const CONTAINER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Where the templates of a hive of root are.
const TEMPLATES: &str = "/etc/rbee/templates";

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A flag or a variable.
    Given,
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

/// A setting and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked<T> {
    /// What counts.
    pub value: T,
    /// Who said so.
    pub from: Source,
}

/// Every setting of a hive that a file can hold.
#[derive(Debug, Clone)]
pub struct Choices {
    pub name: Picked<String>,
    pub labels: Picked<BTreeMap<String, String>>,
    pub queen: Picked<Vec<String>>,
    pub state_dir: Picked<PathBuf>,
    pub socket: Picked<PathBuf>,
    pub slice: Picked<String>,
    pub advertise: Picked<String>,
    pub nvml_library: Picked<Option<PathBuf>>,
    pub template_dir: Picked<Option<PathBuf>>,
    pub container_sockets: Picked<Vec<PathBuf>>,
    pub tls_ca: Picked<Option<PathBuf>>,
    pub tls_name: Picked<Option<String>>,
    pub token: Picked<TokenSource>,
}

/// The configuration of the hive of this machine. `own_queen` is the one that it is started with, instead of others.
pub fn config(global: &Global, agent: Agent, file: File, own_queen: Option<String>) -> Result<::hive::Config, Failure> {
    let choices = choose(global, &agent, &file, own_queen)?;
    let id = HiveId::parse(&choices.name.value).map_err(|error| Failure::Usage(format!("--name: {error}")))?;
    locate::check_socket(&choices.socket.value)?;
    let program = std::env::current_exe().map_err(|error| {
        Failure::failed("failed to find this program's own file, which the hive starts helpers from", &error)
    })?;
    Ok(::hive::Config {
        id,
        advertise: choices.advertise.value,
        hostname: hostname(),
        queens: choices.queen.value,
        access: Access { tls_ca: choices.tls_ca.value, tls_name: choices.tls_name.value, token: choices.token.value },
        state_dir: choices.state_dir.value,
        socket: choices.socket.value,
        slice: choices.slice.value,
        cgroup_root: agent.cgroup_root,
        proc_root: agent.proc_root,
        gpu_lock_dir: agent.gpu_lock_dir.unwrap_or_else(locate::gpu_lock_dir),
        sys_root: "/sys".into(),
        period: agent.period,
        nvml_library: choices.nvml_library.value,
        nvidia_smi: agent.nvidia_smi,
        program,
        labels: choices.labels.value,
        template_dir: choices.template_dir.value.map(|dir| absolute(&dir)).transpose()?,
        observe: observe::Settings {
            rules: file.observe,
            sockets: choices.container_sockets.value,
            systemd: observe::units::Systemd::default(),
        },
    })
}

/// What the file of the hive here says.
pub fn file(agent: &Agent) -> Result<File, Failure> {
    Ok(settings::read(agent.config.as_deref(), settings::HIVE)?.map(|(_, file)| file).unwrap_or_default())
}

/// Decides each setting.
pub fn choose(global: &Global, agent: &Agent, file: &File, own_queen: Option<String>) -> Result<Choices, Failure> {
    let hive = &file.hive;
    let hostname = hostname();
    let given_queen = own_queen.map(|url| vec![url]).or_else(|| global.queen_given.then(|| global.queen.clone()));
    let queen = pick(given_queen, hive.queen.clone(), || vec![DEFAULT_QUEEN.to_owned()]);
    let state_dir = pick(agent.state_dir.clone(), hive.state_dir.clone(), locate::default_state_dir);
    let socket = pick(global.socket.clone(), hive.socket.clone(), || match state_dir.from {
        // A state directory that is named holds the socket too.
        Source::Given | Source::File => state_dir.value.join("hive.sock"),
        Source::Default => locate::default_socket(),
    });
    let advertise = pick(agent.advertise.clone(), hive.advertise.clone(), || advertise(&queen.value, &hostname));
    let mut labels = hive.labels.clone();
    labels.extend(agent.labels.iter().cloned());
    let from = match (agent.labels.is_empty(), hive.labels.is_empty()) {
        (false, _) => Source::Given,
        (true, false) => Source::File,
        (true, true) => Source::Default,
    };
    Ok(Choices {
        name: pick(agent.name.clone(), hive.name.clone(), || common::fit_name(&hostname)),
        labels: Picked { value: labels, from },
        state_dir: state_dir.absolute()?,
        socket: socket.absolute()?,
        slice: pick(agent.slice.clone(), hive.slice.clone(), || SLICE.to_owned()),
        nvml_library: pick(agent.nvml_library.clone().map(Some), hive.nvml_library.clone().map(Some), || None),
        template_dir: pick(agent.template_dir.clone().map(Some), hive.template_dir.clone().map(Some), template_dir),
        container_sockets: pick(None, hive.container_sockets.clone(), container_sockets),
        tls_ca: pick(global.reach.tls_ca.clone().map(Some), hive.tls_ca.clone().map(Some), || None),
        tls_name: pick(global.reach.tls_name.clone().map(Some), hive.tls_name.clone().map(Some), || None),
        token: pick(global.reach.token()?, hive.token_file.clone().map(TokenSource::File), TokenSource::default),
        advertise,
        queen,
    })
}

/// The first that was said.
pub fn pick<T>(given: Option<T>, file: Option<T>, default: impl FnOnce() -> T) -> Picked<T> {
    match (given, file) {
        (Some(value), _) => Picked { value, from: Source::Given },
        (None, Some(value)) => Picked { value, from: Source::File },
        (None, None) => Picked { value: default(), from: Source::Default },
    }
}

impl Picked<PathBuf> {
    fn absolute(self) -> Result<Self, Failure> {
        Ok(Self { value: absolute(&self.value)?, from: self.from })
    }
}

/// It need not be there: remote start is off until it is.
fn template_dir() -> Option<PathBuf> {
    nix::unistd::geteuid().is_root().then(|| PathBuf::from(TEMPLATES))
}

/// Where container engines listen: what their own clients are told, and the usual places.
fn container_sockets() -> Vec<PathBuf> {
    let told = ["DOCKER_HOST", "CONTAINER_HOST"].into_iter().filter_map(|name| std::env::var(name).ok());
    let told = told.filter_map(|url| url.strip_prefix("unix://").map(PathBuf::from));
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = run.into_iter().flat_map(|run| [run.join("docker.sock"), run.join("podman/podman.sock")]);
    let mut all: Vec<PathBuf> = told.chain(CONTAINER_SOCKETS.map(PathBuf::from)).chain(own).collect();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|path| seen.insert(path.clone()));
    all
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::failed(&format!("failed to use the path {path:?}"), &error))
}

fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

/// Who asks a queen on this machine is on this machine too; everybody else needs its name.
fn advertise(queens: &[String], hostname: &str) -> String {
    let here = |url: &String| {
        ["127.", "localhost", "[::1]"]
            .iter()
            .any(|start| url.split("://").nth(1).is_some_and(|rest| rest.starts_with(start)))
    };
    if queens.iter().all(here) { "127.0.0.1".to_owned() } else { hostname.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Verb};

    fn chosen(words: &[&str], file: &str) -> Choices {
        let words = ["rbee", "hive"].iter().chain(words).map(Into::into);
        let cli = args::parse(words).unwrap();
        let Verb::Hive(hive) = cli.verb else { panic!("not hive") };
        choose(&cli.global, &hive.agent, &settings::parse(file.as_bytes()).unwrap(), None).unwrap()
    }

    #[test]
    fn a_named_state_directory_holds_the_socket() {
        let choices = chosen(&["--state-dir", "/s"], "");
        assert_eq!((choices.state_dir.value, choices.socket.value), ("/s".into(), "/s/hive.sock".into()));
        assert_eq!(chosen(&["--state-dir", "/s", "--socket", "/o.sock"], "").socket.value, PathBuf::from("/o.sock"));
        assert_eq!(chosen(&[], "[hive]\nstate-dir = \"/f\"\n").socket.value, PathBuf::from("/f/hive.sock"));
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let file =
            "[hive]\nname = \"f\"\nslice = \"f.slice\"\nqueen = \"http://f:1\"\nlabels = { a = \"f\", b = \"f\" }\n";
        let choices = chosen(&["--name", "g", "-l", "a=g", "--queen", "http://g:1"], file);
        assert_eq!(choices.name, Picked { value: "g".to_owned(), from: Source::Given });
        assert_eq!(choices.slice, Picked { value: "f.slice".to_owned(), from: Source::File });
        assert_eq!(choices.queen.value, ["http://g:1"]);
        assert_eq!(choices.labels.value, [("a", "g"), ("b", "f")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let plain = chosen(&[], "");
        assert_eq!(plain.slice, Picked { value: "rbee.slice".to_owned(), from: Source::Default });
        assert!(plain.container_sockets.value.contains(&"/var/run/docker.sock".into()));
    }

    #[test]
    fn workers_are_advertised_where_the_queen_can_be_asked_from() {
        assert_eq!(advertise(&["http://127.0.0.1:7833".into()], "box"), "127.0.0.1");
        assert_eq!(advertise(&["http://127.0.0.1:7833".into(), "http://queen:7833".into()], "box"), "box");
    }
}
