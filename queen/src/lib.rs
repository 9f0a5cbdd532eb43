//! The control plane: `fleet/` knows, `placement` chooses, `rpc/` answers, `server` listens. [`Queen`] runs it all.

mod bound;
mod config;
mod digest;
pub mod fleet;
mod guard;
#[cfg(test)]
#[path = "../../tests/harness/histories/mod.rs"]
mod histories;
mod metrics;
mod page;
pub mod placement;
mod queen;
pub mod reserve;
mod rpc;
mod server;
mod services;
mod tunnel;

pub use bound::Bound;
pub use config::Config;
pub use queen::{BindError, Queen, ServeError};
pub use server::http2;
