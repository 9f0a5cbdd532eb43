//! What this hive has granted: its workers, and memory of its GPUs. It alone grants, on disk before it answers, so that no
//! two queens can have the same thing. Who may ask, and what the workers do, is decided elsewhere.

mod ask;
mod book;
mod disk;
mod gpu_locks;
mod grant;
mod keeper;
mod refusal;
mod review;
mod scene;
mod shown;
mod sync;
#[cfg(test)]
mod tests;

pub use ask::{Ask, Wish, reservation, ttl};
pub use book::{Ledger, Start, promises};
pub use gpu_locks::GpuLocks;
pub use grant::{Change, Grant, Thing, Use};
pub use keeper::{Clock, Granted, Keeper};
pub use refusal::Refusal;
pub use scene::{Now, Scene};
pub use shown::{Held, same_holds, shown};
