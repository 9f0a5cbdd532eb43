//! The first start of a worker: its name, its launch, and a first look whether it stays.

use super::entry::Standing;
use super::launch::{Beginning, Launched, enter, launch};
use super::launching::SHOWN_AFTER;
use super::request::Plan;
use super::{Inner, Life, wait};
use crate::roster::Member;
use crate::worker::journal::News;
use crate::worker::logs;
use crate::worker::mend::mend;
use crate::worker::record::Past;
use crate::worker::vram::NoRoom;
use common::{NameError, WorkerId};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tracing::warn;

/// A worker that ends within this time after exec, and is not started again by its policy, has not been started at all
/// as far as its caller is concerned.
const AT_ONCE: Duration = Duration::from_millis(100);
/// So much of the log of such a worker is told: lines, and bytes.
const LAST_LINES: usize = 20;
const LAST_BYTES: u64 = 4096;
/// More workers than this are refused.
const WORKERS_MAX: usize = 4096;
/// The group of a worker whose request names none.
const DEFAULT_GROUP: &str = "default";

/// A worker that runs.
#[derive(Debug, Clone)]
pub struct Started {
    /// It, as the roster has it.
    pub member: Arc<Member>,
    /// It ran already, started by the same command.
    pub taken_over: bool,
    /// Whether it is ready, when that was waited for.
    pub readiness: proto::Readiness,
}

/// Why a worker does not run. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Another field of the request.
    #[error("{field}: {message}")]
    Field {
        /// The field, as the request names it.
        field: &'static str,
        /// What is wrong, and what is accepted.
        message: String,
    },
    /// A worker of this name lives; it was not touched.
    #[error("{id} {}", pid.map_or("is being started, or waits for its next start".to_owned(), |pid| format!("is already running (pid {pid})")))]
    AlreadyExists {
        /// The name.
        id: WorkerId,
        /// Its first process, if it is past its start.
        pid: Option<i32>,
    },
    /// Processes that this hive did not start live in the cgroup of this name.
    #[error("{id} is taken: processes that this hive did not start live in {}", .path.display())]
    Populated {
        /// The name.
        id: WorkerId,
        /// The cgroup.
        path: PathBuf,
    },
    /// All limits were required, and this one cannot be applied.
    #[error("apply the required limits: {}: {source}", .path.display())]
    Denied {
        /// What could not be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It asked for GPU memory, and no GPU has that much.
    #[error("find room for it: {why}")]
    NoRoom {
        /// Each GPU's reason.
        why: NoRoom,
    },
    /// It is to run as somebody else, which only root may decide.
    #[error(
        "run as user {user}: only a hive of root can; start the hive as root (`systemctl start rbee-hive` does), or ask \
         for no user"
    )]
    Unprivileged {
        /// Whom.
        user: String,
    },
    /// A step failed.
    #[error("{step} {path}: {source}{}", mend(.source))]
    Failed {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// It began, and ended at once.
    #[error("{id} ended at once: {message}")]
    EndedAtOnce {
        /// The name.
        id: WorkerId,
        /// How it ended.
        cause: Box<proto::ExitCause>,
        /// The same as a sentence.
        message: String,
        /// The last lines of what it wrote.
        log: String,
    },
    /// It ended before it was ready, which its caller waited for.
    #[error("{id} ended before it was ready: {message}")]
    EndedUnready {
        /// The name.
        id: WorkerId,
        /// How it ended.
        message: String,
        /// The last lines of what it wrote.
        log: String,
    },
    /// The hive stops before the worker is ready; the worker goes on.
    #[error("{0} runs, but this hive is stopping before it is ready; the worker goes on and the next hive has it")]
    Unready(WorkerId),
    /// The hive has as many workers as it keeps.
    #[error("this hive keeps at most {WORKERS_MAX} workers")]
    TooMany,
    /// The hive is stopping.
    #[error("this hive is stopping and starts nothing any more")]
    Stopping,
}

impl Life {
    /// Starts a worker; answers when its program has been executed and has not ended at once.
    pub async fn start(&self, request: proto::StartWorkerRequest) -> Result<Started, StartError> {
        let inner = self.inner().clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        // A task of its own: a caller who goes away leaves no half-started worker.
        self.inner().spawn(async move {
            let _ = answer.send(begin(&inner, request).await);
        });
        answered.await.unwrap_or(Err(StartError::Stopping))
    }
}

async fn begin(inner: &Arc<Inner>, mut request: proto::StartWorkerRequest) -> Result<Started, StartError> {
    if inner.stopping.is_cancelled() {
        return Err(StartError::Stopping);
    }
    let plan = Plan::new(&request, &inner.config)?;
    let id = loop {
        match reserve(inner, &request, &plan)? {
            Reserved::New(id) => break id,
            Reserved::Leaving(mut standing) => drop(standing.wait_for(|standing| standing.gone).await),
            Reserved::Running(member) => {
                return Ok(Started { member, taken_over: true, readiness: proto::Readiness::Unspecified });
            }
        }
    };
    // As it is written down: what was left open is decided.
    id.group().clone_into(&mut request.group);
    id.instance().clone_into(&mut request.instance);
    let awaited = request.wait.then(|| wait::Awaited::new(&request, &plan));
    let launched = blocking(inner, &id, request, plan, Past::default()).await.inspect_err(|error| {
        if !matches!(error, StartError::Populated { .. })
            && let Err(error) = inner.records.remove(&id)
        {
            warn!(worker = %id, %error, "record of a failed start not removed");
        }
        inner.table().starting.remove(&id);
        inner.not_launched(&id);
        if !matches!(error, StartError::Populated { .. }) {
            tell_failure(inner, &id, error);
        }
    })?;
    let log_from = launched.log_from;
    let beginning =
        Beginning { kind: proto::LifeEventKind::Started, words: "started".to_owned(), probation: awaited.is_some() };
    let (member, mut standing) = enter(inner, &id, launched, beginning);
    let member = stays(inner, member, &mut standing, log_from).await?;
    let readiness = match awaited {
        Some(awaited) => wait::until_ready(inner, &member, &mut standing, awaited, log_from).await?,
        None => proto::Readiness::Unspecified,
    };
    let member = current(inner, &member);
    Ok(Started { member, taken_over: false, readiness })
}

