//! Lives on this machine, with real processes, and real cgroups where there are any.

mod asking;
mod ending;
mod escaping;
mod finding;
mod first;
mod flooding;
mod full;
mod giving;
mod hanging;
mod limits;
mod opening;
mod readiness;
mod restarting;
mod returning;
mod speed;
mod starting;

use super::*;
use crate::worker::testing::{DEADLINE, slice_name, until};
use crate::worker::{cgroup, sys};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(5);
/// A grace that no test waits for.
const LONG: Duration = Duration::from_secs(600);

/// A slice and a state directory of its own; everything in it is killed at the end.
struct Place {
    state: tempfile::TempDir,
    slice: String,
    cgroup_root: Option<PathBuf>,
}

impl Place {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap(), slice: slice_name(), cgroup_root: None }
    }

    /// On the last step of the ladder.
    fn without_cgroups() -> Self {
        let mut place = Self::new();
        place.cgroup_root = Some(PathBuf::from("/nowhere"));
        place
    }

    fn config(&self) -> LifeConfig {
        LifeConfig {
            hive: HiveId::parse("box").unwrap(),
            advertise: "box.lan".to_owned(),
            state_dir: self.state.path().to_owned(),
            slice: self.slice.clone(),
            cgroup_root: self.cgroup_root.clone(),
            proc_root: PathBuf::from("/proc"),
        }
    }

    async fn open(&self) -> Life {
        self.open_with(&tokio::sync::watch::Sender::default()).await
    }

    async fn open_with(&self, gpus: &tokio::sync::watch::Sender<Arc<GpuView>>) -> Life {
        Life::open(self.config(), gpus.subscribe(), CancellationToken::new()).await.unwrap()
    }

    /// The record of a worker as it is on disk. Loading them as a hive does would drop what it is just writing.
    fn record(&self, instance: &str) -> crate::worker::record::Record {
        self.recorded(instance).expect("a record")
    }

    fn recorded(&self, instance: &str) -> Option<crate::worker::record::Record> {
        let text = fs::read(self.state.path().join(format!("workers/llm/{instance}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn root(&self) -> Option<PathBuf> {
        Ground::discover(&self.slice, self.cgroup_root.as_deref(), Path::new("/proc")).root
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (_, record) in Records::open(self.state.path()).unwrap().load() {
            let Some(process) = record.process else { continue };
            for pid in procfs::session(Path::new("/proc"), process.pid) {
                let _ = sys::open(pid).and_then(|pidfd| sys::send(pidfd.as_fd(), Signal::SIGKILL));
            }
        }
        let Some(root) = self.root() else { return };
        for (_, cgroup) in cgroup::enumerate(&root) {
            until("the cgroup is empty", || {
                cgroup.kill();
                !cgroup.populated().unwrap_or(true)
            });
            let _ = cgroup.remove();
        }
        let _ = fs::remove_dir(root);
    }
}

fn request(instance: &str, command: &[&str]) -> proto::StartWorkerRequest {
    proto::StartWorkerRequest {
        group: "llm".to_owned(),
        instance: instance.to_owned(),
        command: command.iter().map(|text| (*text).to_owned()).collect(),
        ..Default::default()
    }
}

fn id(instance: &str) -> WorkerId {
    WorkerId::new("llm", instance).unwrap()
}

async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_true() {
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn ended(life: &Life, instance: &str) -> proto::ExitCause {
    let id = id(instance);
    let gone = || last_exit(life, instance).is_some() && !life.inner().table().knows(&id);
    eventually("the journal tells and the name is free", gone).await;
    last_exit(life, instance).unwrap()
}

fn last_exit(life: &Life, instance: &str) -> Option<proto::ExitCause> {
    let events = life.journal().after(0);
    let mut exits = events.into_iter().filter(|event| event.kind() == proto::LifeEventKind::Exited);
    exits.rfind(|event| event.instance == instance).and_then(|event| event.exit)
}

fn kinds(life: &Life) -> Vec<proto::LifeEventKind> {
    life.journal().after(0).iter().map(|event| event.kind()).collect()
}

fn runs(member: &Member) -> bool {
    procfs::runs(Path::new("/proc"), member.pid().unwrap(), member.footing.as_ref().unwrap().start_ticks)
}

/// What the roster tells of a worker now.
fn member(life: &Life, instance: &str) -> Option<Arc<Member>> {
    life.roster().borrow().members.iter().find(|member| member.id.instance() == instance).cloned()
}

async fn reaches(life: &Life, instance: &str, state: proto::WorkerState) -> Arc<Member> {
    let there = || member(life, instance).filter(|member| member.state == state);
    eventually(&format!("{instance} is {state:?}"), || there().is_some()).await;
    there().unwrap()
}

fn kill(member: &Member) {
    let pidfd = sys::open(member.pid().unwrap()).unwrap();
    sys::send(pidfd.as_fd(), Signal::SIGKILL).unwrap();
}

/// Ends a hive and leaves its workers.
async fn leave(life: Life) {
    life.inner().stopping.cancel();
    life.closed().await;
}

/// Kills a worker while no hive runs, and reaps it as its parent would have.
async fn dies_alone(member: &Member) {
    let pidfd = sys::open(member.pid().unwrap()).unwrap();
    sys::send(pidfd.as_fd(), Signal::SIGKILL).unwrap();
    eventually("it is reaped", || !matches!(sys::reap(&pidfd), Ok(None))).await;
}
