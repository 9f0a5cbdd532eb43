//! Workers that can be started by name: a directory of the hive's own configuration with one file for each. Read at each
//! use. A caller fills in typed parameters and nothing else.

mod file;
mod parameter;
#[cfg(test)]
mod tests;
mod text;

pub use file::{Form, parse};

use common::fields::FileError;
use proto::StartWorkerRequest;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A larger file is no template, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// No more templates are listed; those beyond can be started by name.
const LISTED_MAX: usize = 256;
/// So many names are told to whom asks for one that is not there.
const NAMED_MAX: usize = 10;
/// Bits of a file or directory that let a group or everybody write to it.
const WRITABLE: u32 = 0o022;
/// The ending of a template file.
const ENDING: &str = "toml";

/// Why a template cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There is no directory of them.
    #[error("{}", off(.0.as_deref()))]
    Off(Option<PathBuf>),
    /// There is none of this name.
    #[error("no template is called {name:?} here; there {}", others(.known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Its file cannot be used.
    #[error("the template {name} cannot be started: {why}")]
    Broken {
        /// Its name.
        name: String,
        /// File, line and sentence.
        why: String,
    },
    /// The request asks for something that the template does not allow.
    #[error("{field}: {message}")]
    Field {
        /// The field, as the request names it.
        field: String,
        /// What is wrong, and what is accepted.
        message: String,
    },
}

fn off(dir: Option<&Path>) -> String {
    match dir {
        Some(dir) => format!("starting by template is off: make the directory {} on that hive", dir.display()),
        None => "starting by template is off: give that hive a directory of templates with --template-dir".to_owned(),
    }
}

fn others(known: &[String]) -> String {
    match known.len() {
        0 => "is none".to_owned(),
        count if count > NAMED_MAX => format!("are {} and {} more", known[..NAMED_MAX].join(", "), count - NAMED_MAX),
        _ => format!("are {}", known.join(", ")),
    }
}

/// The directory of a hive's templates.
#[derive(Debug, Clone)]
pub struct Templates {
    dir: Option<PathBuf>,
}

