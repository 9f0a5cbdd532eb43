//! TLS and tokens on the one port, as hives, people and browsers meet them.

use crate::harness::{PATIENCE, Running, eventually, hive};
use crate::papers::{For, Papers, SECRET, replace};
use common::link::{Access, Channel, LinkError, TokenSource};
use common::tls::TlsFiles;
use common::token::Token;
use proto::fleet_service_client::FleetServiceClient;
use proto::hive_service_client::HiveServiceClient;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::{ForgetHiveRequest, ListHivesRequest, PushTelemetryRequest, RegisterRequest, ReserveRequest, WatchRequest};
use queen::{BindError, Config, Queen};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};

/// A queen with TLS, and with tokens if there are any.
async fn start(papers: &Papers) -> Running {
    Running::start(|config| secure(config, papers)).await
}

fn secure(config: &mut Config, papers: &Papers) {
    config.tls = Some(TlsFiles { cert: papers.cert(), key: papers.key() });
    let tokens = std::fs::read_dir(papers.tokens()).unwrap().count();
    config.token_dir = (tokens > 0).then(|| papers.tokens());
    config.reread = Duration::from_millis(20);
}

fn access(papers: &Papers, token: Option<&str>) -> Access {
    let token = token.map_or(TokenSource::None, |name| TokenSource::File(papers.token(name)));
    Access { tls_ca: Some(papers.ca()), tls_name: None, token }
}

async fn dial(queen: &Running, access: &Access) -> Result<Channel, LinkError> {
    access.connect(&format!("https://{}", queen.address), |endpoint| endpoint).await
}

async fn fleet(queen: &Running, papers: &Papers, token: Option<&str>) -> FleetServiceClient<Channel> {
    FleetServiceClient::new(dial(queen, &access(papers, token)).await.unwrap())
}

async fn hives(queen: &Running, papers: &Papers, token: Option<&str>) -> Result<usize, Status> {
    let answer = fleet(queen, papers, token).await.list_hives(ListHivesRequest::default()).await?;
    Ok(answer.into_inner().hives.len())
}

