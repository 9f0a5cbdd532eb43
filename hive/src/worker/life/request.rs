//! A request to start a worker, checked field by field before anything is touched.

use super::LifeConfig;
use super::start::StartError;
use crate::worker::limits::Limits;
use crate::worker::{command, model};
use common::WorkerId;
use nix::unistd::{AccessFlags, access};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// The longest command line, and the largest environment, in bytes: half of what the kernel takes at most.
const TEXT_MAX: usize = 1 << 20;
/// At most this many labels, and as many GPUs.
const LIST_MAX: usize = 64;
/// The longest label, key or value, in bytes.
const LABEL_MAX: usize = 256;

/// What a valid request asks for.
#[derive(Debug)]
pub struct Plan {
    /// The program as it was named; [`Plan::program`] finds it.
    name: String,
    /// The directories that a name without a slash is looked up in.
    places: String,
    pub arguments: Vec<CString>,
    environment: Vec<CString>,
    pub directory: Option<CString>,
    pub limits: Limits,
    pub asked_limits: proto::Limits,
    pub required: bool,
    /// The command line as it may be shown.
    pub shown: Vec<String>,
    pub digest: String,
    pub model_names: Vec<String>,
    pub model_given: bool,
    pub endpoint: Option<proto::Endpoint>,
    pub labels: BTreeMap<String, String>,
    pub gpus: Vec<String>,
}

/// The variable by which the processes of a worker can be told from others: its whole name.
const MARK: &str = "RBEE_WORKER";
/// How it begins; a hive that is itself a worker hands its own to nobody.
const MARKED: &[u8] = b"RBEE_WORKER=";

/// That variable, as it stands in the environment of a worker.
pub fn mark(config: &LifeConfig, id: &WorkerId) -> String {
    format!("{MARK}={}/{id}", config.hive)
}

fn field(name: &'static str, message: impl Into<String>) -> StartError {
    StartError::Field { field: name, message: message.into() }
}

impl Plan {
    /// Checks everything but the name.
    pub fn new(request: &proto::StartWorkerRequest, config: &LifeConfig) -> Result<Self, StartError> {
        check_sizes(request)?;
        let asked_limits = request.limits.clone().unwrap_or_default();
        let limits = Limits::parse(&asked_limits).map_err(|error| field("limits", error.to_string()))?;
        let directory = match request.working_directory.as_str() {
            "" => None,
            path => Some(c_text("working_directory", path)?),
        };
        let environment = environment(request)?;
        let variable = environment.get("MODEL").map(String::as_str);
        let mut model_names = model::names(&request.command, variable);
        let given = request.model.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = given {
            model_names.retain(|known| known != name);
            model_names.insert(0, name.to_owned());
        }
        Ok(Self {
            name: request.command.first().cloned().unwrap_or_default(),
            places: environment.get("PATH").cloned().unwrap_or_default(),
            arguments: request.command.iter().map(|text| c_text("command", text)).collect::<Result<_, _>>()?,
            environment: environment
                .iter()
                .map(|(key, value)| c_text("env", &format!("{key}={value}")))
                .collect::<Result<_, _>>()?,
            directory,
            limits,
            asked_limits,
            required: request.placement_policy() == proto::PlacementPolicy::Required,
            shown: command::shown(&request.command),
            digest: command::digest(&request.command),
            model_given: given.is_some(),
            model_names,
            endpoint: endpoint(request, config)?,
            labels: request.labels.clone().into_iter().collect(),
            gpus: request.gpus.clone(),
        })
    }
}

impl Plan {
    /// The environment of a worker of this name.
    pub fn environment(&self, config: &LifeConfig, id: &WorkerId) -> Result<Vec<CString>, StartError> {
        let given = self.environment.iter().filter(|variable| !variable.as_bytes().starts_with(MARKED));
        Ok(given.cloned().chain([c_text("env", &mark(config, id))?]).collect())
    }

