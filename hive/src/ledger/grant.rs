//! What is in the ledger: grants, and changes to them. As they are on disk.

use common::WorkerId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its fencing token, which is its name here too.
    pub token: u64,
    /// Of which reservation.
    pub reservation: String,
    /// Tells the grants of one reservation apart: 0, 1, 2 …
    pub part: u32,
    /// What.
    pub thing: Thing,
    /// When it ends unless a worker uses it: nanoseconds since the machine was started.
    pub until: u64,
    /// The same on the wall clock, in nanoseconds since 1970; only shown.
    pub until_unix: u64,
    /// Who asked for it.
    pub holder: String,
    /// The key that it was asked for with; empty without one.
    pub key: String,
    /// Digest of what was asked for.
    pub wish: u64,
    /// How many grants its reservation was to have, on all hives together; 0 when nobody said.
    #[serde(default)]
    pub size: u32,
    /// Whoever asked has not been answered by their queen yet.
    pub tentative: bool,
    /// The worker that was started with it.
    pub used: Option<Use>,
}

/// What can be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Thing {
    /// A worker, by group/instance.
    Worker(String),
    /// Memory of a GPU.
    Vram {
        /// Its UUID.
        gpu: String,
        /// How much.
        bytes: u64,
    },
    /// Nothing but that its key is in use.
    Key,
}

/// That a worker uses a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Which, by group/instance.
    pub by: String,
    /// Whoever started it was told so: from then on the grant ends with it. Before, a start that fails gives it back.
    pub started: bool,
}

/// One change of the ledger: in whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// New grants, and known ones as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Grant>,
    /// Tokens of those that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<u64>,
    /// Reservations that end here before they were confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aborted: Vec<String>,
}

impl Grant {
    /// Whether others of its reservation may be confirmed elsewhere when this one ends now: then nobody was answered it,
    /// and they are to end too.
    pub fn aborts(&self) -> bool {
        self.tentative && self.size > 1
    }

    /// Whether its time is over. What a worker uses has none.
    pub fn is_over(&self, now: Duration) -> bool {
        self.used.is_none() && u128::from(self.until) <= now.as_nanos()
    }

    /// Whether this worker is held, or uses it.
    pub fn concerns(&self, worker: &WorkerId) -> bool {
        self.is_used_by(worker) || matches!(&self.thing, Thing::Worker(held) if *held == worker.to_string())
    }

    /// Whether this worker was started with it.
    pub fn is_used_by(&self, worker: &WorkerId) -> bool {
        self.used.as_ref().is_some_and(|used| used.by == worker.to_string())
    }

    /// The GPU and how many bytes of it, when that is what was granted.
    pub fn vram(&self) -> Option<(&str, u64)> {
        match &self.thing {
            Thing::Vram { gpu, bytes } => Some((gpu, *bytes)),
            Thing::Worker(_) | Thing::Key => None,
        }
    }
}

impl Change {
    /// Makes one of two that follow each other.
    pub fn add(&mut self, next: Self) {
        self.set.retain(|grant| next.set.iter().all(|other| other.token != grant.token));
        self.set.extend(next.set);
        self.ended.extend(next.ended);
        self.aborted.extend(next.aborted);
        // No token is used again: what has ended stays so.
        self.set.retain(|grant| !self.ended.contains(&grant.token));
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.ended.is_empty() && self.aborted.is_empty()
    }
}
