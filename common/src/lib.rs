//! What hive and queen must agree on beyond the wire: names, columns, times on the wire, back-off, stopping, logging,
//! TLS and tokens.

mod backoff;
pub mod columns;
pub mod gpus;
pub mod link;
mod name;
pub mod secret;
pub mod stop;
mod time;
pub mod tls;
pub mod token;
pub mod trace;

pub use backoff::Backoff;
pub use name::{HiveId, NameError, WorkerId, fit_name};
pub use time::{duration, from_duration, from_timestamp, timestamp};
