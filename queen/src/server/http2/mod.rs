//! HTTP/2 for the port (RFC 9113). Ten thousand connections that each say a little every second, and watchers that are told
//! what others are told, are what a queen is for; a library for every use has two tasks, several locks, a buffer each way and
//! their memory for each of them. Here many connections and the calls on them are one task that keeps nothing it does not need,
//! and whatever a peer does costs little. What is above it is tonic's and axum's as ever.
//!
//! A connection ([`Connection`]) reads frames (`intake`), has the calls that were woken go on (`stream`, `call`), tells what
//! was read, and writes what has gathered (`outbox`), all in one turn, which it is given in a lane ([`Lanes`]).

mod buffers;
mod call;
mod calm;
mod connection;
mod cut;
mod frame;
mod heart;
mod hpack;
mod intake;
mod lane;
mod lanes;
mod line;
mod outbox;
mod request;
mod seats;
mod stream;
#[cfg(test)]
mod tests;
mod unread;

pub use buffers::Buffers;
pub use connection::{Connection, Gone, Shared};
pub use cut::Cut;
pub use lane::Bells;
#[cfg(test)]
pub use lane::{Carried, Turn};
pub use lanes::Lanes;
pub use line::Ended;
pub use unread::Patient;

/// What a sender may send ahead on one stream, in bytes: little, so that a stalled queen replays no minutes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