    /// The program as a path: one with a slash as it is, another from PATH.
    pub fn program(&self) -> Result<CString, StartError> {
        if self.name.contains('/') {
            return c_text("command", &self.name);
        }
        let found = look_up(&self.name, &self.places).map_err(|errno| StartError::Failed {
            step: "exec",
            path: self.name.clone(),
            source: std::io::Error::from_raw_os_error(errno),
        })?;
        c_text("command", &found.to_string_lossy())
    }
}

fn check_sizes(request: &proto::StartWorkerRequest) -> Result<(), StartError> {
    if request.command.first().is_none_or(String::is_empty) {
        return Err(field("command", "a program is needed: give it and its arguments, one each"));
    }
    if request.command.iter().map(|text| text.len() + 1).sum::<usize>() > TEXT_MAX {
        return Err(field("command", "the command line is longer than 1 MiB"));
    }
    if request.env.iter().map(|(key, value)| key.len() + value.len() + 2).sum::<usize>() > TEXT_MAX {
        return Err(field("env", "the environment is larger than 1 MiB"));
    }
    let long = |text: &String| text.len() > LABEL_MAX;
    if request.labels.len() > LIST_MAX
        || request.labels.iter().any(|(key, value)| key.is_empty() || long(key) || long(value))
    {
        return Err(field("labels", "use at most 64 labels of at most 256 bytes each, none without a key"));
    }
    let word = |text: &String| {
        !text.is_empty()
            && !long(text)
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte))
    };
    if request.gpus.len() > LIST_MAX || !request.gpus.iter().all(word) {
        return Err(field("gpus", "name each GPU by its index, such as \"0\", or by its UUID, such as \"GPU-…\""));
    }
    if request.model.as_ref().is_some_and(|name| name.len() > LABEL_MAX) {
        return Err(field("model", "a model's name is at most 256 bytes long"));
    }
    Ok(())
}

fn c_text(name: &'static str, text: &str) -> Result<CString, StartError> {
    CString::new(text).map_err(|_| field(name, "a NUL byte cannot be passed to a program"))
}

/// The hive's own environment, with what the request adds, and its GPUs last.
fn environment(request: &proto::StartWorkerRequest) -> Result<BTreeMap<String, String>, StartError> {
    let mut all: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    for (key, value) in &request.env {
        if key.is_empty() || key.contains('=') {
            return Err(field("env", format!("{key:?} cannot name a variable: it must not be empty or hold '='")));
        }
        all.insert(key.clone(), value.clone());
    }
    if !request.gpus.is_empty() {
        all.insert("CUDA_VISIBLE_DEVICES".to_owned(), request.gpus.join(","));
    }
    // The service manager's words to the hive are not meant for its workers.
    for private in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        if !request.env.contains_key(private) {
            all.remove(private);
        }
    }
    Ok(all)
}

/// The first executable file of this name; else EACCES when there is one that may not be executed, or ENOENT.
fn look_up(name: &str, places: &str) -> Result<PathBuf, i32> {
    let mut errno = libc::ENOENT;
    for place in places.split(':').filter(|place| !place.is_empty()) {
        let path = Path::new(place).join(name);
        if !path.is_file() {
            continue;
        }
        match access(&path, AccessFlags::X_OK) {
            Ok(()) => return Ok(path),
            Err(_) => errno = libc::EACCES,
        }
    }
    Err(errno)
}

/// The endpoint that was given, with what was left open filled in.
fn endpoint(request: &proto::StartWorkerRequest, config: &LifeConfig) -> Result<Option<proto::Endpoint>, StartError> {
    let Some(given) = &request.endpoint else { return Ok(None) };
    if given.port == 0 || given.port > u32::from(u16::MAX) {
        return Err(field("endpoint.port", format!("{} is not a port: use 1 to 65535", given.port)));
    }
    let plain = |text: &str| {
        text.len() <= LABEL_MAX && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '?' | '#'))
    };
    if !plain(&given.host) || !plain(&given.scheme) {
        return Err(field("endpoint", "use a scheme such as \"http\" and a host name or address, without a path"));
    }
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    Ok(Some(proto::Endpoint {
        scheme: or(&given.scheme, "http"),
        host: or(&given.host, &config.advertise),
        port: given.port,
    }))
}
