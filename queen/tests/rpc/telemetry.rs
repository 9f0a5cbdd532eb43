//! Register and PushTelemetry.

use crate::harness::{PATIENCE, Running, Session, Watching, eventually, hive, row};
use proto::hive_service_client::HiveServiceClient;
use proto::push_telemetry_request::Frame;
use proto::{Batch, Hive, PushTelemetryRequest, RegisterRequest, WatchRequest, WorkerRow};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::Code;

#[tokio::test]
async fn t6_the_books_balance() {
    let queen = Running::start(|config| config.max_workers = 2).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    let mut lies = row("box", 1, f64::NAN);
    lies.stats.as_mut().unwrap().gpu_util_pct = Some(-1.0);
    session.snapshot(vec![lies, row("box", 2, 2.0)]).await;
    session.sequence -= 1;
    session.snapshot(vec![]).await;
    session.snapshot(vec![row("box", 1, 1.0), row("box", 2, 1.0), row("box", 3, 1.0)]).await;
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    session.send(Frame::Batch(Batch::default())).await;
    let books = session.goodbye().await.unwrap();
    // t1: the replay is counted; b1: so is the frame above the limit; b2: and the two numbers that cannot be true.
    assert_eq!((books.frames_accepted, books.frames_refused), (3, 2));
    assert_eq!((books.samples_accepted, books.fields_dropped), (4, 2));
}

#[tokio::test]
async fn t2_a_newer_session_ends_the_older_stream_with_aborted() {
    let queen = Running::start(|_| {}).await;
    let mut old = Session::open(&queen, hive("box")).await.unwrap();
    old.snapshot(vec![row("box", 1, 1.0)]).await;
    let mut watching = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    watching.until("the worker", |mirror| mirror.workers.len() == 1).await;
    let _new = Session::open(&queen, hive("box")).await.unwrap();
    let status = old.ended().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("superseded"), "{status}");
}

#[tokio::test]
async fn t2_a_register_that_comes_after_a_later_one_is_refused_and_ends_nothing() {
    let queen = Running::start(|_| {}).await;
    let mut client = HiveServiceClient::new(queen.channel().await);
    let mut register = async |sent| {
        let request =
            RegisterRequest { hive: Some(hive("box")), sent_boottime_ns: Some(sent), ..RegisterRequest::default() };
        client.register(request).await
    };
    let present = register(2).await.unwrap().into_inner();
    let status = register(1).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("superseded"), "{status}");
    let frame = PushTelemetryRequest { session: present.session, sequence: 1, ..Default::default() };
    let books = client.push_telemetry(tokio_stream::once(frame)).await.unwrap().into_inner();
    assert_eq!(books.frames_accepted, 1);
}

#[tokio::test]
async fn a_live_name_is_refused_to_another_machine() {
    let queen = Running::start(|_| {}).await;
    let mut first = Session::open(&queen, hive("box")).await.unwrap();
    first.snapshot(vec![]).await;
    let twin = || Hive { slice: "other.slice".into(), ..hive("box") };
    let refusal = eventually("the refusal", async || Session::open(&queen, twin()).await.err()).await;
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert!(refusal.message().contains("rbee.slice") && refusal.message().contains("other.slice"), "{refusal}");
}

#[tokio::test]
async fn a_refusal_about_a_hive_with_long_fields_arrives() {
    let queen = Running::start(|_| {}).await;
    let long = |letter: &str| Hive { boot_id: letter.repeat(20_000), ..hive("box") };
    let mut first = Session::open(&queen, long("a")).await.unwrap();
    first.snapshot(vec![]).await;
    let refusal = eventually("the refusal", async || Session::open(&queen, long("b")).await.err()).await;
    assert_eq!(refusal.code(), Code::AlreadyExists, "{refusal}");
}

#[tokio::test]
async fn sessions_that_are_not_known_are_told_to_register() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.session = "nobody/1/x".into();
    session.snapshot(vec![]).await;
    let status = session.ended().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("register again"), "{status}");
}

#[tokio::test]
async fn a_gap_or_an_unknown_slot_asks_for_a_resync() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![]).await;
    session.sequence += 1;
    session.snapshot(vec![]).await;
    assert_eq!(session.ended().await.unwrap_err().code(), Code::FailedPrecondition);
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![]).await;
    session.send(Frame::Batch(Batch { removed_slots: vec![9], ..Batch::default() })).await;
    let status = session.ended().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("slot 9"), "{status}");
}

#[tokio::test]
async fn b1_a_frame_above_the_limit_leaves_the_stream_open() {
    let queen = Running::start(|config| config.max_frame_bytes = 10_000).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    let rows = |count: u32| (1..=count).map(|slot| row("box", slot, 1.0)).collect::<Vec<WorkerRow>>();
    session.snapshot(rows(250)).await;
    session.snapshot(rows(1)).await;
    let books = session.goodbye().await.unwrap();
    assert_eq!((books.frames_accepted, books.frames_refused), (1, 1));
    // What even the decoder does not take ends the stream, and says so.
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(rows(2_000)).await;
    assert_eq!(session.ended().await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn b5_a_hive_writes_only_under_its_own_id() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("den", 1, 1.0)]).await;
    let status = session.ended().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("rows.spec.hive"), "{status}");
    let bad = Session::open(&queen, hive("../x")).await.err().unwrap();
    assert_eq!(bad.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn q7_stopping_with_open_streams_takes_less_than_a_second() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    let mut watching = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    watching.until("the worker", |mirror| mirror.workers.len() == 1).await;
    let took = queen.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(session.ended().await.unwrap_err().code(), Code::Unavailable);
    let ended = loop {
        match watching.stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_that_does_not_say_whose_it_is_is_not_waited_for() {
    let queen = Running::start(|_| {}).await;
    let (began, mut client) = (Instant::now(), HiveServiceClient::new(queen.channel().await));
    let status = timeout(PATIENCE, client.push_telemetry(tokio_stream::pending())).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