/// A TLS connection as browsers and tools make it, over the protocols that it names.
async fn raw(queen: &Running, papers: &Papers, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(papers.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(queen.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

async fn http(queen: &Running, papers: &Papers, head: &str, body: &[u8]) -> String {
    let mut stream = raw(queen, papers, &["http/1.1"]).await;
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[request.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("\r\nauthorization: Bearer {token}")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nhost: localhost{token}")
}

fn grpc_web(method: &str, token: &str) -> String {
    format!(
        "POST {method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n\
         origin: https://localhost\r\nauthorization: Bearer {token}"
    )
}

/// How often something that had changed on disk could not be used.
async fn failed_renewals(queen: &Running, papers: &Papers, token: Option<&str>) -> u64 {
    let page = http(queen, papers, &get("/metrics", token), b"").await;
    let line = page.lines().find_map(|line| line.strip_prefix("rbee_queen_renewals_total{outcome=\"failed\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn tls_carries_grpc_grpc_web_and_pages_on_one_port() {
    let papers = Papers::new();
    let viewer = papers.give("viewer");
    let queen = start(&papers).await;
    assert_eq!(hives(&queen, &papers, Some("viewer")).await.unwrap(), 0);
    let page = http(&queen, &papers, &get("/", None), b"").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("text/html"), "{page}");
    let listed = http(&queen, &papers, &grpc_web("/rbee.v1.FleetService/ListHives", &viewer), &[0; 5]).await;
    assert!(listed.starts_with("HTTP/1.1 200") && listed.contains("grpc-status:0"), "{listed}");
    let forgotten = http(&queen, &papers, &grpc_web("/rbee.v1.FleetService/ForgetHive", &viewer), &[0; 5]).await;
    assert!(forgotten.contains("grpc-status: 7"), "{forgotten}");
    let h2 = raw(&queen, &papers, &["h2", "http/1.1"]).await;
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // Names in the certificate are answered, others are not.
    for (host, answered) in [("queen.here", true), ("evil.example", false)] {
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {host}");
        assert_eq!(http(&queen, &papers, &head, b"").await.starts_with("HTTP/1.1 200"), answered, "{host}");
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_told_with_what_to_do() {
    let (papers, others) = (Papers::new(), Papers::new());
    let told = async |papers: &Papers, access: Access| {
        let queen = start(papers).await;
        dial(&queen, &access).await.map(drop).unwrap_err().to_string()
    };
    let stranger = told(&papers, access(&others, None)).await;
    assert!(stranger.contains("--tls-ca"), "{stranger}");
    papers.certify(For::Past);
    let expired = told(&papers, access(&papers, None)).await;
    assert!(expired.contains("expired"), "{expired}");
    papers.certify(For::Other);
    let other = told(&papers, access(&papers, None)).await;
    assert!(other.contains("--tls-name"), "{other}");
    let queen = start(&papers).await;
    let named = Access { tls_name: Some("queen.lab".to_owned()), ..access(&papers, None) };
    assert!(dial(&queen, &named).await.is_ok());
    let clear = Running::start(|_| {}).await;
    let told = dial(&clear, &access(&papers, None)).await.map(drop).unwrap_err().to_string();
    assert!(told.contains("does not speak TLS"), "{told}");
}

#[tokio::test]
async fn who_speaks_in_the_clear_to_tls_is_told_so() {
    let papers = Papers::new();
    let queen = start(&papers).await;
    let channel = queen.channel().await;
    let status = FleetServiceClient::new(channel).list_hives(ListHivesRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "this queen speaks TLS: use https://"));
    let mut stream = TcpStream::connect(queen.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("use https://\n"), "{answer}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let papers = Papers::new();
    let queen = start(&papers).await;
    let shown = async || {
        let stream = raw(&queen, &papers, &["h2"]).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let before = shown().await;
    let watch = fleet(&queen, &papers, None).await.watch(WatchRequest::default()).await.unwrap();
    papers.certify(For::Here);
    let renewed = eventually("the new certificate", async || Some(shown().await).filter(|now| *now != before)).await;
    assert_eq!(renewed, CertificateDer::from_pem_file(papers.cert()).unwrap());
    let whole = std::fs::read_to_string(papers.cert()).unwrap();
    let failed = async |before: u64| {
        eventually("a renewal that fails", async || {
            Some(failed_renewals(&queen, &papers, None).await).filter(|now| *now > before)
        })
        .await
    };
    let before = failed_renewals(&queen, &papers, None).await;
    replace(&papers.cert(), "not a certificate");
    let torn = failed(before).await;
    assert_eq!(shown().await, renewed);
    papers.certify(For::Here);
    let newest = eventually("the one after", async || Some(shown().await).filter(|now| *now != renewed)).await;
    // A certificate without its key is as good as none; what is shown stays.
    replace(&papers.cert(), &whole);
    failed(torn).await;
    assert_eq!(shown().await, newest);
    let mut watch = watch.into_inner();
    timeout(PATIENCE, watch.message()).await.unwrap().unwrap().expect("the watch goes on");
}

#[tokio::test]
async fn half_open_handshakes_are_ended() {
    let papers = Papers::new();
    let queen = start(&papers).await;
    let began = Instant::now();
    let mut open: Vec<(&str, Box<dyn tokio::io::AsyncRead + Unpin + Send>)> = Vec::new();
    for (what, first) in
        [("nothing", &b""[..]), ("a torn hello", b"\x16\x03\x01\x02\x00\x01"), ("a torn request", b"GET / HT")]
    {
        let mut stream = TcpStream::connect(queen.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        open.push((what, Box::new(stream)));
    }
    for (what, protocol, first) in
        [("silence in h2", "h2", &b""[..]), ("a torn preface", "h2", b"PRI * HT"), ("silence in h1", "http/1.1", b"")]
    {
        let mut stream = raw(&queen, &papers, &[protocol]).await;
        stream.write_all(first).await.unwrap();
        open.push((what, Box::new(stream)));
    }
    for (what, mut stream) in open {
        let mut all = Vec::new();
        let _end_or_reset = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect(what);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// The status of a refusal, which must hold nothing of any token.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    assert!(!format!("{status:?} {status}").contains(SECRET), "{status:?}");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn each_role_reaches_so_far() {
    let papers = Papers::new();
    for name in ["viewer", "operator.ann", "hive.box", "viewer.gone"] {
        papers.give(name);
    }
    let queen = start(&papers).await;
    let (code, words) = refusal(hives(&queen, &papers, None).await);
    assert!(code == Code::Unauthenticated && words.contains("--token-file"), "{words}");
    let wrong = Token::parse(&format!("{SECRET}nobody's")).unwrap();
    let wrong = Access { token: TokenSource::Given(wrong), ..access(&papers, None) };
    let mut stranger = FleetServiceClient::new(dial(&queen, &wrong).await.unwrap());
    let (code, words) = refusal(stranger.list_hives(ListHivesRequest::default()).await);
    assert!(code == Code::Unauthenticated && words.contains("not known"), "{words}");

    for looks in ["viewer", "operator.ann"] {
        assert_eq!(hives(&queen, &papers, Some(looks)).await.unwrap(), 0, "{looks}");
    }
    let (code, words) = refusal(hives(&queen, &papers, Some("hive.box")).await);
    assert!(code == Code::PermissionDenied && words.ends_with("needs the role viewer"), "{words}");

    let mut viewer = SchedulerServiceClient::new(dial(&queen, &access(&papers, Some("viewer"))).await.unwrap());
    let (code, words) = refusal(viewer.reserve(ReserveRequest::default()).await);
    assert!(code == Code::PermissionDenied && words.ends_with("needs the role operator"), "{words}");
    let forget = ForgetHiveRequest::default();
    let (code, _) = refusal(fleet(&queen, &papers, Some("viewer")).await.forget_hive(forget.clone()).await);
    assert_eq!(code, Code::PermissionDenied);
    // Whatever comes of it, the operator gets past the guard.
    let (code, _) = refusal(fleet(&queen, &papers, Some("operator.ann")).await.forget_hive(forget).await);
    assert!(!matches!(code, Code::PermissionDenied | Code::Unauthenticated), "{code:?}");
    for no_hive in ["viewer", "operator.ann"] {
        let mut client = HiveServiceClient::new(dial(&queen, &access(&papers, Some(no_hive))).await.unwrap());
        let request = RegisterRequest { hive: Some(hive("box")), ..RegisterRequest::default() };
        let (code, words) = refusal(client.register(request).await);
        assert!(code == Code::PermissionDenied && words.ends_with("needs the role hive"), "{words}");
    }
}

#[tokio::test]
async fn pages_are_open_numbers_are_not() {
    let papers = Papers::new();
    let (viewer, operator, box_) = (papers.give("viewer"), papers.give("operator"), papers.give("hive.box"));
    let queen = start(&papers).await;
    for (path, token, status) in [
        ("/healthz", None, "200"),
        ("/", None, "200"),
        ("/metrics", None, "401"),
        ("/metrics", Some("0123456789abcdef-unknown"), "401"),
        ("/metrics", Some(box_.as_str()), "403"),
        ("/metrics", Some(viewer.as_str()), "200"),
        ("/metrics", Some(operator.as_str()), "200"),
        ("/rbee.v1.FleetService/ListHives", None, "401"),
    ] {
        let answer = http(&queen, &papers, &get(path, token), b"").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {status}: {answer}");
        assert!(!answer.contains(SECRET), "{answer}");
    }
    let scraped = http(&queen, &papers, &get("/metrics", Some(&viewer)), b"").await;
    for line in ["{reason=\"missing\"} 2", "{reason=\"unknown\"} 1", "{reason=\"role\"} 1"] {
        assert!(scraped.contains(&format!("rbee_queen_auth_failures_total{line}")), "{scraped}");
    }
    let health = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let channel = dial(&queen, &access(&papers, None)).await.unwrap();
    assert!(tonic_health::pb::health_client::HealthClient::new(channel).check(health).await.is_ok());
    use tonic_reflection::pb::v1 as reflection;
    let asked = async |token: Option<&str>| {
        let channel = dial(&queen, &access(&papers, token)).await.unwrap();
        let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel);
        let list = reflection::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = reflection::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        client.server_reflection_info(tokio_stream::once(request)).await.map(drop)
    };
    assert_eq!(asked(None).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(asked(Some("viewer")).await.is_ok());
}

#[tokio::test]
async fn b5_a_hives_token_writes_only_its_own_hive() {
    let papers = Papers::new();
    for name in ["hive.a", "hive.b"] {
        papers.give(name);
    }
    let queen = start(&papers).await;
    let client = async |token: &str| HiveServiceClient::new(dial(&queen, &access(&papers, Some(token))).await.unwrap());
    let request = |id: &str| RegisterRequest { hive: Some(hive(id)), ..RegisterRequest::default() };
    let (code, words) = refusal(client("hive.a").await.register(request("b")).await);
    assert!(code == Code::PermissionDenied && words.contains("hive a's"), "{words}");
    let session = client("hive.b").await.register(request("b")).await.unwrap().into_inner().session;
    let frame = PushTelemetryRequest { session, sequence: 1, ..PushTelemetryRequest::default() };
    let (code, words) = refusal(client("hive.a").await.push_telemetry(tokio_stream::once(frame.clone())).await);
    assert!(code == Code::PermissionDenied && words.contains("hive a's"), "{words}");
    let books = client("hive.b").await.push_telemetry(tokio_stream::once(frame)).await.unwrap().into_inner();
    assert_eq!(books.frames_accepted, 1, "the refused push has written nothing");
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_its_calls_and_a_broken_directory_brings_nothing_new() {
    let papers = Papers::new();
    for name in ["viewer.a", "viewer.b", "hive.box"] {
        papers.give(name);
    }
    let late = papers.give("viewer.late");
    let queen = start(&papers).await;
    let watch = async |token: &str| {
        let request = WatchRequest::default();
        fleet(&queen, &papers, Some(token)).await.watch(request).await.unwrap().into_inner()
    };
    let (mut leaves, mut stays) = (watch("viewer.a").await, watch("viewer.b").await);
    let mut boxed = HiveServiceClient::new(dial(&queen, &access(&papers, Some("hive.box"))).await.unwrap());
    let push = tokio::spawn(async move { boxed.push_telemetry(tokio_stream::pending()).await.map(drop) });
    let away = Token::read(&papers.token("viewer.a")).unwrap();
    std::fs::remove_file(papers.token("viewer.a")).unwrap();
    std::fs::remove_file(papers.token("hive.box")).unwrap();
    let ended = async {
        loop {
            if let Err(status) = leaves.message().await {
                return status;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, ended).await.unwrap().code(), Code::Unauthenticated);
    let (code, _) = refusal(timeout(PATIENCE, push).await.unwrap().unwrap());
    assert_eq!(code, Code::Unauthenticated);
    let access = Access { token: TokenSource::Given(away), ..access(&papers, None) };
    let mut gone = FleetServiceClient::new(dial(&queen, &access).await.unwrap());
    assert_eq!(refusal(gone.list_hives(ListHivesRequest::default()).await).0, Code::Unauthenticated);
    // One bad file among them: those that are known stay known, and the next good state counts.
    replace(&papers.token("admin"), "0123456789abcdef");
    let viewer = papers.give("viewer.c");
    let known = Token::read(&papers.token("viewer.b")).unwrap();
    let known = known.header().to_str().unwrap().replace("Bearer ", "");
    eventually("a renewal that fails", async || {
        (failed_renewals(&queen, &papers, Some(&known)).await > 0).then_some(())
    })
    .await;
    let unknown = http(&queen, &papers, &get("/metrics", Some(&viewer)), b"").await;
    assert!(unknown.starts_with("HTTP/1.1 401"), "{unknown}");
    // Whose own file goes is refused all the same.
    let asked = async || http(&queen, &papers, &get("/metrics", Some(&late)), b"").await;
    assert!(asked().await.starts_with("HTTP/1.1 200"));
    std::fs::remove_file(papers.token("viewer.late")).unwrap();
    eventually("a refusal", async || asked().await.starts_with("HTTP/1.1 401").then_some(())).await;
    assert!(hives(&queen, &papers, Some("viewer.b")).await.is_ok());
    std::fs::remove_file(papers.token("admin")).unwrap();
    eventually("the new token", async || hives(&queen, &papers, Some("viewer.c")).await.ok()).await;
    timeout(PATIENCE, stays.message()).await.unwrap().unwrap().expect("the other watch goes on");
}

#[tokio::test]
async fn an_address_that_others_reach_needs_tls_and_tokens() {
    let papers = Papers::new();
    papers.give("operator");
    let tls = Some(TlsFiles { cert: papers.cert(), key: papers.key() });
    let exposed = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::default() };
    for (tls, token_dir, wanted) in [
        (None, None, "set --tls-cert, --tls-key and --token-dir"),
        (tls.clone(), None, "set --token-dir"),
        (None, Some(papers.tokens()), "set --tls-cert and --tls-key"),
    ] {
        let config = Config { tls, token_dir, ..exposed.clone() };
        let error = Queen::bind(config.clone()).await.unwrap_err();
        assert!(matches!(error, BindError::Exposed { .. }) && error.to_string().contains(wanted), "{error}");
        assert!(Queen::bind(Config { insecure: true, ..config }).await.is_ok());
    }
    let both = Config { tls, token_dir: Some(papers.tokens()), ..exposed };
    assert!(Queen::bind(both.clone()).await.is_ok());
    std::fs::write(papers.token("admin"), "x").unwrap();
    assert!(matches!(Queen::bind(both).await, Err(BindError::Guard(_))));
}
