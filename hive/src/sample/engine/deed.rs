//! Whether a worker's given port is its own, looked at now and then beside the questions. A look that the kernel holds up
//! holds up nobody: until it is done, what was known before counts.

use crate::sample::sockets::owner::{Claim, Owner};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A round waits for a look no longer than this.
const LOOK_WITHIN: Duration = Duration::from_millis(300);
/// When a port that is the worker's own is looked at again…
const OWN_AGAIN: Duration = Duration::from_secs(30);
/// …one of which it is not known…
const UNKNOWN_AGAIN: Duration = Duration::from_secs(10);
/// …and one that somebody else has.
const TAKEN_AGAIN: Duration = Duration::from_secs(2);

/// The claim of one worker, and how it stands.
#[derive(Debug)]
pub struct Deed {
    claim: Claim,
    owner: Owner,
    due: Instant,
    looking: Option<JoinHandle<Owner>>,
}

impl Deed {
    /// A claim that nobody has looked at.
    pub fn new(claim: Claim) -> Self {
        Self { claim, owner: Owner::Unknown, due: Instant::now(), looking: None }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.claim.port
    }

    /// Whether a look is due.
    pub fn is_due(&self) -> bool {
        self.looking.is_some() || Instant::now() >= self.due
    }

    /// The process that has the port and cannot be part of the worker, as far as that is known.
    pub fn taken_by(&self) -> Option<i32> {
        if let Owner::Taken(pid) = self.owner { Some(pid) } else { None }
    }

    /// Looks. Dropped half-way, the look goes on, and the next call waits for it.
    pub async fn look(&mut self) {
        let claim = &self.claim;
        let looking = self.looking.get_or_insert_with(|| {
            let claim = claim.clone();
            tokio::task::spawn_blocking(move || claim.owner())
        });
        let Ok(seen) = timeout(LOOK_WITHIN, looking).await else { return };
        self.looking = None;
        // A look that panicked has seen nothing.
        self.owner = seen.unwrap_or(Owner::Unknown);
        self.due = Instant::now()
            + match self.owner {
                Owner::Own => OWN_AGAIN,
                Owner::Unknown => UNKNOWN_AGAIN,
                Owner::Taken(_) => TAKEN_AGAIN,
            };
    }
}
