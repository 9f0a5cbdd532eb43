//! Which unix socket leads to the hive of this machine, and where hives keep things by default.

use crate::args::Global;
use crate::failure::Failure;
use crate::serve::settings;
use crate::{connect, verbs};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel's id of this boot: the same in every process of this machine, and nowhere else.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where locks of the whole machine are kept. The first is gone after a reboot, but only some distributions let everybody
/// write to it.
const LOCK_DIRS: [&str; 2] = ["/run/lock", "/tmp"];
/// Everybody may make files there, and remove only their own.
const SHARED: u32 = 0o1777;
/// The queen is only asked for a hint; the usual place is tried without her.
const HINT: Duration = Duration::from_secs(2);

/// A unix socket of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    /// Nobody but the queen says that a hive is behind it: then only root and this user may be.
    pub hearsay: bool,
}

impl Socket {
    /// Whether whoever listens there, by this user's name, is to be told anything.
    pub fn admits(&self, user: u32) -> bool {
        !self.hearsay || trusted_users().contains(&user)
    }
}

/// The hive of this machine to talk to. `hive` says which one when there are several.
///
/// # Errors
/// `Usage` when several hives run here and nothing tells which is meant; it names them. `Usage` when only somebody else's
/// does.
pub async fn socket(global: &Global, hive: Option<&str>) -> Result<Socket, Failure> {
    let given = |path: PathBuf| Socket { path, hearsay: false };
    if let Some(path) = &global.socket {
        return Ok(given(path.clone()));
    }
    let usual = usual_socket();
    let Some(local) = tokio::time::timeout(HINT, local_hives(global)).await.ok().flatten() else {
        return Ok(given(usual));
    };
    let trusted = |socket: &Path| socket == usual || belongs_to(socket, trusted_users());
    let found = choose(local, hive, usual.exists(), trusted)?;
    Ok(found.map_or_else(|| given(usual.clone()), |path| Socket { hearsay: path != usual, path }))
}

fn trusted_users() -> [u32; 2] {
    [0, nix::unistd::geteuid().as_raw()]
}

/// Ids and sockets of the hives of this machine that the queen knows; `None` when she does not answer.
async fn local_hives(global: &Global) -> Option<Vec<proto::Hive>> {
    let boot_id = std::fs::read_to_string(BOOT_ID).ok()?;
    let answer = verbs::hives::list(global).await.ok()?;
    let here = |hive: &proto::Hive| hive.boot_id == boot_id.trim() && !hive.socket.is_empty();
    Some(answer.hives.into_iter().filter(here).collect())
}

/// Whether it is one of these users'. What cannot be looked at will not be got through either, which is told then.
fn belongs_to(socket: &Path, users: [u32; 2]) -> bool {
    std::fs::metadata(socket).map_or(true, |found| users.contains(&found.uid()))
}

/// Any user of this machine can have a hive registered, and whoever listens is told commands and secrets: what the queen
/// says of a socket is followed only if it is `trusted`. `None`: the usual one, of which it is told whether it is there.
fn choose(
    local: Vec<proto::Hive>,
    wish: Option<&str>,
    usual_is_there: bool,
    trusted: impl Fn(&Path) -> bool,
) -> Result<Option<PathBuf>, Failure> {
    let fitting = local.into_iter().filter(|hive| wish.is_none_or(|wish| hive.id == wish));
    // Somebody else's does not compete.
    let (mut fitting, others): (Vec<proto::Hive>, Vec<proto::Hive>) =
        fitting.partition(|hive| trusted(Path::new(&hive.socket)));
    // A hive that ended a while ago is still known; it does not compete with one that lives.
    if fitting.iter().any(|hive| hive.freshness() == proto::Freshness::Live) {
        fitting.retain(|hive| hive.freshness() == proto::Freshness::Live);
    }
    match fitting.as_slice() {
        // This user may have one that the queen has not heard of.
        [] if !others.is_empty() && (wish.is_some() || !usual_is_there) => Err(Failure::Usage(format!(
            "the socket belongs to another user: {}; if you trust whoever that is, name it with --socket",
            names(&others)
        ))),
        [] => match wish {
            Some(wish) => Err(Failure::Nothing(format!(
                "no hive called {wish:?} is known to run on this machine; `rbee hives` lists them, --socket names one directly"
            ))),
            None => Ok(None),
        },
        [one] => Ok(Some(PathBuf::from(&one.socket))),
        several => Err(Failure::Usage(format!(
            "several hives run on this machine, say which with --socket: {}",
            names(several)
        ))),
    }
}

