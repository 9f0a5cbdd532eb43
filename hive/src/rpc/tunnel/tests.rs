//! The tunnel against a queen that takes it in and calls through it when a test says so.

use super::*;
use crate::rpc::services::{Caller, Services};
use crate::templates::Templates;
use crate::worker::{Life, LifeConfig};
use bytes::Bytes;
use common::HiveId;
use common::tunnel::Pipe;
use hyper_util::rt::TokioIo;
use proto::hive_service_server::{HiveService, HiveServiceServer};
use proto::worker_service_client::WorkerServiceClient;
use proto::{AttachRequest, AttachResponse};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status, Streaming};

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers Attach as it is told to, and hands every tunnel to the test.
struct Taker {
    attached: mpsc::UnboundedSender<(String, Channel)>,
    refusals: std::sync::Mutex<Vec<Status>>,
    /// When the newest tunnel was asked for, as the hive says.
    sent: std::sync::atomic::AtomicU64,
    /// While this is so, nothing is sent to the hive.
    held: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl HiveService for Taker {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn register(&self, _: Request<proto::RegisterRequest>) -> Result<Response<proto::RegisterResponse>, Status> {
        Err(Status::unimplemented("tunnels only"))
    }

    async fn push_telemetry(
        &self,
        _: Request<Streaming<proto::PushTelemetryRequest>>,
    ) -> Result<Response<proto::PushTelemetryResponse>, Status> {
        Err(Status::unimplemented("tunnels only"))
    }

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        if let Some(status) = self.refusals.lock().unwrap().pop() {
            return Err(status);
        }
        let mut incoming = request.into_inner();
        let AttachRequest { session, sent_boottime_ns, .. } = incoming.message().await?.unwrap();
        let sent = sent_boottime_ns.expect("a time");
        assert!(self.sent.swap(sent, std::sync::atomic::Ordering::Relaxed) < sent, "which of them is the later one?");
        let (sender, waiting) = mpsc::channel::<Bytes>(4);
        let incoming = incoming.map(|message| message.map(|message| message.data).map_err(io::Error::other));
        let mut pipe = Some(Pipe::new(incoming, sender, CancellationToken::new()));
        let connect = tower::service_fn(move |_: Uri| {
            std::future::ready(pipe.take().map(TokioIo::new).ok_or_else(|| io::Error::other("the tunnel has ended")))
        });
        let channel = Endpoint::from_static("http://hive").connect_with_connector_lazy(connect);
        self.attached.send((session, channel)).unwrap();
        let first = tokio_stream::once(Ok(AttachResponse::default()));
        let held = self.held.clone();
        let data = ReceiverStream::new(waiting).then(move |data| {
            let mut held = held.clone();
            async move {
                held.wait_for(|held| !held).await.unwrap();
                Ok(AttachResponse { data })
            }
        });
        Ok(Response::new(Box::pin(first.chain(data))))
    }
}

struct Place {
    attached: mpsc::UnboundedReceiver<(String, Channel)>,
    sessions: watch::Sender<Option<Session>>,
    stopping: CancellationToken,
    held: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    _state: tempfile::TempDir,
}

impl Place {
    async fn new(idle: Duration, refusals: Vec<Status>) -> Self {
        let (sender, attached) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (held, holds) = watch::channel(false);
        let taker = Taker { attached: sender, refusals: std::sync::Mutex::new(refusals), sent: 0.into(), held: holds };
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tonic::transport::Server::builder().add_service(HiveServiceServer::new(taker));
        tokio::spawn(server.serve_with_incoming(incoming));

        let state = tempfile::tempdir().unwrap();
        let stopping = CancellationToken::new();
        let config = LifeConfig {
            hive: HiveId::parse("box").unwrap(),
            advertise: "127.0.0.1".to_owned(),
            state_dir: state.path().to_owned(),
            slice: "tunnel.slice".to_owned(),
            cgroup_root: Some("/nowhere".into()),
            proc_root: "/proc".into(),
            gpu_lock_dir: state.path().join("gpus"),
        };
        let life = Life::open(config, watch::Sender::default().subscribe(), stopping.clone()).await.unwrap();
        let about = Arc::new(|| proto::DescribeHiveResponse { pid: 7, ..Default::default() });
        let services = Services { life, templates: Arc::new(Templates::new(None)), about, stopping: stopping.clone() };
        let sessions = watch::Sender::new(Some(session("s1")));
        let served: Served = Arc::new(move || services.routes(Caller::Network));
        let tunnel = Tunnel::new(url, common::link::Access::default(), sessions.subscribe(), served, idle);
        let running = tokio::spawn(tunnel.run(stopping.clone()));
        Self { attached, sessions, stopping, held, running, _state: state }
    }

