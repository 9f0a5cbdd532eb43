//! What becomes of the grants that a hive finds when it begins.

use super::book::Ledger;
use super::grant::{Change, Grant, Use};
use tracing::warn;

impl Ledger {
    /// Looks at every grant of an earlier hive. `lives` tells whether a worker is here that was started with a
    /// reservation, `owned` whether this hive may grant a GPU, else who does.
    pub fn review(&self, lives: &dyn Fn(&str, &str) -> bool, owned: &dyn Fn(&str) -> Result<(), String>) -> Change {
        let mut change = Change::default();
        for grant in self.grants() {
            // Asked for each, so that the lock of every GPU with a grant is taken again.
            let owned = grant.vram().map_or(Ok(()), |(gpu, _)| owned(gpu));
            let reservation = &grant.reservation;
            let Some(used) = &grant.used else {
                if let Err(error) = owned {
                    warn!(reservation, error, "a hold is over: this hive may not grant its GPU any more");
                    change.ended.push(grant.token);
                    change.aborted.extend(grant.aborts().then(|| grant.reservation.clone()));
                }
                continue;
            };
            match (lives(&used.by, reservation), used.started) {
                (true, true) => {}
                (true, false) => {
                    let used = Some(Use { started: true, ..used.clone() });
                    change.set.push(Grant { used, ..grant.clone() });
                }
                // Nobody was told of its start: it is its holder's again.
                (false, false) => change.set.push(Grant { used: None, ..grant.clone() }),
                (false, true) => change.ended.push(grant.token),
            }
        }
        change
    }
}