/// Each with its socket: "a (/run/a.sock), b (/run/b.sock)".
fn names(hives: &[proto::Hive]) -> String {
    let names: Vec<String> = hives.iter().map(|hive| format!("{} ({})", hive.id, hive.socket)).collect();
    names.join(", ")
}

/// Where a hive of this user keeps its state unless told otherwise.
pub fn default_state_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/rbee");
    }
    let home = || std::env::home_dir().unwrap_or_else(std::env::temp_dir);
    directory("XDG_STATE_HOME").unwrap_or_else(|| home().join(".local/state")).join("rbee")
}

/// Where hives lock the GPUs that they grant: the same place for every user, so the first that everybody may write to.
pub fn gpu_lock_dir() -> PathBuf {
    let shared = |path: &str| {
        std::fs::metadata(path).is_ok_and(|found| found.is_dir() && found.permissions().mode() & SHARED == SHARED)
    };
    LOCK_DIRS.iter().find(|path| shared(path)).unwrap_or(&LOCK_DIRS[0]).into()
}

/// Where the hive here listens as its configuration file says, if there is one; else the default.
fn usual_socket() -> PathBuf {
    let named = std::env::var_os("RBEE_CONFIG").filter(|set| !set.is_empty()).map(PathBuf::from);
    // What is wrong with the file is told by the hive and by `rbee config check`.
    let hive =
        settings::read(named.as_deref(), settings::HIVE).ok().flatten().map(|(_, file)| file.hive).unwrap_or_default();
    hive.socket.or_else(|| hive.state_dir.map(|dir| dir.join("hive.sock"))).unwrap_or_else(default_socket)
}

/// Where the hive of this user listens unless told otherwise.
pub fn default_socket() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/rbee/hive.sock");
    }
    // Without a runtime directory the socket lives in the state directory, which is as private.
    directory("XDG_RUNTIME_DIR").map_or_else(|| default_state_dir().join("hive.sock"), |run| run.join("rbee/hive.sock"))
}

