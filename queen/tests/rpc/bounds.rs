//! Every bound at its limit: who is beyond it is answered, who was there before goes on, and `/metrics` tells.

use crate::harness::{PATIENCE, Running, Session, eventually, hive, row};
use proto::claim::What;
use proto::fleet_service_client::FleetServiceClient;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::{Claim, ListHivesRequest, ReserveRequest, WatchRequest, WorkerClaim};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// One request over HTTP/1.1; the whole answer.
async fn http(queen: &Running, head: &str) -> String {
    let mut stream = TcpStream::connect(queen.address).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// Every series of the classic text with its value.
async fn scrape(queen: &Running) -> BTreeMap<String, f64> {
    let page = http(queen, "GET /metrics HTTP/1.1").await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// How a bound stands: current, limit, refused. What nobody counts is absent.
async fn bound(queen: &Running, name: &str) -> (Option<f64>, f64, Option<f64>) {
    let all = scrape(queen).await;
    let series = |kind: &str| all.get(&format!("rbee_queen_bound_{kind}{{bound=\"{name}\"}}")).copied();
    (series("current"), series("limit").unwrap(), series("refused_total"))
}

/// RESOURCE_EXHAUSTED with a retry time.
fn exhausted(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    assert!(retry.is_some_and(|retry| !retry.is_zero()), "{status:?}");
}

#[tokio::test]
async fn q4_connections_beyond_the_bound_are_told_when_to_come_again() {
    let queen = Running::start(|config| config.max_connections = 2).await;
    let mut first = FleetServiceClient::new(queen.channel().await);
    let mut watch = first.watch(WatchRequest::default()).await.unwrap().into_inner();
    let second = TcpStream::connect(queen.address).await.unwrap();
    // Both are counted once a third one is turned away.
    let told = eventually("a refusal", async || {
        let mut third = FleetServiceClient::new(queen.channel().await);
        third.list_hives(ListHivesRequest::default()).await.err()
    });
    exhausted(&told.await);
    let page = http(&queen, "GET / HTTP/1.1").await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("retry-after: 5"), "{page}");
    timeout(PATIENCE, watch.message()).await.unwrap().unwrap().expect("the watch goes on");
    drop(second);
    let known = eventually("room", async || {
        let mut next = FleetServiceClient::new(queen.endpoint().connect().await.ok()?);
        next.list_hives(ListHivesRequest::default()).await.ok()
    });
    assert!(known.await.into_inner().hives.is_empty());
    drop((first, watch));
    let (current, limit, refused) = eventually("the numbers", async || {
        let page = http(&queen, "GET /metrics HTTP/1.1").await;
        if page.starts_with("HTTP/1.1 200") { Some(bound(&queen, "connections").await) } else { None }
    })
    .await;
    assert!(
        current.is_some_and(|current| (1.0..=2.0).contains(&current))
            && limit == 2.0
            && refused.is_some_and(|refused| refused >= 2.0)
    );
}

#[tokio::test]
async fn q4_calls_beyond_the_bound_are_told_when_to_come_again() {
    let queen = Running::start(|config| config.max_calls = 1).await;
    let mut waiting = TcpStream::connect(queen.address).await.unwrap();
    let head = "POST /rbee.v1.FleetService/ListHives HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\r\n";
    waiting.write_all(head.as_bytes()).await.unwrap();
    eventually("a call that runs", async || (bound(&queen, "calls").await.0 == Some(1.0)).then_some(())).await;
    let mut client = FleetServiceClient::new(queen.channel().await);
    exhausted(&client.list_hives(ListHivesRequest::default()).await.unwrap_err());
    waiting.write_all(&[0; 5]).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, waiting.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    eventually("the place is free", async || client.list_hives(ListHivesRequest::default()).await.ok()).await;
    assert_eq!(bound(&queen, "calls").await, (Some(0.0), 1.0, Some(1.0)));
    let all = scrape(&queen).await;
    let calls = |code: &str| {
        all.get(&format!("rbee_queen_calls_total{{method=\"rbee.v1.FleetService/ListHives\",code=\"{code}\"}}"))
            .copied()
    };
    assert_eq!((calls("OK"), calls("RESOURCE_EXHAUSTED")), (Some(2.0), Some(1.0)), "{all:?}");
    let took = "rbee_queen_call_duration_seconds_count{method=\"rbee.v1.FleetService/ListHives\"}";
    assert_eq!(all[took], 3.0);
}

#[tokio::test]
async fn q4_watchers_and_hives_beyond_their_bounds_are_told_when_to_come_again() {
    let queen = Running::start(|config| (config.max_watchers, config.max_hives) = (1, 1)).await;
    let mut client = FleetServiceClient::new(queen.channel().await);
    let watch = client.watch(WatchRequest::default()).await.unwrap();
    exhausted(&client.watch(WatchRequest::default()).await.unwrap_err());
    assert_eq!(bound(&queen, "watchers").await, (Some(1.0), 1.0, Some(1.0)));
    drop(watch);
    eventually("the place", async || client.watch(WatchRequest::default()).await.ok()).await;

    let first = Session::open(&queen, hive("a")).await.unwrap();
    exhausted(&Session::open(&queen, hive("b")).await.map(drop).unwrap_err());
    assert_eq!(bound(&queen, "hives").await, (Some(1.0), 1.0, Some(1.0)));
    first.cut();
}

#[tokio::test]
async fn q4_reservations_beyond_the_bound_are_told_when_to_come_again() {
    let queen = Running::start(|config| config.max_reserving = 0).await;
    let claim = Claim { what: Some(What::AnyWorker(WorkerClaim { idle: true, ..WorkerClaim::default() })) };
    let request = ReserveRequest { claims: vec![claim], ..ReserveRequest::default() };
    let refused = SchedulerServiceClient::new(queen.channel().await).reserve(request).await.unwrap_err();
    exhausted(&refused);
    assert_eq!(refused.message(), "0 reservations are already being made");
    assert_eq!(bound(&queen, "reserving").await, (Some(0.0), 0.0, Some(1.0)));
}

#[tokio::test]
async fn b1_frames_beyond_a_bound_are_counted_and_the_stream_goes_on() {
    let queen = Running::start(|config| (config.max_workers, config.max_frame_bytes) = (2, 4_096)).await;
    let mut session = Session::open(&queen, hive("a")).await.unwrap();
    session.snapshot(vec![row("a", 1, 1.0), row("a", 2, 1.0), row("a", 3, 1.0)]).await;
    session.snapshot((1..=100).map(|slot| row("a", slot, 1.0)).collect()).await;
    session.snapshot(vec![row("a", 1, 1.0), row("a", 2, f64::NAN)]).await;
    let books = session.goodbye().await.unwrap();
    assert_eq!((books.frames_accepted, books.frames_refused, books.fields_dropped), (1, 2, 1));
    assert_eq!(bound(&queen, "workers_per_hive").await, (Some(2.0), 2.0, Some(1.0)));
    assert_eq!(bound(&queen, "frame_bytes").await, (None, 4_096.0, Some(1.0)));
    let all = scrape(&queen).await;
    for (name, value) in [
        ("rbee_queen_frames_total{outcome=\"accepted\"}", 1.0),
        ("rbee_queen_frames_total{outcome=\"refused\"}", 2.0),
        ("rbee_queen_frames_total{outcome=\"replayed\"}", 0.0),
        ("rbee_queen_samples_total", 2.0),
        ("rbee_queen_fields_dropped_total", 1.0),
        ("rbee_queen_workers{freshness=\"stale\"}", 2.0),
        ("rbee_queen_hives{freshness=\"stale\"}", 1.0),
    ] {
        assert_eq!(all.get(name), Some(&value), "{name} in {all:?}");
    }
}

#[tokio::test]
async fn headers_beyond_the_bound_are_refused() {
    let queen = Running::start(|config| config.max_header_bytes = 9_000).await;
    let answer = http(&queen, &format!("GET / HTTP/1.1\r\nx-long: {}", "x".repeat(8_000))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = http(&queen, &format!("GET / HTTP/1.1\r\nx-long: {}", "x".repeat(64_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn fields_that_end_a_stream_or_a_connection_are_counted_too() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    let queen = Running::start(|config| config.max_header_bytes = 9_000).await;
    let mut stream = TcpStream::connect(queen.address).await.unwrap();
    let method = b"/rbee.v1.FleetService/ListHives";
    // POST and http, the path, then the type that the router wants before it waits for the body.
    let kind = b"application/grpc";
    let asking = [&[0x83, 0x86, 0x04, method.len() as u8], &method[..], &[0x0f, 0x10, kind.len() as u8], kind].concat();
    // One field called "x", of 10,000 bytes.
    let late = [&[0, 1, b'x', 0x7f, 0x91, 0x4d][..], &[b'v'; 10_000]].concat();
    let mut said = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    said.extend(frame(SETTINGS, 0, 0, &[]));
    said.extend([frame(HEADERS, 4, 1, &asking), frame(HEADERS, 5, 1, &late), frame(HEADERS, 0, 3, &[])].concat());
    (0..3).for_each(|_| said.extend(frame(CONTINUATION, 0, 3, &[0; 16_000])));
    stream.write_all(&said).await.unwrap();
    let mut ended = Vec::new();
    let listening = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            match head[3] {
                RST_STREAM => ended.push((RST_STREAM, payload[3])),
                GOAWAY => ended.push((GOAWAY, payload[7])),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, listening).await.unwrap();
    assert_eq!(ended, [(RST_STREAM, 1), (GOAWAY, 11)], "a protocol error, then calm");
    assert_eq!(bound(&queen, "header_bytes").await, (None, 9_000.0, Some(2.0)));
}

#[tokio::test]
async fn metrics_come_in_both_formats_without_a_series_for_a_worker() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot((1..=50).map(|slot| row("box", slot, 1.0)).collect()).await;
    eventually("the workers", async || {
        (scrape(&queen).await.get("rbee_queen_workers{freshness=\"live\"}") == Some(&50.0)).then_some(())
    })
    .await;
    let open =
        http(&queen, "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0,text/plain").await;
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n"));
    let classic = http(&queen, "GET /metrics HTTP/1.1").await;
    assert!(!classic.contains("# EOF") && !classic.contains("llm") && !classic.contains("box"), "{classic}");
    let all = scrape(&queen).await;
    for name in [
        "rbee_queen_build_info{version=\"0.1.0\"}",
        "rbee_queen_index_objects{kind=\"live\"}",
        "rbee_queen_index_objects{kind=\"tombstone\"}",
        "rbee_queen_revisions_total",
        "rbee_queen_watchers_cut_total",
        "rbee_queen_conflated_total",
        "rbee_queen_streams",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
    ] {
        assert!(all.contains_key(name), "{name} in {all:?}");
    }
    for name in [
        "connections",
        "connections_per_address",
        "streams_per_connection",
        "header_bytes",
        "request_bytes",
        "reserving",
    ] {
        assert!(bound(&queen, name).await.1 > 0.0, "{name}");
    }
}
