//! A client that writes down what happens to it.

use crate::harness::{PATIENCE, Running};
use crate::histories::{Client, History, Moment};
use common::told::Told;
use proto::fleet_service_client::FleetServiceClient;
use proto::watch_response::Event;
use proto::{WatchRequest, WatchResponse};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

pub struct Recorded {
    pub history: History,
    pub client: Client,
    told: Told,
    request: WatchRequest,
    began: Instant,
    stream: Option<Streaming<WatchResponse>>,
}

impl Recorded {
    pub fn new(request: WatchRequest) -> Self {
        let (history, client) = (History::default(), Client::default());
        Self { history, client, told: Told::default(), request, began: Instant::now(), stream: None }
    }

    fn note(&mut self, moment: Moment) {
        self.client.take(&moment);
        self.history.note(self.began.elapsed(), moment);
    }

    /// Forgets what was written down, once it has been looked at: it goes on from where the stream is now.
    pub fn turn_the_page(&mut self) {
        self.history = History::default();
        self.history.note(self.began.elapsed(), Moment::Opened(self.client.revision.clone()));
    }

    /// Leaves the stream that there is, and opens one after the last revision that was read.
    pub async fn open(&mut self, channel: Channel) {
        if self.stream.take().is_some() {
            self.note(Moment::Ended);
        }
        let resume_after = self.client.revision.clone();
        self.note(Moment::Opened(resume_after.clone()));
        let request = WatchRequest { resume_after, ..self.request.clone() };
        self.stream = Some(FleetServiceClient::new(channel).watch(request).await.unwrap().into_inner());
    }

    /// The same, at a queen.
    pub async fn open_at(&mut self, queen: &Running) {
        self.open(queen.channel().await).await;
    }

    /// Reads one message; `None` when the stream ended.
    pub async fn read(&mut self) -> Option<Event> {
        let message = self.stream.as_mut()?.message().await.ok().flatten();
        let Some(mut message) = message else {
            self.note(Moment::Ended);
            self.stream = None;
            return None;
        };
        self.told.take(&mut message).unwrap();
        let event = message.event.clone();
        self.note(Moment::Heard(Box::new(message)));
        event
    }

    /// Reads for so long.
    pub async fn read_for(&mut self, span: Duration) {
        let reading = async { while self.read().await.is_some() {} };
        let _time_is_over = timeout(span, reading).await;
    }

    /// Reads until the copy is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Client) -> bool) {
        let reading = async {
            while !wanted(&self.client) {
                assert!(self.read().await.is_some(), "ended before {what}");
            }
        };
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
    }
}
