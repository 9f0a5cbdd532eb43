//! The peers as processes: each prints where it listens, and serves until it is killed.

pub mod bare;
mod json;
mod ours;
mod plain;

use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpSocket};

/// Messages that a broadcast channel keeps for its slowest reader.
const KEPT: usize = 1_024;

/// Serves as the peer of this name.
pub async fn run(name: &str) {
    match name {
        "sse-each" => json::serve(json::Encoding::Each).await,
        "sse-once" => json::serve(json::Encoding::Once).await,
        "plain" => plain::serve().await,
        "ours" => ours::serve().await,
        "bare" => bare::serve(),
        other => panic!("no peer is called {other:?}"),
    }
}

/// A thousand hives that dial at once find a place, as at the queen's port.
const BACKLOG: u32 = 65_535;

async fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
    let listener = socket.listen(BACKLOG).expect("a listener");
    println!("{}", listener.local_addr().expect("its address"));
    listener
}
