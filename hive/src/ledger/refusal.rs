//! Why something is not granted.

use super::ask::{HOLDS_MAX, WISHES_MAX};
use crate::worker::vram::NoRoom;
use std::io;
use std::path::PathBuf;

/// Why the ledger says no. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A field of the request.
    #[error("{field}: {message}")]
    Field {
        /// The field, as the request names it.
        field: &'static str,
        /// What is wrong, and what is accepted.
        message: String,
    },
    /// Too many wishes at once.
    #[error("wishes: {0} are more than the {WISHES_MAX} that one request may have")]
    TooManyWishes(usize),
    /// It has granted as much as it keeps.
    #[error("this hive keeps at most {HOLDS_MAX} holds, and has {0}; wait until some end, or release some")]
    TooManyHolds(usize),
    /// No GPU has that much.
    #[error("hold GPU memory: {0}")]
    NoRoom(NoRoom),
    /// There is no GPU of this UUID.
    #[error("no GPU {uuid:?} on this machine: {there}")]
    NoSuchGpu {
        /// What was asked for.
        uuid: String,
        /// What there is.
        there: String,
    },
    /// There is no such worker.
    #[error("no worker {0} runs here")]
    NoSuchWorker(String),
    /// It is there, and cannot be held now.
    #[error("worker {worker} cannot be held: it is {why}")]
    NotRunning {
        /// The worker.
        worker: String,
        /// "not ready", "stopping" …
        why: String,
    },
    /// Somebody else holds it.
    #[error("worker {worker} is held already, by reservation {reservation}{}", of(holder))]
    Held {
        /// The worker.
        worker: String,
        /// Whose it is.
        reservation: String,
        /// And who asked for that.
        holder: String,
    },
    /// The key was used before, for something else.
    #[error("key {0:?} was used for another wish: use a new key")]
    KeyTaken(String),
    /// The reservation has holds here already.
    #[error("reservation {0} has holds on this hive already, for another wish")]
    ReservationTaken(String),
    /// No grant of this reservation is there, or none that a worker can be started with.
    #[error("reservation {0} is not known on this hive, or has expired")]
    Unknown(String),
    /// It holds none of what a start needs.
    #[error("reservation {0} holds no GPU memory on this hive, so that nothing can be started with it")]
    NoMemory(String),
    /// It holds less than the worker is to have.
    #[error("reservation {reservation} holds {held} bytes of GPU memory here, and the worker asks for {asked}")]
    TooLittle {
        /// The reservation.
        reservation: String,
        /// What it holds.
        held: u64,
        /// What the worker asks for.
        asked: u64,
    },
    /// A worker was started with it already.
    #[error("reservation {reservation} is used already, by worker {by}")]
    Used {
        /// The reservation.
        reservation: String,
        /// The worker.
        by: String,
    },
    /// Something newer was granted.
    #[error("fencing token {token} is not one of reservation {reservation}, whose newest here is {newest}")]
    Fenced {
        /// What the caller came with.
        token: u64,
        /// For which reservation.
        reservation: String,
        /// What was granted for it last.
        newest: u64,
    },
    /// The hive is draining.
    #[error("this hive is draining and grants nothing")]
    Draining,
    /// The hive is stopping.
    #[error("this hive is stopping and grants nothing any more")]
    Stopping,
    /// It cannot be written down.
    #[error("write it down in {}, so nothing is granted", .path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is on disk cannot be read.
    #[error(
        "the ledger {} cannot be read, so no fencing token would be safe: stop the hive, move that file away, start it again",
        .0.display()
    )]
    Unreadable(PathBuf),
}

fn of(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(" of {holder}") }
}
