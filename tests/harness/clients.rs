//! gRPC clients for tests, and a watcher that keeps the state that it was told.

use proto::fleet_service_client::FleetServiceClient;
use proto::grant_service_client::GrantServiceClient;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::watch_response::Event;
use proto::{WatchRequest, WatchResponse, Worker};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tonic::Streaming;
use tonic::transport::Channel;

/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The fleet service of the queen at `url`.
pub async fn fleet(url: &str) -> FleetServiceClient<Channel> {
    FleetServiceClient::connect(url.to_owned()).await.expect("connect to the queen")
}

/// The scheduler service of the queen at `url`.
pub async fn scheduler(url: &str) -> SchedulerServiceClient<Channel> {
    SchedulerServiceClient::connect(url.to_owned()).await.expect("connect to the queen")
}

/// The grant service of the hive behind a unix socket.
pub async fn grants(socket: &Path) -> GrantServiceClient<Channel> {
    GrantServiceClient::connect(format!("unix://{}", socket.display())).await.expect("connect to the hive")
}

/// A watch, and the fleet as it was told.
pub struct Watcher {
    stream: Streaming<WatchResponse>,
    /// Live workers by name.
    pub workers: BTreeMap<String, Worker>,
    /// Hives by id.
    pub hives: BTreeMap<String, proto::Hive>,
    /// Hives that were heard from since the snapshot began.
    pub heard: BTreeSet<String>,
    /// The newest revision.
    pub revision: String,
    /// Bookmarks read.
    pub bookmarks: Vec<proto::Bookmark>,
    /// Why each snapshot began.
    pub snapshots: Vec<proto::SnapshotReason>,
}

impl Watcher {
    /// Opens a watch.
    pub async fn open(url: &str, request: WatchRequest) -> Self {
        let stream = fleet(url).await.watch(request).await.expect("watch").into_inner();
        Self {
            stream,
            workers: BTreeMap::new(),
            hives: BTreeMap::new(),
            heard: BTreeSet::new(),
            revision: String::new(),
            bookmarks: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    /// Reads one message and applies it. `Err` when the stream ended.
    pub async fn step(&mut self) -> Result<Event, tonic::Status> {
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("a message in time")?;
        let event = message.and_then(|m| m.event).ok_or_else(|| tonic::Status::unavailable("the stream ended"))?;
        self.apply(&event);
        Ok(event)
    }

    /// Reads until `done` says so.
    pub async fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) {
        let begun = std::time::Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < limit, "the watcher has not seen within {limit:?}: {what}");
            self.step().await.expect("the watch goes on");
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::SnapshotBegin(begin) => {
                self.snapshots.push(begin.reason());
                self.workers.clear();
                self.hives.clear();
                self.heard.clear();
            }
            Event::Update(update) => {
                for worker in &update.workers {
                    let spec = worker.spec.as_ref().expect("a spec");
                    let name = format!("{}/{}/{}", spec.hive, spec.group, spec.instance);
                    self.workers.insert(name, worker.clone());
                }
                for hive in &update.hives {
                    self.hives.insert(hive.id.clone(), hive.clone());
                }
                for name in &update.removed_workers {
                    self.workers.remove(name);
                }
                for id in &update.removed_hives {
                    self.hives.remove(id);
                }
                self.heard.extend(update.beats.iter().map(|beat| beat.hive.clone()));
                self.revision.clone_from(&update.revision);
            }
            Event::SnapshotEnd(end) => self.revision.clone_from(&end.revision),
            Event::Bookmark(bookmark) => {
                self.revision.clone_from(&bookmark.revision);
                self.bookmarks.push(bookmark.clone());
            }
        }
    }
}
