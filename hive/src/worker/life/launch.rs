//! From a valid request to a process in the table: log, cgroup, intent record, exec. Also what the world is told of a
//! recorded worker.

use super::entry::{Entry, Names, Standing};
use super::request::{self, Plan};
use super::start::StartError;
use super::{Inner, watch};
use crate::roster::{Footing, Member};
use crate::worker::journal::News;
use crate::worker::record::{Home, Past, Process, Record, from_unix_nanos};
use crate::worker::spawn::{Site, SpawnError, Spawned};
use crate::worker::sys::Exec;
use crate::worker::{logs, procfs};
use common::WorkerId;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch::Receiver;
use tracing::info;

/// A process past its exec, and written down.
#[derive(Debug)]
pub struct Launched {
    pub record: Record,
    pub spawned: Spawned,
    /// How long its log was before it.
    pub log_from: u64,
}

/// How a run is told of.
#[derive(Debug)]
pub struct Beginning {
    pub kind: proto::LifeEventKind,
    /// What its command line is put after.
    pub words: String,
    /// See [`Entry::probation`].
    pub probation: bool,
}

/// From cgroup to exec. Blocks. After an error nothing is left but what is on disk about the worker, which is the
/// caller's to remove or to write anew.
pub fn launch(
    inner: &Inner,
    id: &WorkerId,
    request: &proto::StartWorkerRequest,
    plan: &Plan,
    past: Past,
) -> Result<Launched, StartError> {
    let path = logs::path(&inner.config.state_dir, id);
    let (log, log_from) = logs::open(&path).map_err(failed("open", &path))?;
    let null = PathBuf::from("/dev/null");
    let (given, login) = (request::give(inner, id, plan)?, plan.login()?);
    let exec = Exec {
        program: plan.program()?,
        arguments: plan.arguments.clone(),
        environment: plan.environment(&inner.config, id, &given, login.as_ref())?,
        down: plan.down(login),
        patience: inner.patience(id),
        log: log.into(),
        null: File::open(&null).map_err(failed("open", &null))?.into(),
    };
    let site = Site::prepare(&inner.ground, id, &plan.limits, plan.required).map_err(|error| told(id, error))?;
    let mut record = intent(inner, id, request, plan, &site);
    record.past = past;
    // That somebody asked for this start is written down until there is a process: the next hive then owes it.
    record.asked = inner.table().live.get(id).and_then(|entry| entry.record.as_ref()?.asked.clone());
    record.gpus = given.gpus;
    if let Err(source) = write_intent(inner, id, request, &record) {
        site.abandon();
        return Err(failed("write the record of", Path::new(&id.to_string()))(source));
    }
    // Complete before the program runs: with or without a cgroup, the next hive finds what this one leaves.
    let mut written = |site: &Site, pid: i32| {
        if inner.table().live.get(id).is_some_and(|entry| entry.asked.is_some()) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "it was asked to end before it began"));
        }
        complete(inner, &mut record, site, pid);
        inner.store(id, &record)
    };
    let spawned = site.start(&exec, &plan.limits, &mut written).map_err(|error| told(id, error))?;
    Ok(Launched { record, spawned, log_from })
}

/// The request before the record: a record without one could not be started again.
fn write_intent(inner: &Inner, id: &WorkerId, request: &proto::StartWorkerRequest, record: &Record) -> io::Result<()> {
    if record.past.runs == 0 {
        inner.records.write_request(id, request)?;
    }
    inner.store(id, record)
}

fn intent(inner: &Inner, id: &WorkerId, request: &proto::StartWorkerRequest, plan: &Plan, site: &Site) -> Record {
    Record {
        group: id.group().to_owned(),
        instance: id.instance().to_owned(),
        boot_id: inner.boot_id.clone(),
        process: None,
        cgroup: site.cgroup.as_ref().map(Home::from),
        command: plan.shown.clone(),
        command_digest: plan.digest.clone(),
        model_names: plan.model_names.clone(),
        model_given: plan.model_given,
        endpoint: plan.endpoint.clone().map(|endpoint| (endpoint.scheme, endpoint.host, endpoint.port)),
        gpus: plan.gpus.clone(),
        labels: plan.labels.clone(),
        limits: plan.asked_limits.clone(),
        level: site.placement.level,
        applied: site.placement.applied.clone().into_iter().collect(),
        not_applied: site.placement.not_applied.clone(),
        restart: request.restart,
        probe: request.probe,
        user: request.user.clone(),
        health_timeout_millis: plan.health_timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        was_ready: false,
        first_exit: None,
        oom_told: 0,
        past: Past::default(),
        asked: None,
    }
}

/// What is known only when there is a process: that, and the step of the ladder it really got.
fn complete(inner: &Inner, record: &mut Record, site: &Site, pid: i32) {
    // Our own child, not reaped: its pid cannot have gone to anybody else.
    let start_ticks = procfs::stat(&inner.config.proc_root, pid).map_or(0, |found| found.start_ticks);
    record.process = Some(Process::new(pid, start_ticks, SystemTime::now()));
    record.cgroup = site.cgroup.as_ref().map(Home::from);
    record.level = site.placement.level;
    record.applied = site.placement.applied.clone().into_iter().collect();
    record.not_applied.clone_from(&site.placement.not_applied);
    record.past.runs = record.past.runs.saturating_add(1);
    record.asked = None;
}

