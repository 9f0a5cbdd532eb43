//! What hive and queen must agree on beyond the wire: names, columns, times on the wire, back-off, stopping, logging.

mod backoff;
pub mod columns;
pub mod gpus;
mod name;
pub mod stop;
mod time;
pub mod trace;
pub mod wire;

pub use backoff::Backoff;
pub use name::{HiveId, NameError, WorkerId, fit_name};
pub use time::{duration, from_duration, from_timestamp, timestamp};
