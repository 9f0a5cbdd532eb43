//! The one port as browsers and foreign tools meet it.

use crate::harness::{PATIENCE, Running, Session, eventually, hive, row};
use prost::Message;
use proto::{ListWorkersRequest, ListWorkersResponse};
use queen::{BindError, Config, Queen};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// One HTTP/1.1 request; status line with headers, and the body.
async fn http(queen: &Running, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(queen.address).await.unwrap();
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[request.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}")
}

fn grpc_web(method: &str) -> String {
    format!("POST {method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\nx-grpc-web: 1")
}

/// A chunked body as one piece.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    whole
}

#[tokio::test]
async fn the_pages_stand_beside_grpc() {
    let queen = Running::start(|_| {}).await;
    let (head, body) = http(&queen, &get("/healthz", "localhost"), b"").await;
    assert!(head.starts_with("http/1.1 200") && body == b"ok", "{head}");
    let (head, _) = http(&queen, &get("/", "localhost"), b"").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-security-policy: default-src 'self'"), "{head}");
    assert!(head.contains("text/html") && head.contains("no-cache"), "{head}");
    let (head, _) = http(&queen, &get("/nothing", "localhost"), b"").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
}

#[tokio::test]
async fn other_hosts_and_origins_are_refused() {
    let queen = Running::start(|config| config.allowed_hosts = vec!["queen.lab".into()]).await;
    let (head, _) = http(&queen, &get("/healthz", "evil.example"), b"").await;
    assert!(head.starts_with("http/1.1 403"), "{head}");
    assert!(http(&queen, &get("/healthz", "queen.lab:80"), b"").await.0.starts_with("http/1.1 200"));
    let foreign = format!("{}\r\norigin: http://evil.example", grpc_web("/rbee.v1.FleetService/ListHives"));
    let (head, _) = http(&queen, &foreign, &[0; 5]).await;
    assert!(head.contains("grpc-status: 7"), "{head}");
}

#[tokio::test]
async fn grpc_web_over_http1_answers() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    let request = ListWorkersRequest::default().encode_to_vec();
    let framed = [&[0], &(request.len() as u32).to_be_bytes()[..], &request].concat();
    let answer = eventually("the worker", async || {
        let (head, body) = http(&queen, &grpc_web("/rbee.v1.FleetService/ListWorkers"), &framed).await;
        assert!(head.starts_with("http/1.1 200") && head.contains("application/grpc-web"), "{head}");
        let body = unchunk(&body);
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        let answer = ListWorkersResponse::decode(&body[5..5 + length]).unwrap();
        assert!(String::from_utf8_lossy(&body[5 + length..]).contains("grpc-status:0"));
        Some(answer).filter(|answer| !answer.workers.is_empty())
    });
    assert_eq!(answer.await.workers.len(), 1);
}

#[tokio::test]
async fn an_unknown_grpc_path_is_unimplemented_and_no_page() {
    let queen = Running::start(|_| {}).await;
    let (head, body) = http(&queen, &grpc_web("/rbee.v1.NoService/Do"), &[0; 5]).await;
    assert!(head.contains("grpc-status: 12") && body.is_empty(), "{head}");
    let channel = queen.channel().await;
    // Hives alone serve it.
    let mut client = proto::grant_service_client::GrantServiceClient::new(channel);
    let status = client.list_holds(proto::ListHoldsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn health_and_both_reflections_are_served() {
    let queen = Running::start(|_| {}).await;
    let channel = queen.channel().await;
    for service in
        ["", "rbee.v1.HiveService", "rbee.v1.FleetService", "rbee.v1.SchedulerService", "rbee.v1.WorkerService"]
    {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as pb;
            let message_request = Some(pb::server_reflection_request::MessageRequest::ListServices(String::new()));
            let request = pb::ServerReflectionRequest { host: String::new(), message_request };
            let mut client = pb::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let stream = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
            let answer = stream.into_inner().message().await.unwrap().unwrap();
            match answer.message_response {
                Some(pb::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    for services in [services!(v1), services!(v1alpha)] {
        for name in ["rbee.v1.HiveService", "rbee.v1.FleetService", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|service| service == name), "{name} in {services:?}");
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_explained() {
    let exposed = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::default() };
    let error = Queen::bind(exposed.clone()).await.unwrap_err();
    assert!(matches!(error, BindError::Exposed { .. }) && error.to_string().contains("--insecure"), "{error}");
    assert!(Queen::bind(Config { insecure: true, ..exposed }).await.is_ok());
    let first = Running::start(|_| {}).await;
    let error = Queen::bind(Config { listen: first.address, ..Config::default() }).await.unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.contains(&first.address.to_string()) && sentence.contains("taken"), "{sentence}");
}

#[tokio::test]
async fn who_does_not_say_what_it_wants_is_not_waited_for() {
    let queen = Running::start(|_| {}).await;
    let began = Instant::now();
    let watch = format!("{}\r\ncontent-length: 50\r\n\r\n", grpc_web("/rbee.v1.FleetService/Watch"));
    let mut open = Vec::new();
    for unfinished in ["", "P", "PRI * HT", "GET / HT", &watch] {
        let mut stream = TcpStream::connect(queen.address).await.unwrap();
        stream.write_all(unfinished.as_bytes()).await.unwrap();
        open.push((unfinished, stream));
    }
    for (unfinished, mut stream) in open {
        let mut answer = [0; 1_024];
        let _end_or_refusal = timeout(PATIENCE, stream.read(&mut answer)).await.expect(unfinished);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_question_that_is_too_large_is_refused() {
    let queen = Running::start(|_| {}).await;
    let request = ListWorkersRequest { page_token: "x".repeat(65 * 1024), ..ListWorkersRequest::default() };
    let mut client = proto::fleet_service_client::FleetServiceClient::new(queen.channel().await);
    assert_eq!(client.list_workers(request).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    let filter = proto::Filter { model: "x".repeat(65 * 1024), ..proto::Filter::default() };
    let watch = proto::WatchRequest { filter: Some(filter), ..proto::WatchRequest::default() };
    assert_eq!(client.watch(watch).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    let stop = proto::StopWorkerRequest { name: "x".repeat(65 * 1024), ..proto::StopWorkerRequest::default() };
    let mut workers = proto::worker_service_client::WorkerServiceClient::new(queen.channel().await);
    assert_eq!(workers.stop_worker(stop).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    let mut fields = tonic::Request::new(ListWorkersRequest::default());
    fields.metadata_mut().insert("x-long", "x".repeat(20 * 1024).parse().unwrap());
    let status = client.list_workers(fields).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    let scraped = http(&queen, &get("/metrics", "localhost"), b"").await.1;
    let scraped = String::from_utf8(scraped).unwrap();
    for (bound, times) in [("request_bytes", 3), ("header_bytes", 1)] {
        let line = format!("rbee_queen_bound_refused_total{{bound=\"{bound}\"}} {times}\n");
        assert!(scraped.contains(&line), "{line}{scraped}");
    }
}

#[tokio::test]
async fn s2_a_peer_that_answers_no_ping_is_cut_within_five_seconds() {
    let queen = Running::start(|_| {}).await;
    let mut stream = TcpStream::connect(queen.address).await.unwrap();
    // The preface and empty settings of HTTP/2; then nothing is ever answered.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let began = Instant::now();
    let _reset_or_end = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
}
