//! The hive's unix socket: binding it so that only its owner can reach it, and that no live hive loses its own.

use super::grants::Grants;
use super::workers::Workers;
use proto::grant_service_server::GrantServiceServer;
use proto::worker_service_server::WorkerServiceServer;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;

/// The kernel's limit for the path of a unix socket, without the closing zero (`sun_path`, unix(7)).
pub const PATH_MAX_BYTES: usize = 107;

/// How long a stopping hive waits for the clients of its socket: one that is suspended would keep it for ever.
const CLIENTS_LEAVE: Duration = Duration::from_secs(2);

/// So often a socket that answers is tried before it counts as another hive's. A killed hive's last child may not have
/// executed its program yet: it still has the hive's descriptors, and dies a moment later.
const ANSWERS_MAX: u32 = 15;
/// From one try to the next.
const ANSWER_PAUSE: Duration = Duration::from_millis(20);

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
    /// Something else is there, which is not ours to remove.
    #[error("{0} is there and is no socket: choose another --socket")]
    NotASocket(PathBuf),
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
    if answers(path).await {
        return Err(SocketError::InUse(path.to_owned()));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(SocketError::NotASocket(path.to_owned()));
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

/// Whether somebody listens at a path, and goes on listening.
async fn answers(path: &Path) -> bool {
    for _ in 0..ANSWERS_MAX {
        match UnixStream::connect(path).await {
            // A hive that is too busy to take one more is alive too.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return false,
            _ => tokio::time::sleep(ANSWER_PAUSE).await,
        }
    }
    true
}

/// Serves until stopped; then for [`CLIENTS_LEAVE`] longer, for the last answers.
pub async fn serve(
    service: WorkerServiceServer<Workers>,
    grants: GrantServiceServer<Grants>,
    listener: UnixListener,
    stopping: CancellationToken,
) {
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .add_service(grants)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopping.clone().cancelled_owned());
    let patience = async {
        stopping.cancelled().await;
        tokio::time::sleep(CLIENTS_LEAVE).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "the unix socket is no longer served");
        },
        () = patience => tracing::warn!("a client of the unix socket does not leave; it is left"),
    }
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
    async fn what_is_no_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_too_long_for_the_kernel_is_named() {
        let path = PathBuf::from(format!("/tmp/{}/hive.sock", "x".repeat(120)));
        assert!(matches!(bind(&path).await, Err(SocketError::TooLong(..))));
    }
}
