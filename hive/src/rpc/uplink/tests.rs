//! The uplink against a queen that writes down what it is told and answers as a test wishes.

use super::*;
use crate::roster::{Footing, Member, Roster};
use crate::round::{Round, Sample};
use common::WorkerId;
use proto::hive_service_server::{HiveService, HiveServiceServer};
use proto::push_telemetry_request::Frame;
use proto::{PushTelemetryRequest, PushTelemetryResponse, RegisterRequest, RegisterResponse};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Mutex, mpsc};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(10);

/// Forwards every frame; answers Register and ends pushes as told.
struct Recorder {
    frames: mpsc::UnboundedSender<PushTelemetryRequest>,
    refusals: Mutex<Vec<Status>>,
    /// When each Register was sent, as it says.
    sent: mpsc::UnboundedSender<Option<u64>>,
}

#[tonic::async_trait]
impl HiveService for Recorder {
    type AttachStream = tokio_stream::Empty<Result<proto::AttachResponse, Status>>;

    async fn attach(
        &self,
        _: Request<tonic::Streaming<proto::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("no tunnels here"))
    }

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let _the_test_does_not_ask = self.sent.send(request.get_ref().sent_boottime_ns);
        if let Some(status) = self.refusals.lock().await.pop() {
            return Err(status);
        }
        Ok(Response::new(RegisterResponse { session: "s1".into(), epoch: 1, ..RegisterResponse::default() }))
    }

    async fn push_telemetry(
        &self,
        request: Request<Streaming<PushTelemetryRequest>>,
    ) -> Result<Response<PushTelemetryResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(frame) = stream.message().await? {
            self.frames.send(frame).map_err(|_| Status::unavailable("the test ended"))?;
        }
        Ok(Response::new(PushTelemetryResponse::default()))
    }
}

struct Scene {
    url: String,
    frames: mpsc::UnboundedReceiver<PushTelemetryRequest>,
    sent: mpsc::UnboundedReceiver<Option<u64>>,
    rounds: watch::Sender<Arc<Round>>,
    roster: watch::Sender<Arc<Roster>>,
    hive: watch::Sender<Arc<proto::Hive>>,
    stopping: CancellationToken,
}

async fn scene(refusals: Vec<Status>) -> Scene {
    let (sender, frames) = mpsc::unbounded_channel();
    let (sending, sent) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = HiveServiceServer::new(Recorder { frames: sender, refusals: Mutex::new(refusals), sent: sending });
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    Scene {
        url,
        frames,
        sent,
        rounds: watch::Sender::new(Arc::new(Round::empty(Instant::now(), SystemTime::now()))),
        roster: watch::Sender::new(Arc::new(Roster::default())),
        hive: watch::Sender::new(Arc::new(proto::Hive { id: "box".into(), ..proto::Hive::default() })),
        stopping: CancellationToken::new(),
    }
}

impl Scene {
    fn uplink(&self) -> (tokio::task::JoinHandle<()>, watch::Receiver<LinkState>) {
        let sources =
            Sources { roster: self.roster.subscribe(), rounds: self.rounds.subscribe(), hive: self.hive.subscribe() };
        let uplink = Uplink::new(self.url.clone(), Access::default(), "j".into(), sources);
        let state = uplink.state();
        (tokio::spawn(uplink.run(self.stopping.clone())), state)
    }

    async fn frame(&mut self) -> PushTelemetryRequest {
        tokio::time::timeout(PATIENCE, self.frames.recv()).await.expect("a frame in time").expect("the queen is there")
    }

    fn one_worker(&self, cpu: f64) {
        let spec = proto::WorkerSpec { group: "llm".into(), instance: "8080".into(), ..proto::WorkerSpec::default() };
        let member = Member {
            slot: 1,
            id: WorkerId::new("llm", "8080").unwrap(),
            spec,
            state: proto::WorkerState::Running,
            footing: Some(Footing { pid: 1, start_ticks: 1, cgroup: None, cgroup_inode: None }),
        };
        let stats = proto::ProcessStats { cpu_pct: Some(cpu), ..proto::ProcessStats::default() };
        let samples = vec![Sample { slot: 1, stats: Some(stats) }];
        self.rounds.send_replace(Arc::new(Round { samples, ..Round::empty(Instant::now(), SystemTime::now()) }));
        self.roster.send_if_modified(|roster| {
            let new = roster.members.is_empty();
            *roster = Arc::new(Roster { members: vec![Arc::new(member)] });
            new
        });
    }
}

#[tokio::test]
async fn send_heartbeat_posts_to_queen() {
    let mut scene = scene(vec![]).await;
    let (task, _) = scene.uplink();
    let first = scene.frame().await;
    assert_eq!((first.session.as_str(), first.sequence), ("s1", 1));
    assert!(matches!(first.frame, Some(Frame::Snapshot(snapshot)) if snapshot.last));
    scene.stopping.cancel();
    tokio::time::timeout(PATIENCE, task).await.expect("it stops").unwrap();
}

#[tokio::test]
async fn send_heartbeat_includes_workers() {
    let mut scene = scene(vec![]).await;
    scene.one_worker(50.0);
    let (_task, _) = scene.uplink();
    let Some(Frame::Snapshot(snapshot)) = scene.frame().await.frame else { panic!("no snapshot") };
    assert_eq!(snapshot.rows[0].spec.as_ref().unwrap().instance, "8080");
    assert_eq!(snapshot.rows[0].stats.as_ref().unwrap().cpu_pct, Some(50.0));
    scene.one_worker(51.0);
    let Some(Frame::Batch(batch)) = scene.frame().await.frame else { panic!("no batch") };
    assert_eq!(batch.columns.unwrap().cpu_pct.unwrap().deltas, vec![100]);
}

