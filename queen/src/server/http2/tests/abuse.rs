//! What a peer may not do: a fault of one stream ends that stream, one of the connection ends the connection, and whoever makes
//! work for nothing is sent away.

use super::super::frame::{LARGEST, WINDOW_MAX, flag, kind};
use super::super::{CONNECTION_WINDOW, STREAM_WINDOW};
use super::peer::{HEADER_BYTES, Peer, STREAMS, block};
use proptest::collection::vec;
use proptest::prelude::*;

const PROTOCOL: u32 = 1;
const INTERNAL: u32 = 2;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

/// What is said: a kind, flags, a stream and a payload.
type Said<'a> = (u8, u8, u32, &'a [u8]);

/// Why a stream was reset.
async fn reset(peer: &mut Peer, stream: u32) -> u32 {
    let heard = peer.hear_of(stream).await;
    assert_eq!(heard.head.kind, kind::RST_STREAM, "{heard:?}");
    u32::from_be_bytes(*heard.payload.first_chunk().unwrap())
}

/// Fields of a request, and more.
fn asking(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&[(":method", "POST"), (":scheme", "http"), (":path", "/taken")], more].concat())
}

#[tokio::test]
async fn frames_that_are_not_allowed_end_the_connection_with_the_reason() {
    let fields = asking(&[]);
    let long = vec![0; LARGEST + 1];
    let cases: &[(&str, &[Said<'_>], u32)] = &[
        ("a frame above what was agreed", &[(kind::DATA, 0, 1, &long)], SIZE),
        ("a short ping", &[(kind::PING, 0, 0, b"1234567")], SIZE),
        ("settings cut short", &[(kind::SETTINGS, 0, 0, b"12345")], SIZE),
        ("an agreement with something in it", &[(kind::SETTINGS, flag::ACK, 0, b"123456")], SIZE),
        ("a long window", &[(kind::WINDOW_UPDATE, 0, 0, b"12345")], SIZE),
        ("settings of a stream", &[(kind::SETTINGS, 0, 1, b"")], PROTOCOL),
        ("a ping of a stream", &[(kind::PING, 0, 1, b"12345678")], PROTOCOL),
        ("data of the connection", &[(kind::DATA, 0, 0, b"1")], PROTOCOL),
        ("fields of the connection", &[(kind::HEADERS, flag::END_HEADERS, 0, &fields)], PROTOCOL),
        ("a promise", &[(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &fields)], PROTOCOL),
        ("a stream that is not a client's", &[(kind::HEADERS, flag::END_HEADERS, 2, &fields)], PROTOCOL),
        ("data of a stream that is not there", &[(kind::DATA, 0, 1, b"1")], PROTOCOL),
        ("an end of one that is not there", &[(kind::RST_STREAM, 0, 1, &[0; 4])], PROTOCOL),
        ("a window of one that is not there", &[(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])], PROTOCOL),
        ("padding longer than a frame", &[(kind::HEADERS, flag::PADDED | flag::END_HEADERS, 1, b"\x05abc")], PROTOCOL),
        ("more fields of nothing", &[(kind::CONTINUATION, flag::END_HEADERS, 1, &fields)], PROTOCOL),
        ("a ping within fields", &[(kind::HEADERS, 0, 1, &fields), (kind::PING, 0, 0, b"12345678")], PROTOCOL),
        ("fields within others", &[(kind::HEADERS, 0, 1, &fields), (kind::CONTINUATION, 4, 3, b"")], PROTOCOL),
        ("a window without bounds", &[(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])], FLOW),
        ("a window that opens by nothing", &[(kind::WINDOW_UPDATE, 0, 0, &[0; 4])], PROTOCOL),
        ("a first window without bounds", &[(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])], FLOW),
        ("frames that nobody may send", &[(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])], PROTOCOL),
        ("promises, perhaps", &[(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])], PROTOCOL),
        ("fields that are none", &[(kind::HEADERS, flag::END_HEADERS, 1, &[0x80])], COMPRESSION),
    ];
    for (what, frames, reason) in cases {
        let mut peer = Peer::new().await;
        for (kind, flags, stream, payload) in *frames {
            peer.say(*kind, *flags, *stream, payload).await;
        }
        assert_eq!(peer.farewell().await, *reason, "{what}");
    }
}

#[tokio::test]
async fn a_fault_of_one_stream_leaves_the_others() {
    let long = "v".repeat(HEADER_BYTES);
    let whole = flag::END_HEADERS | flag::END_STREAM;
    let cases = [
        ("no path", block(&[(":method", "GET"), (":scheme", "http")]), whole),
        ("a field of HTTP/1.1", asking(&[("connection", "close")]), whole),
        ("a name in capitals", asking(&[("X-Big", "1")]), whole),
        ("less than was said", asking(&[("content-length", "5")]), whole),
        ("an answer's field", asking(&[(":status", "200")]), whole),
    ];
    let mut peer = Peer::new().await;
    for (stream, (what, fields, flags)) in (1..).step_by(2).zip(cases) {
        peer.say(kind::HEADERS, flags, stream, &fields).await;
        assert_eq!(reset(&mut peer, stream).await, PROTOCOL, "{what}");
    }
    peer.say(kind::HEADERS, flag::END_HEADERS, 101, &asking(&[("content-length", "5")])).await;
    peer.say(kind::DATA, 0, 101, b"sixsix").await;
    assert_eq!(reset(&mut peer, 101).await, PROTOCOL, "more than was said");
    for (piece, flags) in
        asking(&[("x-long", &long)]).chunks(LARGEST).zip([(kind::HEADERS, 1), (kind::CONTINUATION, 4)])
    {
        peer.say(flags.0, flags.1, 103, piece).await;
    }
    assert_eq!(peer.status(103).await, "431");
    peer.ask(105, "POST", "/never", false).await;
    peer.say(kind::HEADERS, flag::END_HEADERS, 105, &block(&[("x-late", "1")])).await;
    assert_eq!(reset(&mut peer, 105).await, PROTOCOL, "trailers that end nothing");
    peer.ask(107, "GET", "/never", true).await;
    peer.say(kind::WINDOW_UPDATE, 0, 107, &WINDOW_MAX.to_be_bytes()).await;
    assert_eq!(reset(&mut peer, 107).await, FLOW);
    peer.is_well(109).await;
}

