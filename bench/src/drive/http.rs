//! The document's way: a POST for each batch on a connection that is kept, and Server-Sent Events.

use super::{Counts, Pacing};
use crate::fleet::{Load, now_ns};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SENT: &[u8] = b"\"sent_ns\":";

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let bodies = [0, 1].map(|at| parts(&load, at));
    let mut stream = TcpStream::connect(&address).await.expect("connect");
    stream.set_nodelay(true).expect("no delay");
    let mut answer = vec![0; 1024];
    for at in (0..2).cycle() {
        pace.due().await;
        let (head, tail) = &bodies[at];
        let now = now_ns().to_string();
        let length = head.len() + now.len() + tail.len();
        let mut request = format!(
            "POST /v1/hive-heartbeat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{head}{now}"
        );
        request.push_str(tail);
        stream.write_all(request.as_bytes()).await.expect("send");
        let read = stream.read(&mut answer).await.expect("an answer");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..read]));
        counts.push();
    }
}

/// The body around its time.
fn parts(load: &Load, at: usize) -> (String, String) {
    let heartbeat = load.heartbeat(at);
    let text = serde_json::to_string(&heartbeat).expect("JSON");
    let (head, tail) = text.split_once(&heartbeat.sent_ns.to_string()).expect("its time");
    (head.to_owned(), tail.to_owned())
}

pub async fn watch(address: String, counts: Arc<Counts>, workers: u32, timed: bool) {
    let mut stream = TcpStream::connect(&address).await.expect("connect");
    stream.write_all(b"GET /v1/heartbeats/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("ask");
    let (mut buffer, mut before) = (vec![0; 64 << 10], 0u8);
    loop {
        let read = stream.read(&mut buffer).await.expect("events");
        if read == 0 {
            return;
        }
        let mut events = 0;
        for byte in &buffer[..read] {
            events += u64::from(*byte == b'\n' && before == b'\n');
            before = *byte;
        }
        counts.deliver(events * u64::from(workers), read);
        if timed && counts.times() {
            for at in buffer[..read].windows(SENT.len()).enumerate().filter(|(_, part)| *part == SENT).map(|(at, _)| at)
            {
                let digits = buffer[at + SENT.len()..read].iter().take_while(|byte| byte.is_ascii_digit());
                counts.time(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
            }
        }
    }
}
