//! The document's queen: axum, JSON POST, `RwLock<HashMap>`, Server-Sent Events. Its best form encodes an event once.

use super::{KEPT, listen};
use crate::fleet::{Heartbeat, HiveInfo, Worker};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_axum};
use serde::Serialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

/// Who encodes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Every subscriber's stream, as the document has it.
    Each,
    /// Whoever received the heartbeat, for all.
    Once,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum HeartbeatEvent {
    HiveTelemetry { hive_id: String, timestamp: String, sent_ns: u64, workers: Vec<Worker> },
}

#[derive(Clone)]
struct Registry {
    encoding: Encoding,
    hives: Arc<RwLock<HashMap<String, (HiveInfo, Instant)>>>,
    workers: Arc<RwLock<HashMap<String, Vec<Worker>>>>,
    events: broadcast::Sender<HeartbeatEvent>,
    encoded: broadcast::Sender<Bytes>,
}

pub async fn serve(encoding: Encoding) {
    let registry = Registry {
        encoding,
        hives: Arc::default(),
        workers: Arc::default(),
        events: broadcast::Sender::new(KEPT),
        encoded: broadcast::Sender::new(KEPT),
    };
    let router = Router::new()
        .route("/v1/hive-heartbeat", post(heartbeat))
        .route("/v1/heartbeats/stream", get(stream))
        .with_state(registry);
    let listener = axum::serve::ListenerExt::tap_io(listen().await, |stream| {
        // A connection that has ended already is found out by whoever reads it.
        let _ended = stream.set_nodelay(true);
    });
    serve_axum(listener, router).await.expect("serve");
}

async fn heartbeat(State(registry): State<Registry>, body: Bytes) -> StatusCode {
    let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(&body) else { return StatusCode::BAD_REQUEST };
    let Heartbeat { hive, timestamp, sent_ns, workers } = heartbeat;
    let id = hive.id.clone();
    registry.hives.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), (hive, Instant::now()));
    registry.workers.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), workers.clone());
    let event = HeartbeatEvent::HiveTelemetry { hive_id: id, timestamp, sent_ns, workers };
    // With nobody listening there is nothing to do.
    match registry.encoding {
        Encoding::Each => {
            let _unheard = registry.events.send(event);
        }
        Encoding::Once if registry.encoded.receiver_count() > 0 => {
            let text = serde_json::to_string(&event).expect("an event as JSON");
            let _unheard = registry.encoded.send(Bytes::from(format!("data: {text}\n\n")));
        }
        Encoding::Once => {}
    }
    StatusCode::OK
}

async fn stream(State(registry): State<Registry>) -> Response {
    match registry.encoding {
        Encoding::Each => {
            let events = BroadcastStream::new(registry.events.subscribe()).filter_map(Result::ok);
            let events = events.map(|event| {
                let text = serde_json::to_string(&event).expect("an event as JSON");
                Ok::<_, Infallible>(Event::default().data(text))
            });
            Sse::new(events).into_response()
        }
        Encoding::Once => {
            let events = BroadcastStream::new(registry.encoded.subscribe()).filter_map(Result::ok);
            let body = Body::from_stream(events.map(Ok::<_, Infallible>));
            ([("content-type", "text/event-stream")], body).into_response()
        }
    }
}
