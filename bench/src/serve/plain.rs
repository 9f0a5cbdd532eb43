//! Plain generated tonic: rows in a client stream into a `DashMap`, rows out to every watcher, each encoded by its stream.

use super::{KEPT, listen};
use crate::plain::telemetry_server::{Telemetry, TelemetryServer};
use crate::plain::{Batch, Summary, WatchRequest};
use dashmap::DashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

struct Plain {
    hives: DashMap<String, (Arc<Batch>, Instant)>,
    batches: broadcast::Sender<Arc<Batch>>,
}

#[tonic::async_trait]
impl Telemetry for Plain {
    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Summary>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let batch = Arc::new(batch);
            self.hives.insert(batch.hive.clone(), (Arc::clone(&batch), Instant::now()));
            // With nobody listening there is nothing to do.
            let _unheard = self.batches.send(batch);
        }
        Ok(Response::new(Summary {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Batch, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let batches = BroadcastStream::new(self.batches.subscribe()).filter_map(Result::ok);
        Ok(Response::new(Box::pin(batches.map(|batch| Ok(Batch::clone(&batch))))))
    }
}

pub async fn serve() {
    let plain = Plain { hives: DashMap::new(), batches: broadcast::Sender::new(KEPT) };
    let incoming = TcpIncoming::from(listen().await).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder().add_service(TelemetryServer::new(plain));
    server.serve_with_incoming(incoming).await.expect("serve");
}
