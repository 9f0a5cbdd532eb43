//! The hive's unix socket: binding it so that only its owner can reach it, and that no live hive loses its own.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The kernel's limit for the path of a unix socket, without the closing zero (`sun_path`, unix(7)).
pub const PATH_MAX_BYTES: usize = 107;

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Path too long for the kernel.
    #[error(
        "the socket path {0} has {1} bytes, the kernel takes at most {PATH_MAX_BYTES}: choose a shorter --state-dir or --socket"
    )]
    TooLong(PathBuf, usize),
    /// Somebody answers there.
    #[error("another hive answers on {0}: give this one its own --socket")]
    InUse(PathBuf),
    /// The kernel said no.
    #[error("bind {0}")]
    Bind(PathBuf, #[source] io::Error),
}

/// Binds with mode 0600, removing what a dead hive left at that path.
pub async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let length = path.as_os_str().len();
    if length > PATH_MAX_BYTES {
        return Err(SocketError::TooLong(path.to_owned(), length));
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    let failed = |error| SocketError::Bind(path.to_owned(), error);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_only_and_taken_over_only_from_the_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("hive.sock");
        let first = bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path).await, Err(SocketError::InUse(_))));
        drop(first);
        assert!(bind(&path).await.is_ok());
    }

    #[tokio::test]
    async fn a_path_too_long_for_the_kernel_is_named() {
        let path = PathBuf::from(format!("/tmp/{}/hive.sock", "x".repeat(120)));
        assert!(matches!(bind(&path).await, Err(SocketError::TooLong(..))));
    }
}