fn directory(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The hive's part of a name, when all three parts are there.
pub fn hive_of(worker: &str) -> Option<&str> {
    let parts: Vec<&str> = worker.split('/').collect();
    if let [hive, _, _] = parts.as_slice() { Some(hive) } else { None }
}

/// A client of the hive here that `worker`, if it names its hive, belongs to; and that hive's workers.
pub async fn hive_with_workers(
    global: &Global,
    worker: Option<&str>,
) -> Result<(verbs::HiveClient, Vec<proto::Worker>), Failure> {
    let mut client = connect::hive(&socket(global, worker.and_then(hive_of)).await?).await?;
    let asking = client.list_workers(proto::WorkerServiceListWorkersRequest::default());
    let answer = connect::answer(global.timeout, "list the workers of this machine", asking).await;
    let workers = answer.map_err(not_the_queen)?.workers;
    Ok((client, workers))
}

/// A hive that went away is an error of this machine, not an unreachable queen.
pub fn not_the_queen(failure: Failure) -> Failure {
    match failure {
        Failure::Unreachable(words) => Failure::Failed(words),
        other => other,
    }
}

/// Refuses a socket path that the kernel could not bind.
pub fn check_socket(path: &Path) -> Result<(), Failure> {
    /// `sun_path` is 108 bytes with its end.
    const PATH_MAX: usize = 107;
    let bytes = path.as_os_str().len();
    if bytes <= PATH_MAX {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "the socket path {} has {bytes} bytes, the kernel allows {PATH_MAX}: take a shorter one with --socket or --state-dir",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hive(id: &str, freshness: proto::Freshness) -> proto::Hive {
        let socket = format!("/run/{id}.sock");
        proto::Hive { id: id.into(), socket, freshness: freshness.into(), ..Default::default() }
    }

    #[test]
    fn one_hive_here_is_the_one_that_is_meant() {
        let live = proto::Freshness::Live;
        let choose = |local, wish| choose(local, wish, true, |_| true).unwrap();
        assert_eq!(choose(vec![], None), None);
        assert_eq!(choose(vec![hive("a", live)], None), Some("/run/a.sock".into()));
        assert_eq!(choose(vec![hive("a", live), hive("b", live)], Some("b")), Some("/run/b.sock".into()));
        let dead = hive("old", proto::Freshness::Lost);
        assert_eq!(choose(vec![dead, hive("a", live)], None), Some("/run/a.sock".into()));
    }

    #[test]
    fn hearsay_admits_nobody_but_root_and_this_user() {
        let me = nix::unistd::geteuid().as_raw();
        let socket = |hearsay| Socket { path: "/tmp/x".into(), hearsay };
        assert!(socket(true).admits(0) && socket(true).admits(me));
        assert!(!socket(true).admits(me + 4_711) && socket(false).admits(me + 4_711));
    }

    #[test]
    fn several_hives_here_are_named() {
        let live = proto::Freshness::Live;
        let told = choose(vec![hive("a", live), hive("b", live)], None, true, |_| true).unwrap_err().to_string();
        assert!(told.contains("a (/run/a.sock), b (/run/b.sock)"), "{told}");
        assert!(matches!(choose(vec![hive("a", live)], Some("c"), true, |_| true), Err(Failure::Nothing(_))));
    }

    #[test]
    fn somebody_elses_socket_is_not_followed_unless_it_is_named() {
        let (live, lost) = (proto::Freshness::Live, proto::Freshness::Lost);
        let choose_beside =
            |local, wish, usual: bool| choose(local, wish, usual, |socket| socket != Path::new("/run/evil.sock"));
        let choose = |local, wish| choose_beside(local, wish, false);
        assert_eq!(choose(vec![hive("evil", live), hive("a", live)], None).unwrap(), Some("/run/a.sock".into()));
        assert_eq!(choose(vec![hive("a", lost), hive("evil", live)], None).unwrap(), Some("/run/a.sock".into()));
        for wish in [None, Some("evil")] {
            let told = choose(vec![hive("evil", live)], wish).unwrap_err();
            let named = |words: &str| words.contains("evil (/run/evil.sock)") && words.contains("--socket");
            assert!(matches!(&told, Failure::Usage(words) if named(words)), "{told}");
        }
        assert!(matches!(choose(vec![hive("evil", live)], Some("a")), Err(Failure::Nothing(_))));
        assert_eq!(choose_beside(vec![hive("evil", live)], None, true).unwrap(), None, "the queen may not know ours");
        assert!(choose_beside(vec![hive("evil", live)], Some("evil"), true).is_err());
    }

    #[test]
    fn a_socket_belongs_to_whom_its_file_belongs() {
        let place = tempfile::tempdir().unwrap();
        let (socket, link) = (place.path().join("hive.sock"), place.path().join("link"));
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let ours = nix::unistd::geteuid().as_raw();
        for path in [&socket, &link] {
            assert!(belongs_to(path, [u32::MAX, ours]), "{path:?}");
            assert!(!belongs_to(path, [u32::MAX; 2]), "{path:?}");
        }
        assert!(belongs_to(&place.path().join("nowhere"), [u32::MAX; 2]), "connecting tells why it is not there");
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_refused_with_its_length() {
        assert!(check_socket(Path::new(&"x".repeat(107))).is_ok());
        let told = check_socket(Path::new(&"x".repeat(108))).unwrap_err().to_string();
        assert!(told.contains("108 bytes") && told.contains("107"), "{told}");
    }

    #[test]
    fn a_full_name_names_its_hive() {
        assert_eq!(hive_of("box/llm/8080"), Some("box"));
        assert_eq!(hive_of("llm/8080"), None);
    }
}
