//! A connection of HTTP/2 whose peer says anything, in pieces of any size. It goes on or ends; what it says itself is frames.

use axum::Router;
use axum::routing::{get, post};
use queen::http2::{Connection, Lanes, Shared};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

/// The head of a frame, and the longest payload, in bytes.
const HEAD: usize = 9;
const LARGEST: usize = 16 * 1024;
/// What SETTINGS, PING, WINDOW_UPDATE, RST_STREAM and DATA are called; the others of a server are HEADERS, GOAWAY and
/// CONTINUATION.
const KINDS: [u8; 8] = [0, 1, 3, 4, 6, 7, 8, 9];

/// The first byte says in how large pieces the others come.
pub fn connection(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (peer, ours) = tokio::io::duplex(1 << 20);
        let shared = Shared::new(4_096, 3, 1 << 20);
        let router = Router::new()
            .route("/", get(|| async { vec![7; 100_000] }).post(|body: axum::body::Bytes| async move { body }))
            .route("/echo", post(|request: axum::extract::Request| async { request.into_body() }));
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let lanes = Lanes::new(Instant::now());
        // How it ends is its own affair.
        lanes.carry(|bells| Connection::new(ours, router, from, Arc::new(shared), bells), |_ended| {});
        talk(peer, bytes, 1 + usize::from(*piece)).await;
        lanes.leave();
        lanes.empty().await;
    });
}

async fn talk(mut peer: DuplexStream, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        // Who was sent away is not heard any more.
        if peer.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (mut reader, mut writer) = tokio::io::split(peer);
    let _sent_away = writer.shutdown().await;
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).await.expect("a pipe in memory");
    frames(&heard);
}

/// Everything that was said, to the last byte.
fn frames(mut heard: &[u8]) {
    while let Some((head, rest)) = heard.split_first_chunk::<HEAD>() {
        let [a, b, c, kind, ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        assert!(length <= LARGEST && KINDS.contains(&kind), "{head:?}");
        heard = rest.get(length..).expect("whole frames");
    }
    assert!(heard.is_empty());
}