#[tokio::test]
async fn send_heartbeat_handles_collection_failure() {
    let mut scene = scene(vec![]).await;
    scene.one_worker(50.0);
    let (_task, _) = scene.uplink();
    scene.frame().await;
    let empty = Round::empty(Instant::now(), SystemTime::now());
    scene.rounds.send_replace(Arc::new(Round { failed: Some("no procfs".into()), ..empty }));
    let Some(Frame::Batch(batch)) = scene.frame().await.frame else { panic!("no batch") };
    assert_eq!((batch.failed.as_str(), batch.removed_slots.len()), ("no procfs", 0));
}

#[tokio::test]
async fn start_heartbeat_task_sends_every_1s() {
    const PERIOD_MS: u64 = 1_000;
    let mut scene = scene(vec![]).await;
    let (_task, _) = scene.uplink();
    scene.frame().await;
    let config = crate::sample::SampleConfig {
        proc_root: "/proc".into(),
        advertise: "box.lan".into(),
        period: Duration::from_millis(PERIOD_MS),
    };
    let view = crate::gpus::GpuView::default();
    let gpu = watch::Sender::new(Arc::new(view));
    let (mut sampling, tasks) =
        crate::sample::start(config, scene.roster.subscribe(), gpu.subscribe(), scene.stopping.clone()).unwrap();
    let mut stamps = Vec::new();
    while stamps.len() < 4 {
        tokio::time::timeout(PATIENCE, sampling.rounds.changed()).await.expect("a round in time").unwrap();
        scene.rounds.send_replace(sampling.rounds.borrow_and_update().clone());
        stamps.push(scene.frame().await.monotonic_ms);
    }
    scene.stopping.cancel();
    tasks.ended().await;
    // The first round may come at once; after it the ticks are a second apart, whatever the load on this machine.
    let gaps: Vec<u64> = stamps.windows(2).skip(1).map(|w| w[1] - w[0]).collect();
    assert!(gaps.iter().all(|gap| (PERIOD_MS - 400..=PERIOD_MS + 600).contains(gap)), "{stamps:?}");
}

#[tokio::test]
async fn what_is_granted_is_told_at_once_and_what_else_moves_with_the_next_round() {
    let mut scene = scene(vec![]).await;
    let (_task, _) = scene.uplink();
    scene.frame().await;
    let hive = |used: u64, holds: &[u64]| {
        let hold = |token: &u64| proto::Hold { fencing_token: *token, unused_vram_bytes: used, ..Default::default() };
        let holds = holds.iter().map(hold).collect();
        proto::Hive { holds, last_fencing_token: 2, worker_count: 7, ..Default::default() }
    };
    let ended = proto::Hive { last_fencing_token: 3, ..hive(2, &[1, 2]) };
    scene.hive.send_replace(hive(1, &[1]).into());
    assert_eq!(scene.frame().await.hive.unwrap().holds.len(), 1);
    scene.hive.send_replace(hive(2, &[1]).into());
    scene.hive.send_replace(hive(2, &[1, 2]).into());
    let told = scene.frame().await;
    assert_eq!((told.sequence, told.hive.unwrap().holds.len()), (3, 2), "what it does not use yet sends no frame");
    scene.hive.send_replace(ended.into());
    assert_eq!(scene.frame().await.hive.unwrap().last_fencing_token, 3, "granted and given back between two frames");
}

#[tokio::test]
async fn a_queen_that_refuses_is_asked_again() {
    // The last one first. ABORTED is no reason to stay away, but where a session is fenced.
    let mut scene = scene(vec![Status::aborted("superseded"), Status::internal("500")]).await;
    let (_task, mut state) = scene.uplink();
    let refused = tokio::time::timeout(PATIENCE, state.wait_for(|s| s.error.is_some())).await.unwrap().unwrap().clone();
    assert!(refused.error.unwrap().contains("500"));
    scene.frame().await;
    assert!(state.borrow_and_update().connected);
    // A queen that meets both late can tell which was the later one.
    let sent = [scene.sent.recv().await.unwrap(), scene.sent.recv().await.unwrap()];
    assert!(sent[0].is_some() && sent[0] < sent[1], "{sent:?}");
}

#[tokio::test]
async fn a_stopping_hive_says_goodbye() {
    let mut scene = scene(vec![]).await;
    let (_task, _) = scene.uplink();
    scene.frame().await;
    scene.stopping.cancel();
    let status = scene.frame().await.hive.unwrap().operational_status();
    assert_eq!(status, proto::OperationalStatus::Stopping);
}

#[tokio::test]
async fn what_is_no_queen_is_said_once() {
    let mut scene = scene(vec![]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.url = format!("http://{}", listener.local_addr().unwrap());
    let (task, mut state) = scene.uplink();
    // Each breaks off in another way: without a word, in the words of another protocol, in none.
    let mut said = Vec::new();
    for words in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xff\xff"] {
        let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, words).await.unwrap();
        drop(stream);
        tokio::time::timeout(PATIENCE, state.wait_for(|state| state.error.is_some())).await.unwrap().unwrap();
        said.push(state.borrow_and_update().error.clone().unwrap());
    }
    // When it dials again it has said all that it had to say.
    tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    said.push(state.borrow().error.clone().unwrap());
    assert!(said[0].contains("as a queen does") && said.iter().all(|words| *words == said[0]), "{said:?}");
    scene.stopping.cancel();
    task.await.unwrap();
}
