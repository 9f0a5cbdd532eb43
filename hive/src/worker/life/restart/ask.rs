//! Starting a worker again because somebody asks for it.

use crate::roster::{Member, Slot};
use crate::worker::life::entry::Standing;
use crate::worker::life::start::{StartError, current, stays};
use crate::worker::life::stop::{self, StopError};
use crate::worker::life::{Inner, Life};
use crate::worker::logs;
use crate::worker::record::Asked;
use common::WorkerId;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

/// Why a worker was not started again.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// Nothing of this name runs or waits.
    #[error("no worker {0} runs here")]
    Unknown(WorkerId),
    /// It is not known what it was started with.
    #[error("{id} cannot be started again: {why}")]
    NotOurs {
        /// The worker.
        id: WorkerId,
        /// Why that is so.
        why: String,
    },
    /// Its end was asked for.
    #[error("{0} is being stopped")]
    BeingStopped(WorkerId),
    /// It did not end.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// It ended, and did not start again.
    #[error("{id} was stopped and not started again: {error}")]
    Start {
        /// The worker.
        id: WorkerId,
        /// Why not.
        error: Arc<StartError>,
    },
}

/// Where a restart that was asked for begins.
struct Ask {
    slot: Slot,
    run: u32,
    standing: Receiver<Standing>,
    /// It has a process, which must end first.
    lives: bool,
}

impl Life {
    /// Stops a worker and starts it again with what it was started with; its name, its slot and its log stay.
    /// Answers like a start.
    pub async fn restart(&self, id: &WorkerId, grace: Duration, by: &str) -> Result<Arc<Member>, RestartError> {
        let (inner, name, by) = (self.inner().clone(), id.clone(), by.to_owned());
        let (answer, answered) = tokio::sync::oneshot::channel();
        // A task of its own: a caller who goes away does not leave a worker half-restarted.
        self.inner().spawn(async move {
            let stopping = inner.stopping.clone();
            let result = tokio::select! {
                () = stopping.cancelled() => Err(StopError::Stopping(name).into()),
                result = restart(&inner, &name, grace, &by) => result,
            };
            let _ = answer.send(result);
        });
        answered.await.unwrap_or_else(|_| Err(StopError::Stopping(id.clone()).into()))
    }
}

async fn restart(inner: &Arc<Inner>, id: &WorkerId, grace: Duration, by: &str) -> Result<Arc<Member>, RestartError> {
    known(inner, id).await?;
    let log_from = logs::end(&logs::path(&inner.config.state_dir, id));
    let asked = Asked { by: stop::named(by), grace_millis: stop::millis(grace), again: true };
    let Ask { slot, run, mut standing, lives } = ask(inner, id, &asked)?;
    if lives {
        stop::end_marked(inner, id, grace).await?;
    }
    let news = standing.wait_for(|now| now.run != run || now.failure.is_some() || now.gone).await;
    let now = news.map(|now| now.clone()).unwrap_or_default();
    if let Some(error) = now.failure {
        return Err(RestartError::Start { id: id.clone(), error });
    }
    let member = {
        let mut table = inner.table();
        table.entry(id, slot).map(|entry| entry.member.clone())
    };
    // Gone without a failure: somebody stopped it in between.
    let member = member.ok_or_else(|| RestartError::BeingStopped(id.clone()))?;
    let member = stays(inner, member, &mut standing, log_from)
        .await
        .map_err(|error| RestartError::Start { id: id.clone(), error: Arc::new(error) })?;
    Ok(current(inner, &member))
}

/// Refuses, before anything is touched, what cannot be started again.
async fn known(inner: &Arc<Inner>, id: &WorkerId) -> Result<(), RestartError> {
    let not_ours = |why: &str| RestartError::NotOurs { id: id.clone(), why: why.to_owned() };
    {
        let table = inner.table();
        if table.observed.knows(id) {
            return Err(not_ours("it is observed; start it again where it was started"));
        }
        let entry = table.live.get(id).ok_or_else(|| RestartError::Unknown(id.clone()))?;
        if entry.record.is_none() {
            return Err(not_ours("it was found in the slice, and what it was started with is not known"));
        }
    }
    match super::request(inner, id).await {
        Ok(_) => Ok(()),
        Err(StartError::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(not_ours("it was started by an earlier version, which did not write down with what"))
        }
        Err(error) => Err(not_ours(&error.to_string())),
    }
}

/// Writes down that this worker is to end and to start again; wakes one that waits.
fn ask(inner: &Arc<Inner>, id: &WorkerId, asked: &Asked) -> Result<Ask, RestartError> {
    let mut table = inner.table();
    let entry = table.live.get_mut(id).filter(|entry| !entry.leaving);
    let entry = entry.ok_or_else(|| RestartError::Unknown(id.clone()))?;
    if entry.asked.as_ref().is_some_and(|before| !before.again) {
        return Err(RestartError::BeingStopped(id.clone()));
    }
    entry.standing.send_modify(|standing| standing.failure = None);
    let standing = entry.standing.subscribe();
    let run = standing.borrow().run;
    let lives = entry.member.footing.is_some();
    let slot = entry.member.slot;
    if entry.waits() {
        entry.asked = Some(asked.clone());
        entry.wake.notify_one();
    }
    drop(table);
    if lives {
        stop::mark(inner, id, asked);
    }
    Ok(Ask { slot, run, standing, lives })
}
