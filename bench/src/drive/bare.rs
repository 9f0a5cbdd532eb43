//! The bytes that a watcher of ours is told, through a program that only writes them on.

use super::{Counts, Pacing};
use crate::fleet::{Load, now_ns};
use crate::serve::bare::WATCHER;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What a message begins with: when it was sent.
const SENT_NS: usize = 8;

async fn connect(address: &str, first: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).expect("no delay");
    stream.write_all(&[first]).await.expect("say who it is");
    stream
}

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let payload = load.update();
    let length = (SENT_NS + payload.len()) as u32;
    let mut stream = connect(&address, b'H').await;
    loop {
        pace.due().await;
        let message = [&length.to_le_bytes()[..], &now_ns().to_le_bytes(), &payload].concat();
        if stream.write_all(&message).await.is_err() {
            return;
        }
        counts.push();
    }
}

pub async fn watch(address: String, counts: Arc<Counts>, workers: u32) {
    let mut stream = BufReader::with_capacity(64 << 10, connect(&address, WATCHER).await);
    let mut message = Vec::new();
    while let Ok(length) = stream.read_u32_le().await {
        message.resize(length as usize, 0);
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        counts.deliver(u64::from(workers), message.len());
        if let Some(sent) = message.first_chunk::<SENT_NS>().filter(|_| counts.times()) {
            counts.time(u64::from_le_bytes(*sent));
        }
    }
}
