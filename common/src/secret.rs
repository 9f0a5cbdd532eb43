//! Files that hold secrets: read whole, and only when nobody else on the machine can read or replace them.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A larger file holds neither a token nor a key.
const BYTES_MAX: u64 = 256 * 1024;
/// Read, write and search bits of a group and of everybody.
const OTHERS: u32 = 0o077;
/// The same of everybody alone.
const EVERYBODY: u32 = 0o007;

/// Why a file with a secret is not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system does not let us.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("{path} can be read by others on this machine (mode {mode:04o}): run chmod {wanted} {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: &'static str,
    },
    /// It is not a file, or larger than any secret.
    #[error("{0} is not a file of at most 256 KiB")]
    NoFile(PathBuf),
}

/// Who besides its owner may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Nobody: tokens.
    Owner,
    /// Its group, as packages for certificates do it: keys.
    Group,
}

/// The bytes of a file.
///
/// # Errors
/// When it cannot be read, is too large, or others can read it. No error holds anything of what is in it.
pub fn read(path: &Path, readers: Readers) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the open file: what the path names may change meanwhile.
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > BYTES_MAX {
        return Err(SecretError::NoFile(path.to_owned()));
    }
    let (bits, wanted) = match readers {
        Readers::Owner => (OTHERS, "600"),
        Readers::Group => (EVERYBODY, "640"),
    };
    let mode = mode(&about);
    if mode & bits != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode, wanted });
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(unix)]
fn mode(about: &Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(about) & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0o600
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "hush").unwrap();
        for (mode, owner, group) in
            [(0o600, true, true), (0o400, true, true), (0o640, false, true), (0o604, false, false)]
        {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, Readers::Owner).is_ok(), owner, "{mode:o}");
            assert_eq!(read(&path, Readers::Group).is_ok(), group, "{mode:o}");
        }
        let told = read(&path, Readers::Owner).unwrap_err().to_string();
        assert!(told.contains("mode 0604") && told.contains("chmod 600 ") && !told.contains("hush"), "{told}");
        assert!(matches!(read(dir.path(), Readers::Owner), Err(SecretError::NoFile(_))));
    }
}
