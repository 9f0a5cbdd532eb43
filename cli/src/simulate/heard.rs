//! Who watches the queen from outside: the number of the last frame that was heard of in each session.

use common::link::Channel;
use proto::fleet_service_client::FleetServiceClient;
use proto::watch_response::Event;
use proto::{Filter, HiveBeat, WatchRequest};
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

/// A hive and the epoch of its session. Epochs begin anew with the queen; what was heard before is settled by then.
type Session = (String, u64);

/// The last frame of each session that is not settled.
#[derive(Debug, Default, Clone)]
pub struct Heard(Arc<Mutex<HashMap<Session, u64>>>);

impl Heard {
    /// The number of the last frame of a session, by its name on the wire; 0 if none was heard of. Forgets it.
    pub fn take(&self, session: &str) -> u64 {
        let mut parts = session.split('/');
        let (hive, epoch) = (parts.next().unwrap_or_default(), parts.next().and_then(|epoch| epoch.parse().ok()));
        let session = (hive.to_owned(), epoch.unwrap_or_default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session).unwrap_or(0)
    }

    fn hear(&self, beats: Vec<HiveBeat>) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(beats.into_iter().map(|beat| ((beat.hive, beat.epoch), beat.sequence)));
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
            self.hear(update.beats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_has_its_own_last_frame_until_it_is_settled() {
        let beat = |epoch, sequence| HiveBeat { hive: "sim-1".into(), epoch, sequence, ..HiveBeat::default() };
        let heard = Heard::default();
        heard.hear(vec![beat(7, 200), beat(7, 201), beat(9, 1)]);
        assert_eq!((heard.take("sim-1/7/token"), heard.take("sim-1/9/other")), (201, 1));
        assert_eq!((heard.take("sim-1/7/token"), heard.take("sim-2/9/token"), heard.take("sim-1")), (0, 0, 0));
    }
}
