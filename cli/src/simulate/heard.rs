//! Who watches the queen from outside: the number of the last frame that each hive was heard with.

use common::link::Channel;
use proto::fleet_service_client::FleetServiceClient;
use proto::watch_response::Event;
use proto::{Filter, WatchRequest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two tries to watch.
const AGAIN: Duration = Duration::from_millis(500);
/// The flush class: short, so that what was heard is known when a session is cut.
const INTERVAL: Duration = Duration::from_millis(50);
/// A group that no worker has: beats come all the same.
const NO_GROUP: &str = "nobody";

/// The last frame of each hive.
#[derive(Debug, Default, Clone)]
pub struct Heard(Arc<Mutex<HashMap<String, u64>>>);

impl Heard {
    /// A copy of what is known now.
    pub fn now(&self) -> HashMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Watches until stopped, also over restarts of the queen.
    pub async fn listen(self, channel: Channel, stopping: CancellationToken) {
        let mut client = FleetServiceClient::new(channel);
        while !stopping.is_cancelled() {
            let request = WatchRequest {
                filter: Some(Filter { group: NO_GROUP.to_owned(), ..Filter::default() }),
                min_interval: Some(common::duration(INTERVAL)),
                ..WatchRequest::default()
            };
            tokio::select! {
                () = self.follow(&mut client, request) => {}
                () = stopping.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    async fn follow(&self, client: &mut FleetServiceClient<Channel>, request: WatchRequest) {
        let Ok(answer) = client.watch(request).await else { return };
        let mut stream = answer.into_inner();
        while let Ok(Some(message)) = stream.message().await {
            let Some(Event::Update(update)) = message.event else { continue };
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for beat in update.beats {
                heard.insert(beat.hive, beat.sequence);
            }
        }
    }
}
