//! What a well-behaved peer may do.

use super::super::frame::{Head, LARGEST, flag, kind};
use super::peer::{Heard, LARGE, PATIENCE, Peer, block};
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, Instant, timeout};

#[tokio::test]
async fn calls_on_one_connection_are_answered_side_by_side() {
    let mut peer = Peer::new().await;
    peer.ask(1, "GET", "/never", true).await;
    peer.ask(3, "POST", "/echo", false).await;
    assert_eq!(peer.status(3).await, "200");
    for piece in [&b"one"[..], b"two"] {
        peer.say(kind::DATA, 0, 3, piece).await;
        assert_eq!(peer.hear_of(3).await.payload, piece);
    }
    peer.is_well(5).await;
    peer.say(kind::DATA, flag::END_STREAM, 3, b"").await;
    assert_eq!(peer.body(3).await, b"");
    drop(peer.io);
    let ended = timeout(PATIENCE, peer.ended).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err(), "the peer left, and 1 calls with it");
}

#[tokio::test]
async fn a_peer_without_calls_leaves_in_order() {
    let mut peer = Peer::new().await;
    peer.is_well(1).await;
    drop(peer.io);
    assert_eq!(timeout(PATIENCE, peer.ended).await.unwrap().unwrap(), Ok(()));
}

#[tokio::test]
async fn what_was_asked_by_a_peer_that_has_left_since_is_not_begun() {
    let mut peer = Peer::new().await;
    // Both before the queen looks.
    peer.ask(1, "GET", "/fields", true).await;
    drop(peer.io);
    let ended = timeout(PATIENCE, peer.ended).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err(), "the peer left, and 1 calls with it");
}

#[tokio::test]
async fn what_a_call_that_has_begun_was_sent_last_reaches_it_although_its_peer_has_left() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/counted", false).await;
    peer.is_well(3).await;
    peer.say(kind::DATA, flag::END_STREAM, 1, b"farewell").await;
    drop(peer.io);
    assert_eq!(timeout(PATIENCE, peer.ended).await.unwrap().unwrap(), Ok(()), "no call was cut");
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_more_than_is_read_in_a_turn_is_heard_at_once_too() {
    const UNKNOWN: u8 = 0x42;
    let mut peer = Peer::new().await;
    let began = Instant::now();
    // All of it before the queen looks; nobody wakes her again.
    for _ in 0..40 {
        peer.say(UNKNOWN, 0, 0, &[0; LARGEST]).await;
    }
    peer.is_well(1).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "not when she looked at the clock");
}

#[tokio::test]
async fn padding_and_priorities_are_taken_away() {
    let mut peer = Peer::new().await;
    let fields = block(&[(":method", "POST"), (":scheme", "http"), (":path", "/echo")]);
    let payload = [&[3][..], &[0, 0, 0, 0, 16], &fields, &[0; 3]].concat();
    peer.say(kind::HEADERS, flag::END_HEADERS | flag::PADDED | flag::PRIORITY, 1, &payload).await;
    peer.say(kind::DATA, flag::PADDED, 1, b"\x04said\0\0\0\0").await;
    peer.say(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).await;
    peer.say(99, 0xff, 77, b"from a time to come").await;
    peer.say(kind::DATA, flag::PADDED | flag::END_STREAM, 1, b"\x00!").await;
    assert_eq!(peer.status(1).await, "200");
    assert_eq!(peer.body(1).await, b"said!");
}

#[tokio::test]
async fn fields_may_come_in_many_frames_and_end_a_body() {
    let mut peer = Peer::new().await;
    let fields = block(&[(":method", "POST"), (":scheme", "http"), (":path", "/echo"), ("x-long", &"v".repeat(100))]);
    let (first, rest) = fields.split_at(7);
    let (second, third) = rest.split_at(50);
    peer.say(kind::HEADERS, 0, 1, first).await;
    peer.say(kind::CONTINUATION, 0, 1, second).await;
    peer.say(kind::CONTINUATION, flag::END_HEADERS, 1, third).await;
    assert_eq!(peer.status(1).await, "200");
    let trailers = block(&[("x-sum", "7")]);
    peer.say(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &trailers).await;
    let ended = peer.hear_of(1).await;
    assert_eq!((ended.head.kind, ended.head.has(flag::END_STREAM)), (kind::HEADERS, true), "an echo of trailers");
    peer.is_well(3).await;
}

