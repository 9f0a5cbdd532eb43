//! The watch without a wire: its bounds, its classes, what it makes of a revision.

use super::*;
use crate::Config;
use crate::bound::Bound;
use crate::fleet::Fleet;
use crate::fleet::feed::mirror::Mirror;
use crate::fleet::feed::{Message, Why};
use crate::fleet::sample::{cpu, one_hive};
use crate::reserve::{Reserving, Ways};
use crate::server::Cut;
use crate::tunnel::{NoTunnel, Tunnels};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message as _;
use proto::watch_response::Event;
use proto::{SnapshotReason, WatchResponse};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// A queen without a port, and who makes its bookmarks.
pub(super) fn shared(instance: &str, now: Instant, places: usize) -> (Shared, watch::Sender<Bytes>) {
    let (sender, bookmarks) = watch::channel(Bytes::new());
    let config = Config::default();
    let fleet = Arc::new(Fleet::new(&config, instance.into(), now));
    let ways = Ways::new(|hive| Err(NoTunnel::Absent(hive.clone())));
    let shared = Shared {
        reserving: Arc::new(Reserving::new(fleet.clone(), ways, config.max_age, config.grace, Bound::new(1))),
        fleet,
        config: Arc::new(config),
        stopping: CancellationToken::new(),
        bookmarks,
        places: Bound::new(places),
        tunnels: Arc::new(Tunnels::new(Bound::new(1))),
        cut: Arc::new(AtomicU64::new(0)),
        seats: Arc::default(),
        counts: Arc::default(),
    };
    (shared, sender)
}

/// What a watch said: a message, or how it ended.
pub(super) async fn heard(messages: &mut Messages) -> Option<Result<WatchResponse, Status>> {
    let frame = messages.frame().await?.unwrap();
    Some(match frame.into_data() {
        Ok(bytes) => Ok(Message::read_framed(&bytes)),
        Err(frame) => Err(Status::from_header_map(frame.trailers_ref().unwrap()).unwrap()),
    })
}

async fn soon(messages: &mut Messages) -> Result<WatchResponse, Status> {
    timeout(Duration::from_secs(5), heard(messages)).await.unwrap().unwrap()
}

fn request(resume_after: &str) -> WatchRequest {
    WatchRequest { resume_after: resume_after.into(), ..WatchRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn w6_a_reader_that_blocks_is_cut_after_30_s_and_counted() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 2);
    let keeping = tokio::spawn(rhythm::keep(shared.clone()));
    let (mut blocked, mut reader) = (open(&shared, request("")).unwrap(), open(&shared, request("")).unwrap());
    assert!(matches!(soon(&mut blocked).await.unwrap().event, Some(Event::SnapshotBegin(_))));
    let began = tokio::time::Instant::now();
    while shared.cut.load(Ordering::Relaxed) == 0 {
        shared.fleet.feed().wake_all(Why::Changed);
        // Who is at the tip waits; it has been looked at all the same.
        let _nothing = timeout(Duration::from_millis(500), heard(&mut reader)).await;
    }
    let (took, blocked_for) = (began.elapsed(), Duration::from_secs(seat::BLOCKED.into()));
    assert!(took >= blocked_for - Duration::from_secs(1) && took <= blocked_for + Duration::from_secs(1), "{took:?}");
    assert_eq!(shared.places.taken(), 1, "its place is free, although nobody reads that it was cut");
    assert!(blocked.cut().is_made() && !reader.cut().is_made());
    let status = soon(&mut blocked).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(heard(&mut blocked).await.is_none());
    shared.stopping.cancel();
    keeping.await.unwrap();
    assert_eq!(
        (soon(&mut reader).await.unwrap_err().code(), shared.cut.load(Ordering::Relaxed)),
        (Code::Unavailable, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn w6_one_that_never_reads_at_all_is_cut_and_one_with_nothing_to_read_is_not() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 2);
    let keeping = tokio::spawn(rhythm::keep(shared.clone()));
    let (blocked, mut reader) = (open(&shared, request("")).unwrap(), open(&shared, request("")).unwrap());
    let nothing = timeout(Duration::from_secs(100), async { while heard(&mut reader).await.is_some() {} }).await;
    assert!(nothing.is_err(), "it is open");
    assert_eq!((shared.cut.load(Ordering::Relaxed), shared.places.taken()), (1, 1));
    assert!(open(&shared, request("")).is_ok());
    drop(blocked);
    shared.stopping.cancel();
    keeping.await.unwrap();
}

#[tokio::test]
async fn an_answer_can_be_cut_off_where_its_reader_takes_nothing() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let asked = [&[0; 5][..], &request("").encode_to_vec()].concat();
    let answer = begin(&shared, Request::new(Body::new(Full::new(Bytes::from(asked)))), 100).await.unwrap();
    assert!(answer.extensions().get::<Cut>().is_some_and(|cut| !cut.is_made()));
}

