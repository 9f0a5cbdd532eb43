//! The agent. `worker/` keeps workers alive, `sample/` measures them, `rpc/` talks; they share only the words in
//! `roster` and `round`, and [`run`] joins them.

mod config;
pub mod roster;
pub mod round;
pub mod rpc;
pub mod sample;
pub mod worker;

pub use config::Config;
