//! Which workers and GPUs fit, and why the others do not: one file a question. Pure queries over the fleet; nothing is
//! held or promised. The index names candidates; each is then judged under its hive's lock by the same objections that
//! are told when somebody asks why.

mod capacity;
mod explain;
mod idle;
mod judge;
mod model;
mod objection;
mod order;
mod room;
mod workers;

pub use capacity::{CapacityQuery, GpuCursor, GpuPage, find_capacity};
pub use explain::{ExplainedPage, Question, VerdictCursor, explain};
pub use model::{ModelRule, rows_with_model};
pub use order::Cursor;
pub use workers::{Page, find};

use proto::{Filter, FindOrder};
use std::time::Duration;

/// What is wanted of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Its activity is IDLE. Unknown is never idle.
    Idle,
    /// A measured GPU use of exactly 0, whatever else is known.
    UnusedGpu,
    /// Its model goes by this name.
    Model {
        /// The name, or a pattern.
        name: String,
        /// How to compare.
        rule: ModelRule,
        /// Only idle ones.
        idle: bool,
    },
    /// Room on one GPU that it uses, or on any of its hive if it uses none.
    Capacity {
        /// How much, in bytes.
        required: u64,
        /// How much must stay free beside it, in bytes.
        headroom: u64,
        /// Only idle ones.
        idle: bool,
    },
}

/// A whole question about workers.
#[derive(Debug, Clone)]
pub struct Query {
    /// Which workers are looked at.
    pub filter: Filter,
    /// Workers whose last good sample is older are left out.
    pub max_age: Duration,
    /// Whether workers in doubt (STALE) may be answered because the caller asked for older samples.
    pub stale_too: bool,
    /// Whether workers that a reservation holds may be answered.
    pub held_too: bool,
    /// Only workers idle for at least this long.
    pub min_idle: Option<Duration>,
    /// 0: all.
    pub limit: usize,
    /// In which order.
    pub order: FindOrder,
    /// At most so many in this answer; 0: all.
    pub page_size: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// What is wanted.
    pub want: Want,
}

/// A page ends early at about this size, in bytes: clients refuse messages above 4 MiB unless told otherwise.
const PAGE_BYTES: usize = 3 * 1024 * 1024;

#[cfg(test)]
pub(crate) mod tests;