#[tokio::test]
async fn a_watcher_whose_client_leaves_gives_its_place_back() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let messages = open(&shared, request("")).unwrap();
    assert_eq!(open(&shared, request("")).unwrap_err().code(), Code::ResourceExhausted);
    drop(messages);
    open(&shared, request("")).unwrap();
}

#[tokio::test]
async fn q7_who_begins_to_watch_after_the_queen_was_stopped_is_told_so() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    shared.stopping.cancel();
    // Nobody rings any more.
    let mut messages = open(&shared, request("")).unwrap();
    assert_eq!(soon(&mut messages).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn w3_a_resume_goes_on_or_says_why_not() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    one_hive(&shared.fleet, Instant::now(), vec![cpu(1.0)]);
    let tip = shared.fleet.feed().revision();
    let reason = async |text: &str| {
        let mut messages = open(&shared, request(text))?;
        let first = timeout(Duration::from_millis(100), heard(&mut messages)).await;
        Ok::<_, Status>(first.ok().and_then(|first| match first.unwrap().unwrap().event {
            Some(Event::SnapshotBegin(begin)) => Some(begin.reason()),
            _ => None,
        }))
    };
    assert_eq!(reason("").await.unwrap(), Some(SnapshotReason::Initial));
    assert_eq!(reason(&format!("q1:{tip}")).await.unwrap(), None);
    assert_eq!(reason("q0:1").await.unwrap(), Some(SnapshotReason::QueenRestarted));
    for bad in ["q1", "q1:", "q1:x", ":1", "q1:-1", "q 1:1", "q1:99999", "q1:1:2", "q1:1:"] {
        assert_eq!(reason(bad).await.unwrap_err().code(), Code::InvalidArgument, "{bad}");
    }
}

#[tokio::test]
async fn a_resume_sends_no_snapshot() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let now = Instant::now();
    let mut session = one_hive(&shared.fleet, now, vec![cpu(1.0)]);
    let tip = shared.fleet.feed().name_tip();
    session.snapshot(now, vec![crate::fleet::sample::row("box", 1, cpu(2.0))]).unwrap();
    let mut messages = open(&shared, request(&tip)).unwrap();
    let mut mirror = Mirror::default();
    while mirror.workers.is_empty() {
        mirror.apply(soon(&mut messages).await.unwrap());
    }
    assert_eq!((mirror.reasons.len(), mirror.updates), (0, 1));
    shared.stopping.cancel();
    shared.fleet.feed().wake_all(Why::Stopping);
    assert_eq!(soon(&mut messages).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn those_of_an_interval_are_told_together_and_only_at_its_beats() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 3);
    let keeping = tokio::spawn(rhythm::keep(shared.clone()));
    let now = Instant::now();
    let mut session = one_hive(&shared.fleet, now, vec![cpu(1.0)]);
    let began = tokio::time::Instant::now();
    let every = |ms| WatchRequest { min_interval: Some(common::duration(Duration::from_millis(ms))), ..request("") };
    let mut watches = [0, 50, 250].map(|ms| open(&shared, every(ms)).unwrap());
    for messages in &mut watches {
        while !matches!(soon(messages).await.unwrap().event, Some(Event::SnapshotEnd(_))) {}
        assert!(timeout(Duration::from_millis(1), heard(messages)).await.is_err(), "there is nothing more yet");
    }
    session.snapshot(now, vec![crate::fleet::sample::row("box", 1, cpu(2.0))]).unwrap();
    let mut told = Vec::new();
    for messages in &mut watches {
        assert!(matches!(soon(messages).await.unwrap().event, Some(Event::Update(_))));
        told.push(began.elapsed().as_millis());
    }
    // Three looks of a millisecond came first.
    assert!(told[0] < 10 && (50..60).contains(&told[1]) && (250..260).contains(&told[2]), "{told:?}");
    shared.stopping.cancel();
    keeping.await.unwrap();
}
