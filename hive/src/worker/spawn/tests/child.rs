//! What a real first process does to itself before it executes anything, as procfs tells it afterwards.

use super::*;
use crate::worker::sys::{Account, Down};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

/// So many starts are timed.
const STARTS: usize = 60;
/// Half of them take no longer, on a machine that is busy with other tests.
const START_P50_MAX: Duration = Duration::from_millis(20);

fn asked(change: impl FnOnce(&mut proto::Limits)) -> Limits {
    let mut asked = proto::Limits::default();
    change(&mut asked);
    Limits::parse(&asked).unwrap()
}

fn nowhere() -> Ground {
    Ground::discover("t.slice", Some(Path::new("/nowhere")), Path::new("/proc"))
}

fn started(ground: &Ground, limits: &Limits, exec: &Exec) -> Spawned {
    let site = Site::prepare(ground, &id("1"), limits, false).unwrap();
    site.start(exec, limits, &mut |_, _| Ok(())).unwrap()
}

/// One line of `/proc/<pid>/status`, without its key.
fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    line.unwrap_or_else(|| panic!("{key} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn nobody() -> Account {
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    Account { name: user.name, uid, gid, groups: vec![gid, 4242] }
}

#[test]
fn niceness_and_resource_limits_are_taken_on_before_exec() {
    let limits = asked(|asked| {
        asked.nice = Some(7);
        let pairs = [("nofile", "100:200"), ("core", "0"), ("stack", "1M:2M"), ("cpu", "60")];
        asked.rlimits = pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    });
    let spawned = started(&nowhere(), &limits, &exec("sleep", &["300"]));
    let pid = spawned.child.pid;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.rsplit(')').next().unwrap().split_whitespace().nth(16), Some("7"), "{stat}");
    let table = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let row = |name: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("Max open files"), ["100", "200"]);
    assert_eq!(row("Max core file size"), ["0", "0"]);
    assert_eq!(row("Max cpu time"), ["60", "60"]);
    assert_eq!(row("Max stack size"), ["1048576", "2097152"]);
    let applied = &spawned.site.placement.applied;
    assert_eq!((applied["nice"].as_str(), applied["RLIMIT_NOFILE"].as_str()), ("7", "100:200"));
    assert_eq!((applied.len(), spawned.site.placement.not_applied.len()), (5, 0));
    end(&spawned);
}

#[test]
fn what_cannot_be_taken_on_is_told_with_its_errno() {
    // Above /proc/sys/fs/nr_open: not even root may.
    let limits = asked(|asked| {
        (asked.nice, asked.cpus) = (Some(3), "8191".into());
        asked.rlimits.insert("nofile".into(), "9000000000000".into());
    });
    let spawned = started(&nowhere(), &limits, &exec("sleep", &["300"]));
    let placement = &spawned.site.placement;
    assert_eq!(placement.applied.keys().collect::<Vec<_>>(), ["nice"]);
    let told = placement.not_applied.join("\n");
    assert!(
        told.contains("RLIMIT_NOFILE 9000000000000:9000000000000 not applied") && told.contains("os error 1"),
        "{told}"
    );
    assert!(told.contains("sched_setaffinity 8191 not applied") && told.contains("os error 22"), "{told}");
    end(&spawned);
}

#[test]
#[cfg_attr(any(not(target_os = "linux"), rbee_plain), ignore = "a plain start enters no cgroup")]
fn where_everything_is_required_nothing_is_executed_without_it() {
    let (top, ground) = super::fake(&["cgroup.procs"]);
    let mark = top.path().join("mark");
    let only = asked(|asked| drop(asked.rlimits.insert("nofile".into(), "9000000000000".into())));
    let site = Site::prepare(&ground, &id("8080"), &only, true).unwrap();
    let touch = exec("touch", &[mark.to_str().unwrap()]);
    let error = site.start(&touch, &only, &mut |_, _| panic!("it was about to be executed")).unwrap_err();
    let SpawnError::Denied { path, source } = error else { panic!("{error}") };
    assert_eq!(path, Path::new("RLIMIT_NOFILE 9000000000000:9000000000000"));
    assert_eq!(source.raw_os_error(), Some(libc::EPERM));
    assert!(!mark.exists());
}

#[test]
fn cpus_that_do_not_exist_are_not_told_as_kept_to() {
    let limits = asked(|asked| asked.cpus = "0-8191".into());
    let spawned = started(&nowhere(), &limits, &exec("sleep", &["300"]));
    let told = &spawned.site.placement.applied["sched_setaffinity"];
    assert_eq!(*told, status(spawned.child.pid, "Cpus_allowed_list"));
    assert_ne!(told, "0-8191");
    end(&spawned);
}

#[test]
fn cpus_without_a_controller_are_kept_to_by_each_process() {
    let limits = asked(|asked| asked.cpus = "0".into());
    let slice = Slice::real();
    for ground in [nowhere(), slice.ground.clone()] {
        let spawned = started(&ground, &limits, &exec("sh", &["-c", "sleep 300 & wait"]));
        let placement = &spawned.site.placement;
        assert_eq!(status(spawned.child.pid, "Cpus_allowed_list"), "0");
        let way = if placement.applied.contains_key("cpuset.cpus") { "cpuset.cpus" } else { "sched_setaffinity" };
        assert_eq!(placement.applied[way], "0");
        assert!(placement.not_applied.is_empty(), "{placement:?}");
        assert!(way == "cpuset.cpus" || placement.level() != proto::PlacementLevel::Full);
        let children = format!("/proc/{0}/task/{0}/children", spawned.child.pid);
        let mut child = None;
        crate::worker::testing::until("it has a child", || {
            child = fs::read_to_string(&children).unwrap().split_whitespace().next().and_then(|pid| pid.parse().ok());
            child.is_some()
        });
        assert_eq!(status(child.unwrap(), "Cpus_allowed_list"), "0");
        let other = sys::open(child.unwrap()).unwrap();
        let _ = sys::send(other.as_fd(), nix::sys::signal::Signal::SIGKILL);
        end(&spawned);
    }
}