/// Puts a started worker into the table, in the place of the one that waited for this start if there is one; tells of
/// it, and begins to watch it.
pub fn enter(
    inner: &Arc<Inner>,
    id: &WorkerId,
    launched: Launched,
    beginning: Beginning,
) -> (Arc<Member>, Receiver<Standing>) {
    let Launched { mut record, spawned, .. } = launched;
    let process = record.process.unwrap_or(Process::new(spawned.child.pid, 0, SystemTime::now()));
    let mut table = inner.table();
    let before = table.live.remove(id);
    let shown = table.launching.remove(id).and_then(|launching| launching.over());
    let shown = before.as_ref().map(|entry| entry.member.slot).or(shown);
    let slot = shown.unwrap_or_else(|| table.next_slot());
    let asked = before.as_ref().and_then(|entry| entry.asked.clone());
    let state = if asked.is_some() { proto::WorkerState::Stopping } else { proto::WorkerState::Running };
    let spec = inner.spec(&record, Some(process), proto::Origin::Started);
    let footing = Some(footing(process, record.cgroup.as_ref()));
    let member = Member { slot, id: id.clone(), spec, state, footing };
    record.asked.clone_from(&asked);
    let message = format!("{}: {}", beginning.words, record.command.join(" "));
    let mut entry = Entry {
        names: Names::recorded(&record.model_names, record.model_given),
        endpoint_given: record.endpoint.is_some(),
        record: Some(record),
        pidfd: Some(Arc::new(spawned.child.pidfd)),
        cgroup: spawned.site.cgroup,
        asked,
        probation: beginning.probation,
        ..Entry::new(member)
    };
    if let Some(before) = before {
        entry.standing = before.standing;
        entry.wake = before.wake;
    }
    let member = entry.member.clone();
    let standing = entry.standing.subscribe();
    table.starting.remove(id);
    // Before anybody who waits for this run looks at the table.
    entry.standing.send_modify(|standing| *standing = Standing { run: standing.run + 1, ..Standing::default() });
    inner.admit(&mut table, entry);
    drop(table);
    info!(worker = %id, pid = process.pid, "worker started");
    inner.journal.add(id, News { kind: beginning.kind, pid: process.pid, message, ..News::default() });
    inner.spawn(watch::watch(inner.clone(), id.clone(), slot));
    (member, standing)
}

/// A process and its cgroup as the roster tells of them.
pub fn footing(process: Process, home: Option<&Home>) -> Footing {
    Footing {
        pid: process.pid,
        start_ticks: process.start_ticks,
        cgroup: home.map(|home| home.path.clone()),
        cgroup_inode: home.map(|home| home.inode),
    }
}

impl Inner {
    /// Into the table and the roster.
    pub fn admit(&self, table: &mut super::Table, entry: Entry) {
        table.live.insert(entry.member.id.clone(), entry);
        self.publish(table);
    }

    /// Writes down a record that is just being made, for the table too; what was asked of its worker meanwhile stays.
    pub fn store(&self, id: &WorkerId, record: &Record) -> io::Result<()> {
        self.records.write_latest(|| {
            let mut record = record.clone();
            if let Some(entry) = self.table().live.get_mut(id) {
                if entry.asked.is_some() {
                    record.asked.clone_from(&entry.asked);
                }
                entry.record = Some(record.clone());
            }
            Some(record)
        })
    }

    /// What the world is told of a recorded worker; without a process, of one that waits for its next start.
    pub fn spec(&self, record: &Record, process: Option<Process>, origin: proto::Origin) -> proto::WorkerSpec {
        let next_start = record.past.next_start_unix_nanos.filter(|_| process.is_none());
        proto::WorkerSpec {
            hive: self.config.hive.to_string(),
            group: record.group.clone(),
            instance: record.instance.clone(),
            pid: process.and_then(|process| u32::try_from(process.pid).ok()).unwrap_or_default(),
            start_time: process.map(|process| common::timestamp(process.started())),
            origin: origin.into(),
            command: record.command.clone(),
            model: record.model_names.first().cloned(),
            model_names: record.model_names.clone(),
            endpoint: record.endpoint.clone().map(|(scheme, host, port)| proto::Endpoint { scheme, host, port }),
            gpu_uuids: record.gpus.clone(),
            labels: record.labels.clone().into_iter().collect(),
            limits: Some(record.limits.clone()),
            placement: Some(proto::Placement {
                level: record.level,
                cgroup: record.cgroup.as_ref().map(|home| home.path.display().to_string()).unwrap_or_default(),
                applied: record.applied.clone().into_iter().collect(),
                not_applied: record.not_applied.clone(),
            }),
            restart: record.restart,
            restarts: record.past.restarts,
            last_exit: record.past.last_exit.clone(),
            next_start: next_start.map(|nanos| common::timestamp(from_unix_nanos(nanos))),
            engine: said_engine(record.probe).into(),
            probe: record.probe,
            user: record.user.clone(),
            observed: String::new(),
            reservation: String::new(),
            template: String::new(),
        }
    }
}

/// The engine that a worker was said to be.
pub fn said_engine(probe: i32) -> proto::Engine {
    match proto::Probe::try_from(probe) {
        Ok(proto::Probe::LlamaCpp) => proto::Engine::LlamaCpp,
        Ok(proto::Probe::Vllm) => proto::Engine::Vllm,
        Ok(proto::Probe::Sglang) => proto::Engine::Sglang,
        Ok(proto::Probe::Tgi) => proto::Engine::Tgi,
        Ok(proto::Probe::Ollama) => proto::Engine::Ollama,
        Ok(proto::Probe::Unspecified | proto::Probe::Auto | proto::Probe::None) | Err(_) => proto::Engine::Unspecified,
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.display().to_string();
    move |source| StartError::Failed { step, path, source }
}

fn told(id: &WorkerId, error: SpawnError) -> StartError {
    match error {
        SpawnError::Populated(path) => StartError::Populated { id: id.clone(), path },
        SpawnError::Denied { path, source } => StartError::Denied { path, source },
        SpawnError::Failed { step, path, source } => StartError::Failed { step, path, source },
    }
}
