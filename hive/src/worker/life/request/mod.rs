//! A request to start a worker, checked field by field before anything is touched.

mod account;
mod environment;
mod gpus;
mod reserved;

pub use account::Login;
pub use gpus::{Given, give};

use super::LifeConfig;
use super::start::StartError;
use crate::worker::limits::Limits;
use crate::worker::sys::Down;
use crate::worker::{command, model};
use common::WorkerId;
use nix::unistd::{AccessFlags, access};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest command line, and the largest environment, in bytes: half of what the kernel takes at most.
const TEXT_MAX: usize = 1 << 20;
/// At most this many labels, and as many GPUs.
const LIST_MAX: usize = 64;
/// The longest time that a worker is waited for, or may be unhealthy.
const LENGTH_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest label, key or value, in bytes.
const LABEL_MAX: usize = 256;

/// What a valid request asks for.
#[derive(Debug)]
pub struct Plan {
    /// The program as it was named; [`Plan::program`] finds it.
    name: String,
    pub arguments: Vec<CString>,
    /// What the worker sees, but for what depends on its user and its GPUs.
    environment: BTreeMap<String, String>,
    /// The variables that the request itself names.
    named: BTreeSet<String>,
    directory: Option<CString>,
    /// The user it runs as; empty: the hive's.
    user: String,
    no_new_privileges: bool,
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
    /// GPUs as they were named; [`give`] finds out which those are.
    pub gpus: Vec<String>,
    /// How long its caller waits for it to be ready, if that was said.
    pub wait_timeout: Option<Duration>,
    /// It is killed when it was ready and then not for this long.
    pub health_timeout: Option<Duration>,
    /// What it is started with instead of naming GPUs; empty: nothing.
    pub reservation: String,
    /// One of that reservation's, if the caller named one.
    pub fencing_token: Option<u64>,
}

/// The variable by which the processes of a worker can be told from others: its whole name. A hive that is itself a
/// worker hands its own to nobody.
const MARK: &str = "RBEE_WORKER";

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
        let environment = environment::of(request)?;
        let variable = environment.get("MODEL").map(String::as_str);
        let mut model_names = model::names(&request.command, variable);
        let given = request.model.as_deref().filter(|name| !name.is_empty());
        if let Some(name) = given {
            model_names.retain(|known| known != name);
            model_names.insert(0, name.to_owned());
        }
        Ok(Self {
            name: request.command.first().cloned().unwrap_or_default(),
            arguments: request.command.iter().map(|text| c_text("command", text)).collect::<Result<_, _>>()?,
            environment,
            named: request.env.keys().cloned().collect(),
            directory,
            user: request.user.clone(),
            no_new_privileges: request.no_new_privileges,
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
            wait_timeout: length("wait_timeout", request.wait_timeout.as_ref())?,
            health_timeout: length("health_timeout", request.health_timeout.as_ref())?,
            reservation: reservation(request)?,
            fencing_token: request.fencing_token,
        })
    }
}

impl Plan {
    /// The environment of a worker of this name, with these GPUs, as this user.
    pub fn environment(
        &self,
        config: &LifeConfig,
        id: &WorkerId,
        given: &Given,
        login: Option<&Login>,
    ) -> Result<Vec<CString>, StartError> {
        let mut all = self.environment.clone();
        for (key, value) in login.map(Login::variables).unwrap_or_default() {
            if !self.named.contains(key) {
                all.insert(key.to_owned(), value);
            }
        }
        for key in login.map(|_| account::OF_THE_HIVE).unwrap_or_default().iter().chain(&given.hidden) {
            if !self.named.contains(*key) {
                all.remove(*key);
            }
        }
        for (key, value) in &given.variables {
            if *key != gpus::ORDER || !self.named.contains(*key) {
                all.insert((*key).to_owned(), value.clone());
            }
        }
        all.remove(MARK);
        let texts = all.iter().map(|(key, value)| c_text("env", &format!("{key}={value}")));
        texts.chain([c_text("env", &mark(config, id))]).collect()
    }

    /// Finds the user it runs as. `None`: it runs as the hive does. May ask a directory service, and wait for it.
    pub fn login(&self) -> Result<Option<Login>, StartError> {
        if self.user.is_empty() { Ok(None) } else { Login::find(&self.user) }
    }

    /// As whom and where it runs.
    pub fn down(&self, login: Option<Login>) -> Down {
        Down {
            account: login.map(|login| login.account),
            directory: self.directory.clone(),
            no_new_privileges: self.no_new_privileges,
        }
    }

    /// The program as a path: one with a slash as it is, another from PATH.
    pub fn program(&self) -> Result<CString, StartError> {
        if self.name.contains('/') {
            return c_text("command", &self.name);
        }
        let found = look_up(&self.name, self.environment.get("PATH").map_or("", String::as_str)).map_err(|errno| {
            StartError::Failed {
                step: "exec",
                path: self.name.clone(),
                source: std::io::Error::from_raw_os_error(errno),
            }
        })?;
        c_text("command", &found.to_string_lossy())
    }
}

/// The reservation that it is started with.
fn reservation(request: &proto::StartWorkerRequest) -> Result<String, StartError> {
    match request.reservation.as_str() {
        "" if request.fencing_token.is_some() => {
            Err(field("fencing_token", "it belongs to a reservation: name that too, or leave the token out"))
        }
        "" => Ok(String::new()),
        _ if !request.gpus.is_empty() => Err(field("gpus", "the reservation says which GPU it gets: leave them out")),
        name => Ok(crate::ledger::reservation(name)?.to_owned()),
    }
}

/// A length of time that is more than none.
fn length(name: &'static str, given: Option<&prost_types::Duration>) -> Result<Option<Duration>, StartError> {
    let Some(given) = given else { return Ok(None) };
    match common::from_duration(given) {
        Some(length) if length > Duration::ZERO && length <= LENGTH_MAX => Ok(Some(length)),
        _ => Err(field(name, "use a time of more than 0 s, and of at most 7 days")),
    }
}

fn check_sizes(request: &proto::StartWorkerRequest) -> Result<(), StartError> {
    if request.command.first().is_none_or(String::is_empty) {
        return Err(field("command", "a program is needed: give it and its arguments, one each"));
    }
    if request.command.iter().map(|text| text.len() + 1).sum::<usize>() > TEXT_MAX {
        return Err(field("command", "the command line is longer than 1 MiB"));
    }
    if request.keep_env.len() > LIST_MAX * 16 || request.keep_env.iter().any(|key| !environment::is_name(key)) {
        return Err(field("keep_env", "name each variable that is kept, without '=' or a value, 1024 at most"));
    }
    if request.user.len() > LABEL_MAX || request.user.contains(['\0', ':', '/']) {
        return Err(field("user", "name a user of this machine, as `getent passwd` lists them"));
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
