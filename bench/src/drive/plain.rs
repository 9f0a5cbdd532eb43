//! Plain generated clients.

use super::{Counts, Pacing};
use crate::fleet::{Load, now_ns};
use crate::plain::WatchRequest;
use crate::plain::telemetry_client::TelemetryClient;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

async fn connect(address: &str) -> TelemetryClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").tcp_nodelay(true);
    TelemetryClient::new(endpoint.connect().await.expect("connect"))
}

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let batches = [load.plain(0), load.plain(1)];
    let mut client = connect(&address).await;
    let (sender, receiver) = mpsc::channel(1);
    let pushing = tokio::spawn(async move { client.push(ReceiverStream::new(receiver)).await });
    for at in (0..2).cycle() {
        pace.due().await;
        let mut batch = batches[at].clone();
        batch.sent_ns = now_ns();
        if sender.send(batch).await.is_err() {
            break;
        }
        counts.push();
    }
    let ended = pushing.await;
    panic!("the push ended: {ended:?}");
}

pub async fn watch(address: String, counts: Arc<Counts>) {
    let mut batches = connect(&address).await.watch(WatchRequest {}).await.expect("watch").into_inner();
    while let Ok(Some(batch)) = batches.message().await {
        counts.deliver(batch.workers.len() as u64, 0);
        if counts.times() {
            counts.time(batch.sent_ns);
        }
    }
}
