//! Windows: nobody sends more than the other may hold, and nobody waits for ever.

use super::super::frame::{LARGEST, Reason, WINDOW, flag, kind};
use super::super::{CONNECTION_WINDOW, STREAM_WINDOW};
use super::peer::{HUGE, LARGE, Peer};
use std::time::Duration;

async fn widen(peer: &mut Peer, stream: u32, bytes: u32) {
    peer.say(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await;
}

async fn set_window(peer: &mut Peer, bytes: u32) {
    peer.say(kind::SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat()).await;
    while peer.hear().await.head.kind != kind::SETTINGS {}
}

/// Reads so many bytes of a body, which come in no larger frames than anybody takes.
async fn read(peer: &mut Peer, stream: u32, bytes: usize) {
    let mut read = 0;
    while read < bytes {
        let heard = peer.hear_of(stream).await;
        assert!(heard.head.kind == kind::DATA && heard.head.length <= LARGEST, "{:?}", heard.head);
        read += heard.head.length;
    }
    assert_eq!(read, bytes);
}

/// That nothing more of a body comes.
async fn is_quiet(peer: &mut Peer) {
    peer.say(kind::PING, 0, 0, b"anything").await;
    let heard = peer.hear().await;
    assert_eq!(heard.head.kind, kind::PING, "{:?}", heard.head);
}

#[tokio::test]
async fn no_more_is_sent_than_the_windows_of_stream_and_connection_have() {
    let mut peer = Peer::new().await;
    peer.ask(1, "GET", "/large", true).await;
    assert_eq!(peer.status(1).await, "200");
    read(&mut peer, 1, WINDOW as usize).await;
    is_quiet(&mut peer).await;
    widen(&mut peer, 1, 100_000).await;
    is_quiet(&mut peer).await;
    widen(&mut peer, 0, 10).await;
    read(&mut peer, 1, 10).await;
    widen(&mut peer, 0, 1 << 20).await;
    read(&mut peer, 1, 99_990).await;
    is_quiet(&mut peer).await;
    widen(&mut peer, 1, 1 << 20).await;
    let rest = peer.body(1).await;
    assert_eq!(rest.len(), LARGE - WINDOW as usize - 100_000);
}

#[tokio::test]
async fn who_is_cut_off_is_told_how_it_ended_or_that_what_it_has_is_no_whole() {
    let mut peer = Peer::new().await;
    set_window(&mut peer, 10_000).await;
    peer.ask(1, "GET", "/cut/10000", true).await;
    assert_eq!(peer.status(1).await, "200");
    read(&mut peer, 1, 10_000).await;
    let heard = peer.hear_of(1).await;
    assert_eq!((heard.head.kind, heard.head.flags & flag::END_STREAM), (kind::HEADERS, flag::END_STREAM));
    // Of the second piece a byte was sent.
    peer.ask(3, "GET", "/cut/9999", true).await;
    assert_eq!(peer.status(3).await, "200");
    read(&mut peer, 3, 10_000).await;
    let heard = peer.hear_of(3).await;
    let calm = Reason::ENHANCE_YOUR_CALM.0.to_be_bytes();
    assert_eq!((heard.head.kind, &heard.payload[..]), (kind::RST_STREAM, &calm[..]));
    // Who has room is told everything.
    peer.ask(5, "GET", "/cut/1000", true).await;
    assert_eq!(peer.status(5).await, "200");
    read(&mut peer, 5, 2_000).await;
    assert_eq!(peer.hear_of(5).await.head.kind, kind::HEADERS);
}

async fn ended_for_calm(peer: &mut Peer, stream: u32) {
    let heard = peer.hear_of(stream).await;
    let calm = Reason::ENHANCE_YOUR_CALM.0.to_be_bytes();
    assert_eq!((heard.head.kind, &heard.payload[..]), (kind::RST_STREAM, &calm[..]));
}

#[tokio::test]
async fn answers_that_nobody_reads_have_only_so_much_room() {
    let mut peer = Peer::new().await;
    widen(&mut peer, 0, 1 << 20).await;
    set_window(&mut peer, 0).await;
    for (stream, path) in [(1, "/huge"), (3, "/large")] {
        peer.ask(stream, "GET", path, true).await;
        assert_eq!(peer.status(stream).await, "200");
    }
    peer.ask(5, "GET", "/large", true).await;
    assert_eq!(peer.status(5).await, "200");
    ended_for_calm(&mut peer, 5).await;
    // Whoever takes what lies there makes room for others, not before the last byte.
    widen(&mut peer, 1, HUGE as u32 - 1).await;
    read(&mut peer, 1, HUGE - 1).await;
    peer.ask(7, "GET", "/large", true).await;
    assert_eq!(peer.status(7).await, "200");
    ended_for_calm(&mut peer, 7).await;
    widen(&mut peer, 1, 1).await;
    read(&mut peer, 1, 1).await;
    peer.ask(9, "GET", "/large", true).await;
    assert_eq!(peer.status(9).await, "200");
    is_quiet(&mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_reader_takes_nothing_for_long_is_ended_unless_he_may() {
    let mut peer = Peer::new().await;
    set_window(&mut peer, 10).await;
    for (stream, path) in [(1, "/large"), (3, "/large"), (5, "/patient")] {
        peer.ask(stream, "GET", path, true).await;
        assert_eq!(peer.status(stream).await, "200");
        read(&mut peer, stream, 10).await;
    }
    for second in 1..30 {
        tokio::time::advance(Duration::from_secs(1)).await;
        if second == 20 {
            widen(&mut peer, 3, 10).await;
            read(&mut peer, 3, 10).await;
        }
        is_quiet(&mut peer).await;
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    peer.say(kind::PING, 0, 0, b"anything").await;
    ended_for_calm(&mut peer, 1).await;
    for stream in [3, 5] {
        widen(&mut peer, stream, 10).await;
        read(&mut peer, stream, 10).await;
    }
}

#[tokio::test]
async fn a_window_that_is_made_smaller_may_be_less_than_nothing() {
    let mut peer = Peer::new().await;
    widen(&mut peer, 0, 1 << 20).await;
    peer.ask(1, "GET", "/large", true).await;
    assert_eq!(peer.status(1).await, "200");
    read(&mut peer, 1, WINDOW as usize).await;
    set_window(&mut peer, 1_000).await;
    widen(&mut peer, 1, WINDOW - 1_000).await;
    is_quiet(&mut peer).await;
    widen(&mut peer, 1, 1).await;
    read(&mut peer, 1, 1).await;
    // A new stream begins with what was set last.
    peer.ask(3, "GET", "/large", true).await;
    assert_eq!(peer.status(3).await, "200");
    read(&mut peer, 3, 1_000).await;
    set_window(&mut peer, 3_000).await;
    read(&mut peer, 1, 2_000).await;
    read(&mut peer, 3, 2_000).await;
    is_quiet(&mut peer).await;
}

#[tokio::test]
async fn a_reader_is_told_to_go_on_as_it_is_read() {
    told_to_go_on("/counted").await;
}

#[tokio::test]
async fn one_that_another_task_reads_is_told_too() {
    told_to_go_on("/elsewhere").await;
}

#[tokio::test]
async fn one_that_is_read_within_an_answer_needs_no_window_for_that() {
    told_to_go_on("/inside").await;
}

#[tokio::test]
async fn an_end_needs_no_window() {
    let mut peer = Peer::new().await;
    set_window(&mut peer, 0).await;
    peer.ask(1, "POST", "/echo", false).await;
    assert_eq!(peer.status(1).await, "200");
    let trailers = super::peer::block(&[("x-end", "1")]);
    peer.say(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &trailers).await;
    assert!(peer.hear_of(1).await.head.has(flag::END_STREAM));
}

#[tokio::test]
async fn what_nobody_reads_does_not_open_a_window_again() {
    let mut peer = Peer::new().await;
    peer.ask(1, "POST", "/never", false).await;
    for _ in 0..STREAM_WINDOW as usize / LARGEST {
        peer.say(kind::DATA, 0, 1, &[0; LARGEST]).await;
    }
    is_quiet(&mut peer).await;
    peer.say(kind::DATA, 0, 1, b"1").await;
    assert_eq!(peer.hear_of(1).await.head.kind, kind::RST_STREAM);
}

#[tokio::test]
async fn the_window_of_the_connection_is_everybodys() {
    let mut peer = Peer::new().await;
    set_window(&mut peer, 1 << 24).await;
    for stream in [1, 3, 5] {
        peer.ask(stream, "GET", "/large", true).await;
    }
    let mut told = [0; 6];
    let mut left = WINDOW as usize;
    while told[1].min(told[3]).min(told[5]) < 50_000 {
        assert!(told.iter().sum::<usize>() < LARGE, "{told:?}");
        if left == 0 {
            left = 10_000;
            widen(&mut peer, 0, 10_000).await;
        }
        let heard = peer.hear().await;
        if heard.head.kind == kind::DATA {
            told[heard.head.stream as usize] += heard.head.length;
            left -= heard.head.length;
        }
    }
}

async fn told_to_go_on(path: &str) {
    let mut peer = Peer::new().await;
    set_window(&mut peer, 0).await;
    peer.ask(1, "POST", path, false).await;
    let pieces = 3 * CONNECTION_WINDOW as usize / LARGEST;
    let (mut stream, mut connection) = (STREAM_WINDOW as usize, CONNECTION_WINDOW as usize);
    for _ in 0..pieces {
        while stream < LARGEST || connection < LARGEST {
            let heard = peer.hear().await;
            if heard.head.kind == kind::HEADERS {
                peer.keep(heard);
                continue;
            }
            assert_eq!(heard.head.kind, kind::WINDOW_UPDATE);
            let more = u32::from_be_bytes(*heard.payload.first_chunk().unwrap()) as usize;
            *if heard.head.stream == 0 { &mut connection } else { &mut stream } += more;
        }
        peer.say(kind::DATA, 0, 1, &[1; LARGEST]).await;
        (stream, connection) = (stream - LARGEST, connection - LARGEST);
    }
    assert!(stream <= STREAM_WINDOW as usize && connection <= CONNECTION_WINDOW as usize);
    peer.say(kind::DATA, flag::END_STREAM, 1, b"").await;
    widen(&mut peer, 0, 1 << 24).await;
    widen(&mut peer, 1, 1 << 24).await;
    assert_eq!(peer.status(1).await, "200");
    let body = peer.body(1).await;
    let said = String::from_utf8(body).ok().and_then(|text| text.parse().ok());
    assert!(said == Some(pieces * LARGEST), "{said:?}");
}

#[tokio::test]
async fn what_nobody_reads_does_not_use_up_the_connection() {
    let mut peer = Peer::new().await;
    // Each stream is given up with a full window unread; in all several times what the connection holds.
    let mut connection = i64::from(CONNECTION_WINDOW);
    for stream in (1..200).step_by(2) {
        peer.ask(stream, "POST", "/held", false).await;
        for _ in 0..STREAM_WINDOW as usize / LARGEST {
            while connection < LARGEST as i64 {
                let heard = peer.hear().await;
                assert_eq!((heard.head.kind, heard.head.stream), (kind::WINDOW_UPDATE, 0), "{stream}");
                connection += i64::from(u32::from_be_bytes(*heard.payload.first_chunk().unwrap()));
            }
            peer.say(kind::DATA, 0, stream, &[1; LARGEST]).await;
            connection -= LARGEST as i64;
        }
        peer.say(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]).await;
    }
    peer.is_well(201).await;
}

#[tokio::test]
async fn one_that_fills_the_connection_lets_others_have_their_turn() {
    let mut peer = Peer::new().await;
    set_window(&mut peer, 1 << 24).await;
    widen(&mut peer, 0, 1 << 24).await;
    for stream in [1, 3, 5] {
        peer.ask(stream, "GET", "/large", true).await;
    }
    let (mut order, mut open) = (Vec::new(), 3);
    while open > 0 {
        let heard = peer.hear().await;
        if heard.head.kind == kind::DATA {
            order.push(heard.head.stream);
            open -= u32::from(heard.head.has(flag::END_STREAM));
        }
    }
    let first = |stream| order.iter().position(|at| *at == stream).unwrap();
    assert!(first(5) < order.len() / 2, "{order:?}");
}
