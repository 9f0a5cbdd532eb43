//! Starts that are under way: how they are given up, and how one that takes long is shown.

use super::stop::StopError;
use super::{Inner, Table, leave};
use crate::roster::{Member, Slot};
use crate::worker::journal::News;
use crate::worker::sys::Patience;
use common::WorkerId;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// A first start that takes longer is shown. Others are over before anybody could look.
pub const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// How long a start that was given up may take to be over; then its caller is told that it is not.
const OVER: Duration = Duration::from_secs(5);

/// One start that is under way.
#[derive(Debug)]
pub struct Launching {
    /// Ends it before its program is executed.
    pub give_up: CancellationToken,
    /// Tells that it is over, one way or the other.
    over: CancellationToken,
    /// A first start, as it is shown when it takes long.
    pub shown: Option<Arc<Member>>,
}

impl Launching {
    /// Tells that it is over. The slot that it was shown under.
    pub fn over(&self) -> Option<Slot> {
        self.over.cancel();
        self.shown.as_ref().map(|member| member.slot)
    }
}

impl Inner {
    /// Begins a start; one whose worker was asked to end since it was shown as starting is given up from the first.
    pub fn set_launching(&self, id: &WorkerId) {
        let give_up = self.stopping.child_token();
        let mut table = self.table();
        let asked = table.live.get(id).and_then(|entry| entry.asked.as_ref());
        if asked.is_some_and(|asked| !asked.again) {
            give_up.cancel();
        }
        let launching = Launching { give_up, over: CancellationToken::new(), shown: None };
        table.launching.insert(id.clone(), launching);
    }

    /// How long a start may take, and how it is given up.
    pub fn patience(&self, id: &WorkerId) -> Patience {
        let given_up = self.table().launching.get(id).map(|launching| launching.give_up.clone());
        Patience { given_up: given_up.unwrap_or_default(), ..Patience::default() }
    }

    /// Shows a first start that takes long.
    pub fn show_launching(&self, id: &WorkerId, command: Vec<String>) {
        let mut table = self.table();
        if table.live.contains_key(id) || !table.launching.contains_key(id) {
            return;
        }
        let slot = table.next_slot();
        let spec = proto::WorkerSpec {
            hive: self.config.hive.to_string(),
            group: id.group().to_owned(),
            instance: id.instance().to_owned(),
            origin: proto::Origin::Started.into(),
            command,
            ..Default::default()
        };
        let member = Member { slot, id: id.clone(), spec, state: proto::WorkerState::Starting, footing: None };
        if let Some(launching) = table.launching.get_mut(id) {
            launching.shown = Some(Arc::new(member));
        }
        self.publish(&table);
    }

    /// A start did not lead to a process. Called once its name is free again.
    pub fn not_launched(&self, id: &WorkerId) {
        let mut table = self.table();
        let shown = table.launching.remove(id).and_then(|launching| launching.over());
        if shown.is_some() {
            self.publish(&table);
        }
    }

    /// Gives a first start up, and waits until that is over. `None`: there is none, or it has just led to a worker.
    pub async fn give_up(&self, id: &WorkerId, by: &str) -> Result<Option<proto::ExitCause>, StopError> {
        let over = {
            let table = self.table();
            let first = table.launching.get(id).filter(|_| !table.live.contains_key(id));
            let Some(launching) = first else { return Ok(None) };
            launching.give_up.cancel();
            launching.over.clone()
        };
        info!(worker = %id, by, "start is given up");
        let message = format!("asked to stop by {by} before it began");
        self.journal.add(id, News { kind: proto::LifeEventKind::Stopping, message, ..News::default() });
        if tokio::time::timeout(OVER, over.cancelled()).await.is_err() {
            return Err(StopError::Starting(id.clone()));
        }
        let began = self.table().live.contains_key(id);
        Ok((!began).then(|| leave::stopped(by.to_owned())))
    }
}

/// Gives up the start, if one is under way, of a worker that waited for it.
pub fn give_up_again(table: &Table, id: &WorkerId) {
    if let Some(launching) = table.launching.get(id) {
        launching.give_up.cancel();
    }
}
