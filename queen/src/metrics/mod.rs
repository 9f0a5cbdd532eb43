//! What the queen says about herself, for Prometheus: never a series for one worker or one hive. One place collects;
//! whoever counts something holds [`Counts`] or a bound.

mod calls;
mod collect;
mod counts;
mod process;
mod text;

pub use calls::{Calls, count};
pub use collect::Sources;
pub use counts::Counts;

use crate::bound::Bound;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use collect::Snapshot;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// So many scrapes may run at once: each looks at every worker.
const SCRAPES: usize = 4;
/// When a scrape beyond that may be tried again, in seconds.
const RETRY: &str = "1";
/// Prefix of every name but those of the process.
const PREFIX: &str = "rbee_queen";

/// Everything that `/metrics` answers from.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    scrapes: Arc<Bound>,
}

impl Metrics {
    /// Registers everything.
    pub fn new(sources: Sources, calls: &Calls) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::new(sources.proc_root.clone())));
        let queen = registry.sub_registry_with_prefix(PREFIX);
        calls.register(queen);
        queen.register_collector(Box::new(Snapshot::new(sources)));
        Self { registry: Arc::new(registry), scrapes: Bound::new(SCRAPES) }
    }

    /// As OpenMetrics.
    fn open(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// `GET /metrics`: OpenMetrics for whom accepts it, else the classic text.
pub async fn page(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with(text::OPEN_KIND));
    let Some(place) = metrics.scrapes.enter() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY)], "others are reading the metrics\n")
            .into_response();
    };
    // Every worker is looked at: that is not done between other tasks. The place goes with the look, not with whoever
    // waits for it.
    let look = move || {
        let _place = place;
        metrics.open()
    };
    let text = tokio::task::spawn_blocking(look).await;
    match text {
        Ok(Ok(text)) => {
            let (kind, text) = if open { (text::OPEN, text) } else { (text::CLASSIC, text::classic(&text)) };
            ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], text).into_response()
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response(),
    }
}