#[test]
fn another_user_has_its_groups_its_directory_and_the_log() {
    if !is_root() {
        return;
    }
    let (place, log) = (tempfile::tempdir().unwrap(), tempfile::tempfile().unwrap());
    let account = nobody();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(place.path(), Some(account.uid), Some(account.gid)).unwrap();
    let directory = std::ffi::CString::new(place.path().to_str().unwrap()).unwrap();
    let down = Down { account: Some(account.clone()), directory: Some(directory), no_new_privileges: true };
    // What only root may do is done before: a negative niceness.
    let limits = asked(|asked| asked.nice = Some(-3));
    let mut as_nobody = exec("sh", &["-c", "pwd; echo x > made; exec sleep 300"]);
    (as_nobody.down, as_nobody.log) = (down, log.try_clone().unwrap().into());
    let slice = Slice::real();
    let spawned = started(&slice.ground, &limits, &as_nobody);
    let (pid, ids) = (spawned.child.pid, |id: u32| [id; 4].map(|id| id.to_string()).join(" "));
    assert_eq!((status(pid, "Uid"), status(pid, "Gid")), (ids(account.uid), ids(account.gid)));
    let groups = status(pid, "Groups");
    assert!(groups.split(' ').count() == 2 && groups.contains("4242"), "{groups}");
    assert_eq!((status(pid, "CapEff"), status(pid, "NoNewPrivs")), ("0".repeat(16), "1".to_owned()));
    // Root in a container may not be allowed to; then that is told, and not the user's fault.
    let placement = &spawned.site.placement;
    let told = placement.not_applied.iter().any(|sentence| sentence.contains("nice -3"));
    assert!(told || placement.applied["nice"] == "-3", "{placement:?}");
    crate::worker::testing::until("it has written", || place.path().join("made").exists());
    assert_eq!(fs::metadata(place.path().join("made")).unwrap().uid(), account.uid);
    let (mut log, mut text) = (log, String::new());
    std::io::Seek::rewind(&mut log).unwrap();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), place.path().canonicalize().unwrap().to_str().unwrap());
    if let Some(cgroup) = &spawned.site.cgroup {
        assert_eq!(cgroup.processes(), [pid], "it is inside, though it could not have gone there");
    }
    end(&spawned);
}

#[test]
fn a_directory_is_entered_as_the_user_and_an_impossible_user_is_named() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let fault = |down: Down| {
        let site = Site::prepare(&nowhere(), &id("1"), &Limits::default(), false).unwrap();
        let exec = Exec { down, ..exec("sleep", &["300"]) };
        let error = site.start(&exec, &Limits::default(), &mut |_, _| Ok(())).unwrap_err();
        let SpawnError::Failed { step, path, source } = error else { panic!("{error}") };
        (step, path, source.raw_os_error().unwrap())
    };
    let path = place.path().to_str().unwrap().to_owned();
    let directory = Some(std::ffi::CString::new(path.clone()).unwrap());
    let closed = fault(Down { account: Some(nobody()), directory, no_new_privileges: false });
    assert_eq!(closed, ("enter directory", format!("{path} as user nobody"), libc::EACCES));
    let broken = Account { uid: u32::MAX, gid: u32::MAX, groups: vec![u32::MAX], ..nobody() };
    let refused = fault(Down { account: Some(broken), ..Down::default() });
    assert_eq!(refused, ("become user", "nobody".to_owned(), libc::EINVAL));
}

#[test]
fn no_new_privileges_is_inherited_and_off_by_default() {
    let mut with = exec("sleep", &["300"]);
    with.down.no_new_privileges = true;
    let own = status(i32::try_from(std::process::id()).unwrap(), "NoNewPrivs");
    for (exec, wanted) in [(with, "1".to_owned()), (exec("sleep", &["300"]), own)] {
        let spawned = started(&nowhere(), &Limits::default(), &exec);
        assert_eq!(status(spawned.child.pid, "NoNewPrivs"), wanted);
        end(&spawned);
    }
}

#[test]
fn a_start_takes_about_a_millisecond() {
    let slice = Slice::real();
    let mut taken: Vec<Duration> = (0..STARTS)
        .map(|_| {
            let site = Site::prepare(&slice.ground, &id("1"), &Limits::default(), false).unwrap();
            let began = Instant::now();
            let spawned = site.start(&exec("true", &[]), &Limits::default(), &mut |_, _| Ok(())).unwrap();
            let taken = began.elapsed();
            end(&spawned);
            taken
        })
        .collect();
    taken.sort_unstable();
    let [p50, p95] = [50, 95].map(|percent| taken[STARTS * percent / 100]);
    println!("from clone to exec: p50 {p50:?}, p95 {p95:?} over {STARTS} starts");
    assert!(p50 < START_P50_MAX, "p50 {p50:?}");
}