impl Templates {
    /// In this directory, which need not be there yet. `None`: nothing is ever started by name.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Whether something can be started by name.
    pub fn is_on(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.is_dir())
    }

    /// All of them by name; those that cannot be started with the reason. `check` says what is wrong with what a
    /// template starts. Blocks.
    pub fn list(&self, check: impl Fn(&StartWorkerRequest) -> Result<(), String>) -> Vec<proto::Template> {
        let names = self.names().into_iter().take(LISTED_MAX);
        names.map(|name| self.listed(name, &check)).collect()
    }

    fn listed(&self, name: String, check: impl Fn(&StartWorkerRequest) -> Result<(), String>) -> proto::Template {
        let form = match self.form(&name) {
            Ok(form) => form,
            Err(TemplateError::Broken { why, .. }) => {
                return proto::Template { name, error: why, ..Default::default() };
            }
            Err(error) => return proto::Template { name, error: error.to_string(), ..Default::default() },
        };
        let parameters = form.parameters.iter().map(|(name, parameter)| parameter.to_wire(name)).collect();
        let examples = form.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.example()));
        let tried = form.fill(&examples.collect()).and_then(|request| check(&request));
        proto::Template { name, description: form.description, parameters, error: tried.err().unwrap_or_default() }
    }

    /// What a request for a template starts. The template's name and the parameters stay in it. Blocks.
    ///
    /// # Errors
    /// When there is no such template, or the request says something that it may not.
    pub fn fill(&self, asked: StartWorkerRequest) -> Result<StartWorkerRequest, TemplateError> {
        check_beside(&asked)?;
        let form = self.form(&asked.template)?;
        let values = values(&form, &asked.parameters)?;
        let broken = |why| TemplateError::Broken { name: asked.template.clone(), why };
        let mut filled = form.fill(&values).map_err(broken)?;
        for (key, value) in asked.labels {
            filled.labels.entry(key).or_insert(value);
        }
        Ok(StartWorkerRequest {
            group: asked.group,
            instance: asked.instance,
            wait: asked.wait,
            wait_timeout: asked.wait_timeout,
            reservation: asked.reservation,
            fencing_token: asked.fencing_token,
            hive: asked.hive,
            template: asked.template,
            parameters: asked.parameters,
            ..filled
        })
    }

    fn form(&self, name: &str) -> Result<Form, TemplateError> {
        let dir = self.dir.as_ref().filter(|_| self.is_on());
        let dir = dir.ok_or_else(|| TemplateError::Off(self.dir.clone()))?;
        let unknown = || TemplateError::Unknown { name: name.chars().take(80).collect(), known: self.names() };
        if !is_template_name(name) {
            return Err(unknown());
        }
        let path = dir.join(format!("{name}.{ENDING}"));
        let broken = |why: String| TemplateError::Broken { name: name.to_owned(), why };
        match bytes(dir, &path) {
            Ok(bytes) => parse(&bytes).map_err(|error: FileError| broken(format!("{}:{error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(unknown()),
            Err(error) => Err(broken(format!("{}: {error}", path.display()))),
        }
    }

    /// The names of the files, sorted.
    fn names(&self) -> Vec<String> {
        let entries = self.dir.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
        let name = |path: PathBuf| {
            let ending = path.extension().is_some_and(|ending| ending == ENDING);
            path.file_stem()?.to_str().filter(|_| ending).map(str::to_owned)
        };
        let mut names: Vec<String> = entries.filter_map(|entry| name(entry.path())).collect();
        names.retain(|name| is_template_name(name));
        names.sort_unstable();
        names
    }
}

/// The pattern of every name: it cannot leave the directory.
fn is_template_name(name: &str) -> bool {
    common::HiveId::parse(name).is_ok()
}

/// The bytes of a template that nobody but root and this user could have written.
fn bytes(dir: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    for (path, found) in [(dir, fs::metadata(dir)?), (path, file.metadata()?)] {
        let owner = found.uid();
        if found.mode() & WRITABLE != 0 || (owner != 0 && owner != nix::unistd::geteuid().as_raw()) {
            let told = format!("{} can be written by others: it must be root's or this user's", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, told));
        }
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    Ok(bytes)
}

/// Only a few fields may stand beside a template.
fn check_beside(asked: &StartWorkerRequest) -> Result<(), TemplateError> {
    let set = [
        ("command", !asked.command.is_empty()),
        ("env", !asked.env.is_empty()),
        ("working_directory", !asked.working_directory.is_empty()),
        ("limits", asked.limits.as_ref().is_some_and(|limits| *limits != proto::Limits::default())),
        ("model", asked.model.is_some()),
        ("endpoint", asked.endpoint.is_some()),
        ("placement_policy", asked.placement_policy != 0),
        ("gpus", !asked.gpus.is_empty()),
        ("take_over", asked.take_over),
        ("restart", asked.restart != 0),
        ("clear_env", asked.clear_env),
        ("keep_env", !asked.keep_env.is_empty()),
        ("user", !asked.user.is_empty()),
        ("no_new_privileges", asked.no_new_privileges),
        ("probe", asked.probe != 0),
        ("health_timeout", asked.health_timeout.is_some()),
    ];
    match set.into_iter().find(|(_, set)| *set) {
        Some((field, _)) => {
            let message = "the template decides that: leave it out, or ask for no template".to_owned();
            Err(TemplateError::Field { field: field.to_owned(), message })
        }
        None => Ok(()),
    }
}

/// A value for each parameter: what was given, else its default.
fn values(form: &Form, given: &HashMap<String, String>) -> Result<BTreeMap<String, String>, TemplateError> {
    let wrong = |name: &str, message: String| {
        let field = format!("parameters.{}", name.chars().take(80).collect::<String>());
        Err(TemplateError::Field { field, message })
    };
    if let Some(name) = given.keys().filter(|name| !form.parameters.contains_key(*name)).min() {
        let known: Vec<&str> = form.parameters.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        return wrong(name, format!("the template has no such parameter: {known}"));
    }
    let mut values = BTreeMap::new();
    for (name, parameter) in &form.parameters {
        let Some(text) = given.get(name).or(parameter.default.as_ref()) else {
            return wrong(name, format!("it must be given: {}", parameter.rule()));
        };
        match parameter.check(text) {
            Ok(value) => drop(values.insert(name.clone(), value)),
            Err(rule) => {
                let shown: String = text.chars().take(80).collect();
                return wrong(name, format!("{shown:?} is not accepted: {rule}"));
            }
        }
    }
    Ok(values)
}
