//! The configuration files, `hive.toml` and `queen.toml`: settings that flags and the environment overrule, and rules
//! for what is observed. Both are of one kind, so that one file can be both: each reads the tables that concern it. `parse.rs` reads the text; here is where the file lies and what is in it.

mod parse;
pub mod queen;

pub use common::fields::FileError;
pub use parse::parse;

use crate::failure::Failure;
use ::hive::worker::observe::Rule;
use queen::QueenSection;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A larger file is no configuration.
const FILE_MAX: u64 = 1 << 20;

/// What the file of a hive is called.
pub const HIVE: &str = "hive.toml";
/// What the file of a queen is called.
pub const QUEEN: &str = "queen.toml";

/// What a file says. What it leaves open is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// `[hive]`.
    pub hive: HiveSection,
    /// `[queen]`.
    pub queen: QueenSection,
    /// `[[observe]]`, in the order of the file.
    pub observe: Vec<Rule>,
}

/// `[hive]`: keys that mirror the flags of `rbee hive`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HiveSection {
    /// `name`
    pub name: Option<String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `queen`: one URL, or a list of them.
    pub queen: Option<Vec<String>>,
    /// `state-dir`
    pub state_dir: Option<PathBuf>,
    /// `socket`
    pub socket: Option<PathBuf>,
    /// `slice`
    pub slice: Option<String>,
    /// `advertise`
    pub advertise: Option<String>,
    /// `nvml-library`
    pub nvml_library: Option<PathBuf>,
    /// `template-dir`
    pub template_dir: Option<PathBuf>,
    /// `container-sockets`: where Docker or Podman listens.
    pub container_sockets: Option<Vec<PathBuf>>,
    /// `tls-ca`
    pub tls_ca: Option<PathBuf>,
    /// `tls-name`
    pub tls_name: Option<String>,
    /// `token-file`
    pub token_file: Option<PathBuf>,
}

/// The file to read: the one that was named, else the usual one if it is there.
pub fn place(named: Option<&Path>, name: &str) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| usual_places(name).into_iter().find(|path| path.exists()))
}

/// Where a file of this name is looked for when none is given; the first one that is there counts.
pub fn usual_places(name: &str) -> Vec<PathBuf> {
    let system = PathBuf::from("/etc/rbee").join(name);
    if nix::unistd::geteuid().is_root() {
        return vec![system];
    }
    let set = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = set.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    own.map(|own| own.join("rbee").join(name)).into_iter().chain([system]).collect()
}

/// Reads a file. `Ok(None)`: none was named, and there is none called `name` in the usual places.
pub fn read(named: Option<&Path>, name: &str) -> Result<Option<(PathBuf, File)>, Failure> {
    let Some(path) = place(named, name) else { return Ok(None) };
    let bytes = bytes(&path).map_err(|error| {
        Failure::failed(&format!("failed to read the configuration file {}", path.display()), &error)
    })?;
    let file = parse(&bytes).map_err(|error| Failure::Failed(format!("{}:{error}", path.display())))?;
    Ok(Some((path, file)))
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
