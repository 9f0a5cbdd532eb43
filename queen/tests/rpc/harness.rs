//! Starts queens on free ports, and hives and watchers against them.

use crate::mirror::Mirror;
use proto::fleet_service_client::FleetServiceClient;
use proto::hive_service_client::HiveServiceClient;
use proto::push_telemetry_request::Frame;
use proto::{
    Hive, OperationalStatus, ProcessStats, PushTelemetryRequest, PushTelemetryResponse, RegisterRequest, Snapshot,
    WatchRequest, WatchResponse, WorkerRow, WorkerSpec, WorkerState,
};
use queen::{Config, Queen};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Nothing here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often something is looked at that sends no event.
const LOOK: Duration = Duration::from_millis(10);

/// A queen that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
        change(&mut config);
        let queen = Queen::bind(config).await.unwrap();
        let (address, stopping) = (queen.address(), CancellationToken::new());
        let token = stopping.clone();
        let task = tokio::spawn(async move { queen.run(token).await.unwrap() });
        Self { address, stopping, task }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    /// Stops it; how long that took.
    pub async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stopping.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        began.elapsed()
    }
}

pub fn hive(id: &str) -> Hive {
    Hive {
        id: id.into(),
        boot_id: "boot-1".into(),
        slice: "rbee.slice".into(),
        operational_status: OperationalStatus::Ready.into(),
        ..Hive::default()
    }
}

pub fn row(hive: &str, slot: u32, cpu_pct: f64) -> WorkerRow {
    let spec = WorkerSpec {
        hive: hive.into(),
        group: "llm".into(),
        instance: slot.to_string(),
        model: Some(format!("model-{slot}")),
        ..WorkerSpec::default()
    };
    let stats = ProcessStats { cpu_pct: Some(cpu_pct), gpu_util_pct: Some(0.0), ..ProcessStats::default() };
    WorkerRow { slot, spec: Some(spec), state: WorkerState::Running.into(), stats: Some(stats) }
}

/// One session with an open stream.
pub struct Session {
    pub session: String,
    pub sequence: u64,
    pub opened: Instant,
    frames: Option<mpsc::Sender<PushTelemetryRequest>>,
    push: JoinHandle<Result<PushTelemetryResponse, Status>>,
}

impl Session {
    pub async fn open(queen: &Running, record: Hive) -> Result<Self, Status> {
        let mut client = HiveServiceClient::new(queen.channel().await).max_encoding_message_size(64 << 20);
        let opened = Instant::now();
        let request = RegisterRequest { hive: Some(record), ..RegisterRequest::default() };
        let session = client.register(request).await?.into_inner().session;
        let (frames, receiver) = mpsc::channel(1);
        let push = tokio::spawn(async move {
            client.push_telemetry(ReceiverStream::new(receiver)).await.map(tonic::Response::into_inner)
        });
        Ok(Self { session, sequence: 0, opened, frames: Some(frames), push })
    }

    pub async fn send(&mut self, frame: Frame) {
        self.send_at(frame, common::timestamp(std::time::SystemTime::now())).await;
    }

    /// Sends a frame with what the hive's wall clock says.
    pub async fn send_at(&mut self, frame: Frame, sampled_at: prost_types::Timestamp) {
        self.sequence += 1;
        let frame = PushTelemetryRequest {
            session: self.session.clone(),
            sequence: self.sequence,
            monotonic_ms: self.opened.elapsed().as_millis() as u64,
            before_register_ms: 0,
            sampled_at: Some(sampled_at),
            frame: Some(frame),
            hive: None,
        };
        // A stream that has ended is found out by `end`.
        let _ended = self.frames.as_ref().unwrap().send(frame).await;
    }

    pub async fn snapshot(&mut self, rows: Vec<WorkerRow>) {
        self.send(Frame::Snapshot(Snapshot { rows, last: true })).await;
    }

    /// Waits for the end without having asked for it.
    pub async fn ended(self) -> Result<PushTelemetryResponse, Status> {
        timeout(PATIENCE, self.push).await.unwrap().unwrap()
    }

    /// Says goodbye and waits for the books.
    pub async fn goodbye(mut self) -> Result<PushTelemetryResponse, Status> {
        self.frames = None;
        self.ended().await
    }

    /// Cuts the stream without a word.
    pub fn cut(self) {
        self.push.abort();
    }
}

/// A watch and its client's copy.
pub struct Watching {
    pub mirror: Mirror,
    pub stream: Streaming<WatchResponse>,
}

impl Watching {
    pub async fn open(queen: &Running, request: WatchRequest) -> Result<Self, Status> {
        let stream = FleetServiceClient::new(queen.channel().await).watch(request).await?.into_inner();
        Ok(Self { mirror: Mirror::default(), stream })
    }

    /// Reads until the copy is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Mirror) -> bool) {
        let reading = async {
            while !wanted(&self.mirror) {
                let message = self.stream.message().await.unwrap().unwrap_or_else(|| panic!("ended before {what}"));
                self.mirror.apply(message);
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
    }
}

/// Looks again and again until there is an answer.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
