//! The bytes that a watcher of ours is told, through nats-server: one subject, every watcher subscribed.

use super::{Counts, Pacing};
use crate::fleet::{Load, now_ns};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const HELLO: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false}\r\n";

async fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).expect("no delay");
    stream.write_all(HELLO).await.expect("say hello");
    stream
}

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let payload = load.update();
    let (mut reader, mut writer) = connect(&address).await.into_split();
    let head = format!("PUB t {}\r\n", payload.len() + 8);
    let answering = tokio::spawn(async move {
        // PINGs would have to be answered after minutes only; what is said is read so that nothing blocks.
        let mut heard = vec![0; 4096];
        while reader.read(&mut heard).await.is_ok_and(|read| read > 0) {}
    });
    while !answering.is_finished() {
        pace.due().await;
        let mut message = head.clone().into_bytes();
        message.extend_from_slice(&now_ns().to_le_bytes());
        message.extend_from_slice(&payload);
        message.extend_from_slice(b"\r\n");
        if writer.write_all(&message).await.is_err() {
            return;
        }
        counts.push();
    }
}

pub async fn watch(address: String, counts: Arc<Counts>, workers: u32) {
    let mut stream = BufReader::with_capacity(64 << 10, connect(&address).await);
    stream.write_all(b"SUB t 1\r\n").await.expect("subscribe");
    let (mut line, mut message) = (String::new(), Vec::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await.is_ok_and(|read| read == 0) {
            return;
        }
        let Some(rest) = line.strip_prefix("MSG ") else { continue };
        let length: usize = rest.trim().rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a length");
        message.resize(length + 2, 0);
        stream.read_exact(&mut message).await.expect("a message");
        counts.deliver(u64::from(workers), length);
        if counts.times() {
            counts.time(u64::from_le_bytes(message[..8].try_into().expect("eight bytes")));
        }
    }
}
