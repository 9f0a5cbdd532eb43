//! Starts real queens, hives and workers for tests, each test with a slice, a state directory and ports of its own;
//! what a [`Scene`] started, ends when it drops.

pub mod await_event;
mod clients;
mod gpu;
pub mod histories;
mod process;
mod proxy;
mod scene;

pub use await_event::{eventually, within};
pub use clients::{Watcher, fleet, grants, scheduler};
pub use gpu::{FakeGpus, fake_nvml, steer_hang, steer_two_gpus, without_functions};
pub use process::{Output, Process, alive, start_ticks};
pub use proxy::{Mode, Proxy};
pub use scene::{Hive, Queen, Scene, rbee_binary};