    async fn next(&mut self) -> (String, Channel) {
        tokio::time::timeout(PATIENCE, self.attached.recv()).await.expect("a tunnel in time").unwrap()
    }
}

fn session(name: &str) -> Session {
    Session { name: name.to_owned(), window: Some((Duration::from_millis(10), Duration::from_millis(20))) }
}

async fn describe(channel: &Channel) -> Result<u32, Status> {
    let mut client = WorkerServiceClient::new(channel.clone());
    let asking = client.describe_hive(proto::DescribeHiveRequest::default());
    Ok(tokio::time::timeout(PATIENCE, asking).await.unwrap()?.into_inner().pid)
}

async fn follow(channel: &Channel) -> Streaming<proto::StreamEventsResponse> {
    let request = proto::StreamEventsRequest { follow: true, ..Default::default() };
    WorkerServiceClient::new(channel.clone()).stream_events(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn an_idle_tunnel_is_left_for_the_next_one_and_one_in_use_is_not() {
    let mut place = Place::new(Duration::from_millis(200), vec![]).await;
    let (_, first) = place.next().await;
    let events = follow(&first).await;
    // Longer than it may be idle: a stream that says nothing is in use.
    let none = tokio::time::timeout(Duration::from_millis(600), place.attached.recv()).await;
    assert!(none.is_err(), "the next one was dialled while a call ran");
    drop(events);
    let (named, second) = place.next().await;
    assert_eq!(named, "s1");
    assert_eq!(describe(&second).await.unwrap(), 7);
    // The first takes no calls any more; whoever kept it is told so.
    let gone = async { while describe(&first).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    place.stopping.cancel();
    tokio::time::timeout(PATIENCE, place.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_that_are_given_up_together_end_no_other_call() {
    let mut place = Place::new(IDLE, vec![]).await;
    let (_, tunnel) = place.next().await;
    let mut events = follow(&tunnel).await;
    place.held.send_replace(true);
    // The queen's calls have deadlines. Of these the hive hears when they are over.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let tunnel = tunnel.clone();
        calls.spawn(async move { tokio::time::timeout(Duration::from_millis(200), describe(&tunnel)).await });
    }
    assert!(calls.join_all().await.iter().all(Result::is_err));
    place.held.send_replace(false);
    assert_eq!(describe(&tunnel).await.unwrap(), 7, "the tunnel is the same");
    let more = tokio::time::timeout(Duration::from_millis(100), events.message()).await;
    assert!(more.is_err(), "who follows events still does: {more:?}");
    place.stopping.cancel();
}

#[tokio::test]
async fn a_tunnel_that_nobody_uses_stays() {
    let mut place = Place::new(Duration::from_millis(50), vec![]).await;
    let (_, first) = place.next().await;
    let none = tokio::time::timeout(Duration::from_millis(400), place.attached.recv()).await;
    assert!(none.is_err(), "it was never used, and left");
    assert_eq!(describe(&first).await.unwrap(), 7);
    place.stopping.cancel();
}

#[tokio::test]
async fn t2_a_fenced_session_does_not_dial_again_and_the_next_one_does() {
    let mut place = Place::new(IDLE, vec![Status::aborted("superseded")]).await;
    let none = tokio::time::timeout(Duration::from_millis(300), place.attached.recv()).await;
    assert!(none.is_err(), "a fenced session dialled again");
    place.sessions.send_replace(Some(session("s2")));
    assert_eq!(place.next().await.0, "s2");
    // And a newer one takes its place while it is open.
    place.sessions.send_replace(Some(session("s3")));
    assert_eq!(place.next().await.0, "s3");
    place.stopping.cancel();
    tokio::time::timeout(PATIENCE, place.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_queen_that_has_no_room_is_asked_again() {
    let refusals = vec![Status::resource_exhausted("full"), Status::unavailable("stopping")];
    let mut place = Place::new(IDLE, refusals).await;
    assert_eq!(place.next().await.0, "s1");
    place.stopping.cancel();
}

#[tokio::test]
async fn from_the_network_no_command_line_is_started() {
    let mut place = Place::new(IDLE, vec![]).await;
    let (_, channel) = place.next().await;
    let mut client = WorkerServiceClient::new(channel);
    let command = vec!["sleep".to_owned(), "1".to_owned()];
    let status = client.start_worker(proto::StartWorkerRequest { command, ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let target = "1".to_owned();
    let status = client.observe_worker(proto::ObserveWorkerRequest { target, ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let template = "llama".to_owned();
    let status = client.start_worker(proto::StartWorkerRequest { template, ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let other = proto::DescribeHiveRequest { hive: "den".to_owned() };
    assert_eq!(client.describe_hive(other).await.unwrap_err().code(), Code::NotFound);
    place.stopping.cancel();
}
