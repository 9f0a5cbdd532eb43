//! Observing on this machine, with real processes that are nobody's children here, and with trees of plain files and
//! sockets of the test's own in the place of systemd and Docker.

mod containers;
mod rules;

use super::*;
use crate::roster::Member;
use crate::worker::life::{LifeConfig, StopError};
use crate::worker::sys::{self, Ended};
use crate::worker::testing::{DEADLINE, slice_name};
use crate::worker::{Life, procfs};
use common::{HiveId, WorkerId};
use nix::sys::signal::Signal;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_millis(10);

/// A process that was left to init, so that it neither is our child nor descends from this hive.
struct Stranger {
    pid: i32,
    pidfd: OwnedFd,
}

impl Stranger {
    fn new(script: &str) -> Self {
        let line = format!("setsid sh -c '{script}' >/dev/null 2>&1 & echo $!");
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let first: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let pidfd = sys::open(first).unwrap();
        crate::worker::testing::until("it executes its script", || {
            let shell = if script.contains("exec ") { "sh" } else { "setsid" };
            let command = procfs::command(Path::new("/proc"), first);
            command.first().is_some_and(|name| name != b"setsid" && name != shell.as_bytes())
        });
        Self { pid: first, pidfd }
    }

    fn kill(&self) {
        let _ = sys::send(self.pidfd.as_fd(), Signal::SIGKILL);
        crate::worker::testing::until("it is dead", || sys::has_ended(self.pidfd.as_fd()));
    }

    fn lives(&self) -> bool {
        !sys::has_ended(self.pidfd.as_fd())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        for pid in procfs::session(Path::new("/proc"), self.pid) {
            let _ = sys::open(pid).and_then(|pidfd| sys::send(pidfd.as_fd(), Signal::SIGKILL));
        }
        self.kill();
    }
}

/// A hive's place: state, a tree of cgroups made of plain files, a socket for a container engine.
struct Place {
    state: tempfile::TempDir,
    tree: tempfile::TempDir,
    slice: String,
    rules: Vec<Rule>,
}

impl Place {
    fn new() -> Self {
        let made = || tempfile::tempdir().unwrap();
        Self { state: made(), tree: made(), slice: slice_name(), rules: Vec::new() }
    }

    fn socket(&self) -> PathBuf {
        self.tree.path().join("docker.sock")
    }

    async fn open(&self) -> Life {
        let config = LifeConfig {
            hive: HiveId::parse("box").unwrap(),
            advertise: "box.lan".to_owned(),
            state_dir: self.state.path().to_owned(),
            slice: self.slice.clone(),
            cgroup_root: Some(self.tree.path().to_owned()),
            proc_root: PathBuf::from("/proc"),
            gpu_lock_dir: self.state.path().to_owned(),
        };
        let gpus = tokio::sync::watch::Sender::default().subscribe();
        let life = Life::open(config, gpus, CancellationToken::new()).await.unwrap();
        let systemd = units::Systemd { systemctl: "/nowhere".into(), runtime: "/nowhere".into() };
        life.begin_observing(Settings { rules: self.rules.clone(), sockets: vec![self.socket()], systemd });
        life
    }

    /// A cgroup of plain files with these processes in it.
    fn cgroup(&self, path: &str, pids: &[i32]) -> PathBuf {
        let directory = self.tree.path().join(path);
        fs::create_dir_all(&directory).unwrap();
        let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(directory.join("cgroup.procs"), text).unwrap();
        directory
    }
}

fn request(target: &str) -> proto::ObserveWorkerRequest {
    proto::ObserveWorkerRequest { target: target.to_owned(), ..Default::default() }
}

fn id(instance: &str) -> WorkerId {
    WorkerId::new("observed", instance).unwrap()
}

