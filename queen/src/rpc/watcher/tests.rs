//! The watcher without a wire: its bounds, its classes, what it makes of a revision.

use super::*;
use crate::Config;
use crate::bound::Bound;
use crate::fleet::Fleet;
use crate::fleet::feed::mirror::Mirror;
use crate::fleet::sample::{cpu, one_hive};
use crate::reserve::{Reserving, Ways};
use crate::tunnel::NoTunnel;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// A queen without a port, and who makes its bookmarks.
pub(super) fn shared(instance: &str, now: Instant, places: usize) -> (Shared, watch::Sender<Bytes>) {
    let (sender, bookmarks) = watch::channel(Bytes::new());
    let config = Config::default();
    let fleet = Arc::new(Fleet::new(&config, instance.into(), now));
    let ways = Ways::new(|hive| Err(NoTunnel::Absent(hive.clone())));
    let shared = Shared {
        reserving: Arc::new(Reserving::new(fleet.clone(), ways, config.max_age, config.grace)),
        fleet,
        config: Arc::new(config),
        stopping: CancellationToken::new(),
        bookmarks,
        places: Bound::new(places),
        tunnels: Arc::default(),
        cut: Arc::new(AtomicU64::new(0)),
        counts: Arc::default(),
    };
    (shared, sender)
}

fn request(resume_after: &str) -> WatchRequest {
    WatchRequest { resume_after: resume_after.into(), ..WatchRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn w6_a_reader_that_blocks_is_cut_after_30_s_and_counted() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let (out, mut messages) = mpsc::channel(1);
    let watcher = Watcher::new(shared.clone(), request(""), out).unwrap();
    let began = tokio::time::Instant::now();
    let status = watcher.run().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(began.elapsed() >= BLOCKED && began.elapsed() < BLOCKED + Duration::from_secs(1));
    assert_eq!(shared.cut.load(Ordering::Relaxed), 1);
    assert!(messages.recv().await.is_some() && messages.recv().await.is_none(), "one message was ahead, no more");
}

#[tokio::test(start_paused = true)]
async fn w6_a_watcher_that_was_cut_gives_its_place_back_although_nobody_reads_that() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let blocked = super::super::watch::open(&shared, request("")).unwrap();
    assert!(super::super::watch::open(&shared, request("")).is_err(), "there is one place");
    tokio::time::sleep(BLOCKED + Duration::from_secs(1)).await;
    assert!(super::super::watch::open(&shared, request("")).is_ok());
    drop(blocked);
}

#[tokio::test]
async fn a_watcher_whose_client_leaves_ends() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let (out, messages) = mpsc::channel(1);
    let watcher = tokio::spawn(Watcher::new(shared, request(""), out).unwrap().run());
    drop(messages);
    timeout(Duration::from_secs(5), watcher).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn w3_a_resume_goes_on_or_says_why_not() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    one_hive(&shared.fleet, Instant::now(), vec![cpu(1.0)]);
    let tip = shared.fleet.feed().revision();
    let reason = |text: &str| {
        let (out, _messages) = mpsc::channel(1);
        Watcher::new(shared.clone(), request(text), out).map(|watcher| match watcher.begin {
            Begin::Resumed => None,
            Begin::Snapshot(reason) => Some(reason),
        })
    };
    assert_eq!(reason("").unwrap(), Some(SnapshotReason::Initial));
    assert_eq!(reason(&format!("q1:{tip}")).unwrap(), None);
    assert_eq!(reason("q0:1").unwrap(), Some(SnapshotReason::QueenRestarted));
    for bad in ["q1", "q1:", "q1:x", ":1", "q1:-1", "q 1:1", "q1:99999"] {
        assert_eq!(reason(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
    }
}

#[tokio::test]
async fn a_resume_sends_no_snapshot() {
    let (shared, _bookmarks) = shared("q1", Instant::now(), 1);
    let now = Instant::now();
    let mut session = one_hive(&shared.fleet, now, vec![cpu(1.0)]);
    let tip = shared.fleet.feed().name_revision(shared.fleet.feed().revision());
    session.snapshot(now, vec![crate::fleet::sample::row("box", 1, cpu(2.0))]).unwrap();
    let (out, mut messages) = mpsc::channel(1);
    let watcher = tokio::spawn(Watcher::new(shared.clone(), request(&tip), out).unwrap().run());
    let mut mirror = Mirror::default();
    while mirror.workers.is_empty() {
        let message = timeout(Duration::from_secs(5), messages.recv()).await.unwrap().unwrap();
        mirror.apply(WatchResponse::decode(message).unwrap());
    }
    assert_eq!((mirror.reasons.len(), mirror.updates), (0, 1));
    shared.stopping.cancel();
    assert_eq!(watcher.await.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[test]
fn intervals_are_rounded_up() {
    let ms = Duration::from_millis;
    for (asked, given) in [(1, 50), (50, 50), (51, 250), (251, 1_000), (60_000, 1_000)] {
        assert_eq!(interval(ms(asked)), Some(ms(given)), "{asked}");
    }
    assert_eq!(interval(Duration::ZERO), None);
}