/// Launches on a thread that may block. After an error the caller says when that is over, by [`Inner::not_launched`].
pub async fn blocking(
    inner: &Arc<Inner>,
    id: &WorkerId,
    request: proto::StartWorkerRequest,
    plan: Plan,
    past: Past,
) -> Result<Launched, StartError> {
    inner.set_launching(id);
    let (other, name, shown) = (inner.clone(), id.clone(), plan.shown.clone());
    let mut launching = tokio::task::spawn_blocking(move || launch(&other, &name, &request, &plan, past));
    let launched = match tokio::time::timeout(SHOWN_AFTER, &mut launching).await {
        Ok(launched) => launched,
        Err(_) => {
            inner.show_launching(id, shown);
            launching.await
        }
    };
    launched.unwrap_or_else(|error| {
        Err(StartError::Failed { step: "start", path: id.to_string(), source: io::Error::other(error) })
    })
}

/// Looks for a moment whether a run that has just begun goes on. One that its policy starts again does, in a way: the
/// member tells that it waits.
pub async fn stays(
    inner: &Inner,
    member: Arc<Member>,
    standing: &mut Receiver<Standing>,
    log_from: u64,
) -> Result<Arc<Member>, StartError> {
    let ended = standing.wait_for(|standing| standing.ended.is_some());
    let Ok(Ok(standing)) = tokio::time::timeout(AT_ONCE, ended).await.map(|ended| ended.map(|ended| ended.clone()))
    else {
        return Ok(member);
    };
    if !standing.gone {
        return Ok(current(inner, &member));
    }
    let cause = standing.ended.unwrap_or_default();
    Err(StartError::EndedAtOnce {
        message: super::leave::sentence(&cause),
        log: last_words(inner, &member.id, log_from),
        id: member.id.clone(),
        cause: Box::new(cause),
    })
}

/// The end of what a worker has written since its log was this long.
pub fn last_words(inner: &Inner, id: &WorkerId, log_from: u64) -> String {
    logs::tail_since(&logs::path(&inner.config.state_dir, id), log_from, LAST_LINES, LAST_BYTES)
}

/// A worker as it is told of by now, if it is still there.
pub fn current(inner: &Inner, member: &Arc<Member>) -> Arc<Member> {
    let mut table = inner.table();
    table.entry(&member.id, member.slot).map_or_else(|| member.clone(), |entry| entry.member.clone())
}

enum Reserved {
    New(WorkerId),
    Running(Arc<Member>),
    /// One of this name is gone already, and the disk is about to forget it.
    Leaving(Receiver<Standing>),
}

/// Takes the name, so that nobody else can; or finds the worker that is to be taken over.
fn reserve(inner: &Inner, request: &proto::StartWorkerRequest, plan: &Plan) -> Result<Reserved, StartError> {
    let group = if request.group.is_empty() { DEFAULT_GROUP } else { &request.group };
    let mut table = inner.table();
    let id =
        if request.instance.is_empty() { next_free(&table, group)? } else { WorkerId::new(group, &request.instance)? };
    if let Some(entry) = table.live.get(&id) {
        if entry.leaving {
            return Ok(Reserved::Leaving(entry.standing.subscribe()));
        }
        let digest = entry.record.as_ref().map(|record| &record.command_digest);
        let same = digest == Some(&plan.digest) && entry.asked.is_none();
        return if request.take_over && same {
            Ok(Reserved::Running(entry.member.clone()))
        } else {
            Err(StartError::AlreadyExists { id, pid: entry.member.pid() })
        };
    }
    if table.observed.knows(&id) {
        let pid = table.observed.pid(&id);
        return Err(StartError::AlreadyExists { id, pid });
    }
    if table.live.len() + table.starting.len() >= WORKERS_MAX {
        return Err(StartError::TooMany);
    }
    if !table.starting.insert(id.clone()) {
        return Err(StartError::AlreadyExists { id, pid: None });
    }
    Ok(Reserved::New(id))
}

/// The next free number of a group, from 1.
fn next_free(table: &super::Table, group: &str) -> Result<WorkerId, StartError> {
    let mut number = 1;
    loop {
        let id = WorkerId::new(group, &format!("{number}"))?;
        if !table.knows(&id) {
            return Ok(id);
        }
        number += 1;
    }
}

/// Tells that a start did not lead to a process.
pub fn tell_failure(inner: &Inner, id: &WorkerId, error: &StartError) {
    warn!(worker = %id, %error, "worker not started");
    inner.journal.add(
        id,
        News {
            kind: proto::LifeEventKind::StartFailed,
            pid: 0,
            message: format!("not started: {error}"),
            exit: Some(proto::ExitCause { reason: proto::ExitReason::StartFailure.into(), ..Default::default() }),
            ..News::default()
        },
    );
}