fn member(life: &Life, instance: &str) -> Option<Arc<Member>> {
    let roster = life.roster().borrow().clone();
    roster.members.iter().find(|member| member.id.instance() == instance).cloned()
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

fn story(life: &Life, instance: &str) -> Vec<(proto::LifeEventKind, String)> {
    let events = life.journal().after(0).into_iter().filter(|event| event.instance == instance);
    events.map(|event| (event.kind(), event.message.clone())).collect()
}

async fn exit(life: &Life, instance: &str) -> proto::ExitCause {
    eventually("its end is told", || {
        let mut events = life.journal().after(0).into_iter().filter(|event| event.instance == instance);
        events.find_map(|event| event.exit)
    })
    .await
}

#[tokio::test]
async fn a_process_is_a_worker_until_it_ends() {
    let place = Place::new();
    let life = place.open().await;
    let stranger = Stranger::new("exec sleep 300");
    let seen = life.observe(request(&stranger.pid.to_string())).await.unwrap();
    assert_eq!(seen.shown, format!("pid {}", stranger.pid));
    let member = seen.member.unwrap();
    assert_eq!(member.id, id("sleep"));
    let (spec, footing) = (&member.spec, member.footing.as_ref().unwrap());
    assert_eq!((spec.origin(), spec.observed.as_str()), (proto::Origin::Observed, seen.shown.as_str()));
    assert_eq!((spec.command.as_slice(), footing.pid), (["sleep", "300"].map(str::to_owned).as_slice(), stranger.pid));
    assert_eq!(footing.cgroup, None, "the cgroup that it lives in is not its own");
    let again = life.observe(request(&format!("pid:{}", stranger.pid))).await.unwrap_err();
    assert!(matches!(&again, ObserveError::Seen { id, .. } if id.instance() == "sleep"), "{again}");
    stranger.kill();
    let cause = exit(&life, "sleep").await;
    assert!(matches!(
        (cause.reason(), cause.signal),
        (proto::ExitReason::Signal, Some(9)) | (proto::ExitReason::Unknown, None)
    ));
    eventually("it leaves the roster", || life.roster().borrow().members.is_empty().then_some(())).await;
    let kinds: Vec<_> = story(&life, "sleep").into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [proto::LifeEventKind::Observed, proto::LifeEventKind::Exited]);
    assert!(life.observe(request(&stranger.pid.to_string())).await.is_err());
}

#[tokio::test]
async fn what_is_observed_is_never_stopped_and_can_be_let_go() {
    let place = Place::new();
    let life = place.open().await;
    let stranger = Stranger::new("exec sleep 300");
    life.observe(request(&stranger.pid.to_string())).await.unwrap();
    let refused = life.stop(&id("sleep"), Duration::ZERO, "test").await.unwrap_err();
    assert!(matches!(refused, StopError::Observed(_)));
    assert_eq!(
        refused.to_string(),
        "observed/sleep: observed, not started by rbee: end it where it was started; `rbee observe --end observed/sleep` only looks away"
    );
    let refused = life.restart(&id("sleep"), Duration::ZERO, "test").await.unwrap_err().to_string();
    assert!(refused.contains("observed"), "{refused}");
    assert!(member(&life, "sleep").is_some() && stranger.lives());
    life.unobserve(&id("sleep")).await.unwrap();
    assert!(member(&life, "sleep").is_none() && stranger.lives());
    assert!(matches!(life.unobserve(&id("sleep")).await, Err(ObserveError::Unknown(_))));
    assert!(story(&life, "sleep").last().unwrap().1.contains("left as it is"));
    // Its name and the process are free again.
    life.observe(request(&stranger.pid.to_string())).await.unwrap();
}