#[tokio::test]
async fn nothing_follows_the_end_of_a_body() {
    let mut peer = Peer::new().await;
    for (stream, kind, flags) in [(1, kind::DATA, 0), (3, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM)] {
        peer.ask(stream, "GET", "/never", true).await;
        peer.say(kind, flags, stream, b"").await;
        assert_eq!(reset(&mut peer, stream).await, CLOSED);
    }
    peer.is_well(5).await;
}

#[tokio::test]
async fn a_call_that_panics_takes_no_other_with_it() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/echo", false).await;
    peer.ask(3, "GET", "/panics", true).await;
    assert_eq!(reset(&mut peer, 3).await, INTERNAL);
    peer.say(kind::DATA, flag::END_STREAM, 1, b"on").await;
    assert_eq!(peer.status(1).await, "200");
    assert_eq!(peer.body(1).await, b"on");
}

#[tokio::test]
async fn who_sends_more_than_a_window_is_stopped() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/held", false).await;
    for _ in 0..STREAM_WINDOW as usize / LARGEST {
        peer.say(kind::DATA, 0, 1, &[0; LARGEST]).await;
    }
    peer.say(kind::DATA, 0, 1, b"1").await;
    assert_eq!(reset(&mut peer, 1).await, FLOW);
    peer.is_well(3).await;
    // Over the window of the connection: what is sent to streams that are no more is told to be read, half a window at a time.
    let mut sent = 0;
    while sent <= 2 * CONNECTION_WINDOW as usize {
        peer.say(kind::DATA, flag::PADDED, 1, &[[255].as_slice(), &[0; 255]].concat()).await;
        sent += 256;
    }
    let heard = peer.hear().await;
    assert_eq!((heard.head.kind, heard.head.stream), (kind::WINDOW_UPDATE, 0));
    peer.is_well(5).await;
}

#[tokio::test]
async fn no_more_calls_than_there_may_be_run_at_once() {
    let mut peer = Peer::new().await;
    let streams = || (1..).step_by(2);
    for stream in streams().take(STREAMS) {
        peer.ask(stream, "GET", "/never", true).await;
    }
    let next = 2 * STREAMS as u32 + 1;
    peer.ask(next, "GET", "/fields", true).await;
    assert_eq!(reset(&mut peer, next).await, REFUSED);
    peer.say(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]).await;
    peer.is_well(next + 2).await;
}

#[tokio::test(start_paused = true)]
async fn who_makes_work_for_nothing_is_sent_away() {
    // Each the same again and again; the numbers of streams go on.
    type Round = (u8, u8, bool, Vec<u8>);
    let ask = |path: &str| (kind::HEADERS, 5, true, block(&[(":method", "GET"), (":scheme", "http"), (":path", path)]));
    let end: Round = (kind::RST_STREAM, 0, true, vec![0, 0, 0, 8]);
    let rounds: [(&str, Vec<Round>); 6] = [
        ("calls taken back at once", vec![ask("/never"), end]),
        ("calls that are none", vec![(kind::HEADERS, 5, true, block(&[(":method", "GET")]))]),
        ("pings", vec![(kind::PING, 0, false, vec![0; 8])]),
        ("settings", vec![(kind::SETTINGS, 0, false, vec![])]),
        ("priorities", vec![(kind::PRIORITY, 0, true, vec![0; 5])]),
        ("what nobody knows", vec![(200, 0, false, vec![])]),
    ];
    for (what, round) in rounds {
        let mut peer = Peer::new().await;
        for number in 0..20_000 {
            for (kind, flags, streams, payload) in &round {
                peer.say(*kind, *flags, if *streams { 2 * number + 1 } else { 0 }, payload).await;
            }
            if peer.ended.is_finished() {
                break;
            }
        }
        assert_eq!(peer.farewell().await, CALM, "{what}");
    }
}

#[tokio::test]
async fn fields_without_end_are_not_waited_for() {
    for payload in [&b""[..], &[0; 1_000]] {
        let mut peer = Peer::new().await;
        peer.say(kind::HEADERS, 0, 1, payload).await;
        for _ in 0..100 {
            peer.say(kind::CONTINUATION, 0, 1, payload).await;
        }
        assert_eq!(peer.farewell().await, CALM);
    }
}

#[tokio::test]
async fn a_few_bytes_that_stand_for_many_fields_cost_little() {
    let mut peer = Peer::new().await;
    // One field of 4,000 bytes that is remembered, then told again by a single byte each.
    let field = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    let fields = [asking(&[]), field, vec![0xbe; 10_000]].concat();
    peer.say(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &fields).await;
    assert_eq!(peer.status(1).await, "431");
    peer.is_well(3).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_said_the_connection_goes_on_or_ends(
        frames in vec((0_u8..11, any::<u8>(), 0_u32..8, vec(any::<u8>(), 0..40)), 0..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut peer = Peer::new().await;
            for (kind, flags, stream, payload) in frames {
                peer.say(kind, flags, stream, &payload).await;
            }
            let Peer { io, ended, .. } = peer;
            drop(io);
            // Without a panic.
            let _in_order_or_not = ended.await.unwrap();
        });
    }
}
