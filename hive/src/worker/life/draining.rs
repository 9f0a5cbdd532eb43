//! Draining: no further starts until it is over. What runs goes on, and is started again as its policy says.

use super::Life;
use crate::worker::journal::News;
use std::io;
use tokio::sync::watch;
use tracing::info;

impl Life {
    /// Whether this hive takes no further starts and grants.
    pub fn draining(&self) -> bool {
        self.inner().drain.is_on()
    }

    /// The same, now and later.
    pub fn draining_changes(&self) -> watch::Receiver<bool> {
        self.inner().drain.subscribe()
    }

    /// Takes no further starts, or takes them again. No start that was not admitted before begins after this returns.
    /// Whether that changed anything.
    ///
    /// # Errors
    /// When it cannot be written down; then nothing changed.
    pub async fn set_draining(&self, on: bool, by: String) -> io::Result<bool> {
        let inner = self.inner().clone();
        let setting = tokio::task::spawn_blocking(move || {
            let (kind, words) = match on {
                true => (proto::LifeEventKind::Draining, "takes no further starts and grants"),
                false => (proto::LifeEventKind::Undrained, "takes starts and grants again"),
            };
            inner.drain.set(on, &by, || {
                // Starts look at it under this lock.
                drop(inner.table());
                info!(by, draining = on, "draining turned");
                let message = if by.is_empty() { words.to_owned() } else { format!("{words}: {by} asked for it") };
                inner.journal.add_machine(News { kind, message, ..News::default() });
            })
        });
        setting.await.map_err(io::Error::other)?
    }
}
