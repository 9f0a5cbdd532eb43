//! HPACK (RFC 7541): the fields of requests in, those of answers out. In, a peer may use all of it; out, nothing is
//! remembered, so that there is nothing to keep for ten thousand connections.

mod huffman;
mod read;
mod table;
mod write;

pub use read::Decoder;
pub use table::ENTRY;
pub use write::{RESET_TABLE, put, put_status};
