//! What hive and queen must agree on beyond the wire: names, columns, times on the wire, free GPU memory,
//! back-off, stopping, logging.

mod backoff;
pub mod columns;
pub mod fields;
pub mod gpus;
pub mod link;
mod name;
pub mod secret;
pub mod stop;
mod time;
pub mod tls;
pub mod token;
pub mod told;
pub mod trace;
pub mod tunnel;
pub mod vram;
pub mod wire;

pub use backoff::Backoff;
pub use name::{HiveId, NameError, WorkerId, fit_name};
pub use time::{duration, from_duration, from_timestamp, timestamp};