#[tokio::test]
async fn however_the_bytes_are_cut_the_answers_are_the_same() {
    let asked = |stream: u32, method: &str, path: &str, end: u8| {
        let fields = block(&[(":method", method), (":scheme", "http"), (":path", path)]);
        let head = Head { length: fields.len(), kind: kind::HEADERS, flags: flag::END_HEADERS | end, stream };
        [&head.bytes()[..], &fields].concat()
    };
    let data = |length: usize, end: u8| {
        let head = Head { length, kind: kind::DATA, flags: end, stream: 1 };
        [&head.bytes()[..], &vec![5; length]].concat()
    };
    let said = [
        asked(1, "POST", "/taken", 0),
        data(LARGEST, 0),
        asked(3, "GET", "/fields", flag::END_STREAM),
        data(1_000, flag::END_STREAM),
    ]
    .concat();
    for size in [1, 2, 8, 9, 10, 4_000, 16_393, usize::MAX] {
        let mut peer = Peer::new().await;
        for piece in said.chunks(size.min(said.len())) {
            peer.io.write_all(piece).await.unwrap();
            if size > 100 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(peer.status(3).await, "200");
        assert_eq!(peer.body(3).await, b"{}");
        assert_eq!(peer.status(1).await, "200");
        assert!(peer.body(1).await == vec![5; LARGEST + 1_000], "{size}");
    }
}

#[tokio::test]
async fn pings_and_settings_are_answered() {
    let mut peer = Peer::new().await;
    peer.say(kind::PING, 0, 0, b"12345678").await;
    let pong = peer.hear().await;
    assert_eq!((pong.head.kind, pong.head.flags, &pong.payload[..]), (kind::PING, flag::ACK, &b"12345678"[..]));
    peer.say(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0, 0x7f, 0xff, 1, 2, 3, 4]).await;
    let agreed = peer.hear().await;
    assert_eq!((agreed.head.kind, agreed.head.flags, agreed.head.length), (kind::SETTINGS, flag::ACK, 0));
    peer.say(kind::SETTINGS, flag::ACK, 0, &[]).await;
    peer.say(kind::PING, flag::ACK, 0, b"12345678").await;
    peer.say(kind::GOAWAY, 0, 0, &[0; 8]).await;
    peer.is_well(1).await;
}

#[tokio::test]
async fn a_head_is_answered_without_a_body_and_an_answer_says_when_it_was_made() {
    let mut peer = Peer::new().await;
    peer.ask(1, "HEAD", "/large", true).await;
    let Heard { head, payload } = peer.hear_of(1).await;
    assert!(head.has(flag::END_STREAM));
    let mut fields = Vec::new();
    peer.decoder.read(&payload, |name, value| fields.push((name.to_vec(), value.to_vec()))).unwrap();
    assert!(fields.contains(&(b"content-length".to_vec(), LARGE.to_string().into_bytes())), "{fields:?}");
    assert!(fields.iter().any(|(name, value)| name == b"date" && value.ends_with(b" GMT")), "{fields:?}");
}

#[tokio::test]
async fn who_answers_without_reading_has_the_rest_given_up() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/unread", false).await;
    assert_eq!(peer.status(1).await, "200");
    assert_eq!(peer.body(1).await, b"no");
    let reset = peer.hear_of(1).await;
    assert_eq!((reset.head.kind, &reset.payload[..]), (kind::RST_STREAM, &[0; 4][..]));
    // What was on its way is nobody's, and no fault.
    peer.say(kind::DATA, 0, 1, &[1; 1_000]).await;
    peer.say(kind::DATA, flag::END_STREAM, 1, &[1; 1_000]).await;
    peer.say(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]).await;
    peer.say(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]).await;
    peer.is_well(3).await;
}

#[tokio::test]
async fn one_that_leaves_ends_what_was_begun_and_begins_nothing() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/echo", false).await;
    assert_eq!(peer.status(1).await, "200");
    peer.leave.notify_one();
    let said = peer.hear().await;
    assert_eq!((said.head.kind, &said.payload[..]), (kind::GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0][..]));
    peer.ask(3, "GET", "/fields", true).await;
    let refused = peer.hear_of(3).await;
    assert_eq!((refused.head.kind, &refused.payload[..]), (kind::RST_STREAM, &[0, 0, 0, 7][..]));
    peer.say(kind::DATA, flag::END_STREAM, 1, b"the end").await;
    assert_eq!(peer.body(1).await, b"the end");
    assert_eq!(peer.try_hear().await, None);
    assert_eq!(timeout(PATIENCE, peer.ended).await.unwrap().unwrap(), Ok(()));
}

#[tokio::test]
async fn one_that_leaves_a_peer_who_breaks_the_rules_then_takes_nothing_back() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/echo", false).await;
    assert_eq!(peer.status(1).await, "200");
    peer.leave.notify_one();
    assert_eq!(peer.hear().await.head.kind, kind::GOAWAY);
    peer.ask(3, "GET", "/never", true).await;
    peer.say(kind::PING, 0, 0, b"short").await;
    assert_eq!(peer.hear_of(3).await.head.kind, kind::RST_STREAM);
    let said = peer.hear().await;
    assert_eq!((said.head.kind, &said.payload[..]), (kind::GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 6][..]));
}
