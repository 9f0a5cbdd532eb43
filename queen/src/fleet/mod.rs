//! What the queen knows: frames come in, age, and go; queries and the feed look at it. Pure: `now` is passed, nothing
//! waits. One hive's state is changed under its own lock; inside it a lock of the feed or of the index may be taken, never the
//! reverse.

mod age;
mod apply;
mod batch;
#[cfg(test)]
mod clocks;
mod expire;
pub mod feed;
mod filter;
mod frame;
mod holds;
#[cfg(test)]
mod hostile;
pub mod index;
mod known;
mod mask;
mod measured;
pub(crate) mod object;
pub mod room;
mod row;
#[cfg(test)]
pub(crate) mod sample;
mod session;
mod slots;
mod spec;
mod tally;
#[cfg(test)]
mod tests;
mod view;
mod visits;

pub use age::{LOOK, Limits};
pub use apply::Outcome;
pub use expire::{Expired, Kept};
pub use filter::matches;
pub use holds::is_reservation_id;
pub use mask::{Mask, MaskError};
pub use measured::{Copied, Measured};
pub use session::{Opened, hive_of};
pub use spec::Spec;
pub use tally::{Met, Tally};
pub use view::{Census, Moment, Seen, SeenHive};

use crate::Config;
use age::{Freeze, Pardon};
use apply::Scratch;
use common::HiveId;
use dashmap::DashMap;
use feed::Feed;
use index::Index;
use known::KnownHive;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

/// Why something that a hive said is not accepted. Nothing of it has been kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such session: it was never opened here, or its hive was removed.
    #[error("this session is not known here: register again")]
    Unknown,
    /// A newer session of the same hive took over.
    #[error("superseded: a newer session of this hive took over")]
    Superseded,
    /// The stream and the queen no longer speak of the same state.
    #[error("resync: {0}; register again and send a snapshot")]
    Resync(String),
    /// A field that cannot be accepted.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong, and what would be accepted.
        reason: String,
    },
    /// It is no frame at all.
    #[error("the frame cannot be read: {0}")]
    Unreadable(#[from] prost::DecodeError),
    /// A bound of this queen.
    #[error("{0}")]
    TooMuch(String),
    /// The name is in use by another live hive.
    #[error(
        "hive {id} is alive from boot {boot:?}, slice {slice:?}; boot {other_boot:?}, slice {other_slice:?} needs another name"
    )]
    Alive {
        /// The name.
        id: HiveId,
        /// Boot id of the hive that has it.
        boot: String,
        /// Slice of the hive that has it.
        slice: String,
        /// Boot id of the hive that asked.
        other_boot: String,
        /// Slice of the hive that asked.
        other_slice: String,
    },
}

impl Refusal {
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }
}

/// What a fleet accepts.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    limits: Limits,
    max_frame_bytes: usize,
    max_workers: usize,
    max_hives: usize,
}

/// All hives and their workers.
#[derive(Debug)]
pub struct Fleet {
    hives: DashMap<HiveId, KnownHive>,
    feed: Feed,
    index: Index,
    bounds: Bounds,
    epochs: AtomicU64,
    started: Instant,
    pardon: RwLock<Pardon>,
    freeze: Mutex<Freeze>,
    refused: tally::Refused,
    spare: Mutex<Vec<Scratch>>,
}

impl Fleet {
    /// An empty fleet of a queen that started now; `instance` names this run of it.
    pub fn new(config: &Config, instance: String, started: Instant) -> Self {
        let limits = Limits { stale: config.stale, lost: config.lost, remove: config.remove };
        let bounds = Bounds {
            limits,
            max_frame_bytes: config.max_frame_bytes,
            max_workers: config.max_workers as usize,
            max_hives: config.max_hives,
        };
        Self {
            hives: DashMap::new(),
            index: Index::new(started),
            feed: Feed::new(instance, config.max_watch_classes),
            bounds,
            epochs: AtomicU64::new(0),
            started,
            pardon: RwLock::default(),
            freeze: Mutex::default(),
            refused: tally::Refused::default(),
            spare: Mutex::default(),
        }
    }

    /// The index that watchers read.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The index that questions begin with.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// When this queen started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How many hives are known.
    pub fn known(&self) -> usize {
        self.hives.len()
    }

    fn pardon(&self, now: Instant) -> Pardon {
        self.pardon.read().unwrap_or_else(PoisonError::into_inner).at(now)
    }
}
