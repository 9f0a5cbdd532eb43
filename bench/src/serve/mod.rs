//! The peers as processes: each prints where it listens, and serves until it is killed.

pub mod bare;
mod json;
mod ours;
mod plain;

use tokio::net::TcpListener;

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

async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    listener
}