#[tokio::test]
async fn the_hive_its_workers_and_its_forebears_are_not_observed() {
    let place = Place::new();
    let life = place.open().await;
    let own = std::process::id();
    let above = nix::unistd::getppid();
    for (pid, words) in [(own.to_string(), "this hive itself"), (above.to_string(), "this hive descends from")] {
        let refused = life.observe(request(&pid)).await.unwrap_err();
        assert!(matches!(&refused, ObserveError::Ours(told) if told.contains(words)), "{refused}");
    }
    let marked = Stranger::new("RBEE_WORKER=other/llm/1 exec sleep 300");
    let refused = life.observe(request(&marked.pid.to_string())).await.unwrap_err();
    assert!(refused.to_string().contains("part of worker other/llm/1"), "{refused}");
    let stranger = Stranger::new("exec sleep 300");
    place.cgroup(&format!("system.slice/{}.service", place.slice), &[stranger.pid]);
    place.cgroup(&format!("{}/llm/1", place.slice), &[]);
    let command = ["sleep", "300"].map(str::to_owned).to_vec();
    let started = life.start(proto::StartWorkerRequest { command, ..Default::default() }).await.unwrap().member;
    let refused = life.observe(request(&started.pid().unwrap().to_string())).await.unwrap_err();
    assert!(matches!(refused, ObserveError::Ours(_)), "{refused}");
    assert!(matches!(life.unobserve(&started.id).await, Err(ObserveError::Started(_))));
    let taken = proto::ObserveWorkerRequest {
        group: started.id.group().to_owned(),
        instance: started.id.instance().to_owned(),
        ..request(&stranger.pid.to_string())
    };
    assert!(matches!(life.observe(taken).await, Err(ObserveError::Taken(_))));
    life.stop(&started.id, Duration::ZERO, "test").await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_observed_cannot_be_started() {
    let place = Place::new();
    place.cgroup("system.slice/llm.service", &[]);
    let life = place.open().await;
    let seen = life.observe(request("llm.service")).await.unwrap();
    assert_eq!((seen.member.is_none(), seen.shown.as_str()), (true, "unit llm.service"));
    let start = proto::StartWorkerRequest {
        group: "observed".into(),
        instance: "llm".into(),
        command: vec!["true".into()],
        ..Default::default()
    };
    let refused = life.start(start).await.unwrap_err();
    assert!(refused.to_string().contains("observed/llm"), "{refused}");
}

#[tokio::test]
async fn a_unit_is_followed_through_its_restarts() {
    let place = Place::new();
    let life = place.open().await;
    assert!(matches!(life.observe(request("llm.service")).await, Err(ObserveError::Nowhere(_))));
    let first = Stranger::new("sleep 300 & exec sleep 301");
    let child = || procfs::session(Path::new("/proc"), first.pid).into_iter().find(|pid| *pid != first.pid);
    let child = eventually("its child is there", child).await;
    let cgroup = place.cgroup("system.slice/llm.service", &[child, first.pid]);
    // A bare name is a unit's when such a cgroup exists.
    let member_now = life.observe(request("llm")).await.unwrap().member.unwrap();
    assert_eq!((member_now.id.instance(), member_now.pid()), ("llm", Some(first.pid)));
    assert_eq!(member_now.spec.observed, "unit llm.service");
    let footing = member_now.footing.as_ref().unwrap();
    assert_eq!((footing.cgroup.as_ref(), footing.cgroup_inode.is_some()), (Some(&cgroup), true));
    let inside = life.observe(request(&child.to_string())).await.unwrap_err();
    assert!(matches!(inside, ObserveError::Seen { .. }), "{inside}");

    first.kill();
    // Its child lives on in the cgroup: so does the worker.
    for _ in 0..40 {
        assert!(member(&life, "llm").is_some());
        tokio::time::sleep(LOOK).await;
    }
    let pidfd = sys::open(child).unwrap();
    sys::send(pidfd.as_fd(), Signal::SIGKILL).unwrap();
    exit(&life, "llm").await;
    eventually("it leaves the roster", || member(&life, "llm").is_none().then_some(())).await;

    let second = Stranger::new("exec sleep 302");
    place.cgroup("system.slice/llm.service", &[second.pid]);
    let back = eventually("its new process is taken", || member(&life, "llm")).await;
    assert_eq!((back.pid(), back.id.clone()), (Some(second.pid), member_now.id.clone()));
    assert!(back.slot > member_now.slot, "no slot is used twice");
    assert!(second.lives());
}

#[tokio::test]
async fn what_is_observed_outlives_the_hive() {
    let place = Place::new();
    let life = place.open().await;
    let [process, other, unit] = [300, 301, 302].map(|length| Stranger::new(&format!("exec sleep {length}")));
    place.cgroup("system.slice/llm.service", &[unit.pid]);
    for (target, name) in [(process.pid.to_string(), "a"), (other.pid.to_string(), "b"), ("llm.service".into(), "c")] {
        let asked = proto::ObserveWorkerRequest {
            instance: name.into(),
            model: Some("m".into()),
            labels: [("team".to_owned(), "x".to_owned())].into(),
            ..request(&target)
        };
        life.observe(asked).await.unwrap();
    }
    let before = member(&life, "a").unwrap();
    drop(life);
    other.kill();
    let life = place.open().await;
    let after = eventually("the process is observed again", || member(&life, "a")).await;
    assert_eq!((&after.footing, &after.spec), (&before.footing, &before.spec));
    let again = eventually("the unit too", || member(&life, "c")).await;
    assert_eq!(again.pid(), Some(unit.pid));
    let ended = story(&life, "b");
    assert!(
        ended.iter().any(|(kind, told)| *kind == proto::LifeEventKind::Exited && told.contains("while no hive ran"))
    );
    assert!(member(&life, "b").is_none() && process.lives() && unit.lives());
    let told = story(&life, "a").pop().unwrap().1;
    assert!(told.contains("again"), "{told}");
}

#[tokio::test]
async fn a_reused_pid_is_not_taken_for_what_was_observed() {
    let place = Place::new();
    let life = place.open().await;
    let stranger = Stranger::new("exec sleep 300");
    life.observe(request(&stranger.pid.to_string())).await.unwrap();
    drop(life);
    let path = place.state.path().join("observed.json");
    let ticks = procfs::stat(Path::new("/proc"), stranger.pid).unwrap().start_ticks;
    let lie = fs::read_to_string(&path).unwrap().replace(&ticks.to_string(), &(ticks - 1).to_string());
    fs::write(&path, lie).unwrap();
    let life = place.open().await;
    exit(&life, "sleep").await;
    assert!(life.roster().borrow().members.is_empty() && stranger.lives());
}

#[tokio::test]
async fn a_real_cgroup_is_used_only_when_it_is_surely_its_own() {
    let Some(mount) = places::Places::look(None, Path::new("/proc")).v2 else { return };
    let path = mount.join(format!("rbee-{}.service", slice_name()));
    if fs::create_dir(&path).is_err() {
        return;
    }
    let stranger = Stranger::new("sleep 300 & exec sleep 301");
    let child = || procfs::session(Path::new("/proc"), stranger.pid).into_iter().find(|pid| *pid != stranger.pid);
    let child = eventually("its child is there", child).await;
    let other = Stranger::new("exec sleep 302");
    let enter = |pid: i32| fs::write(path.join("cgroup.procs"), pid.to_string()).unwrap();
    let owned = || {
        let cgroup = kin::cgroup_of(Path::new("/proc"), &mount, stranger.pid)?;
        let ticks = procfs::stat(Path::new("/proc"), stranger.pid).unwrap().start_ticks;
        kin::owns(Path::new("/proc"), &cgroup, stranger.pid, ticks).then_some(cgroup.path)
    };
    assert_eq!(owned(), None, "the top of the tree is everybody's");
    enter(stranger.pid);
    enter(child);
    assert_eq!(owned().as_ref(), Some(&path));
    enter(other.pid);
    assert_eq!(owned(), None, "somebody else lives in it");
    drop((stranger, other));
    eventually("the cgroup is empty and removed", || fs::remove_dir(&path).ok()).await;
}

#[tokio::test]
async fn an_end_that_nobody_saw_close_by_is_told_as_unknown() {
    let place = Place::new();
    let life = place.open().await;
    let stranger = Stranger::new("sleep 0.4; exit 3");
    life.observe(proto::ObserveWorkerRequest { instance: "x".into(), ..request(&stranger.pid.to_string()) })
        .await
        .unwrap();
    let cause = exit(&life, "x").await;
    let told = story(&life, "x").pop().unwrap().1;
    match cause.reason() {
        proto::ExitReason::Code => assert_eq!((cause.code, told.as_str()), (Some(3), "ended: exit code 3")),
        reason => assert_eq!((reason, told.as_str()), (proto::ExitReason::Unknown, "ended: nobody could tell how")),
    }
    assert_eq!(Ended::from_status(3 << 8), Ended::Code(3));
}
