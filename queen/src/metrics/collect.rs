//! What is looked up when somebody asks: the fleet, the index, the bounds. Counts are read where they are kept.

use super::Counts;
use crate::bound::{Bound, Bounds};
use crate::fleet::{Fleet, Met};
use crate::server::Addresses;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How fresh something can be, in the order of the fleet's tally.
const FRESHNESS: [&str; 3] = ["live", "stale", "lost"];

/// Where everything is looked up.
#[derive(Debug)]
pub struct Sources {
    /// What is known.
    pub fleet: Arc<Fleet>,
    /// What is counted where it happens.
    pub counts: Arc<Counts>,
    /// How many of what there may be.
    pub bounds: Bounds,
    /// Who has how many connections.
    pub addresses: Arc<Addresses>,
    /// Watches that were cut.
    pub cut: Arc<AtomicU64>,
    /// Where procfs is mounted.
    pub proc_root: PathBuf,
}

/// Looks everything up once for each scrape.
#[derive(Debug)]
pub struct Snapshot {
    sources: Sources,
}

impl Snapshot {
    /// From there.
    pub fn new(sources: Sources) -> Self {
        Self { sources }
    }

    fn telemetry(&self, out: &mut Out<'_>) -> fmt::Result {
        let counts = self.sources.counts.telemetry();
        out.counters(
            "frames",
            "Frames of telemetry, by what became of them",
            "outcome",
            &[
                ("accepted", counts.frames_accepted),
                ("refused", counts.frames_refused),
                ("replayed", counts.frames_replayed),
            ],
        )?;
        out.counter("samples", "Samples of single workers in accepted frames", counts.samples)?;
        out.counter("fields_dropped", "Numbers that cannot be true and were left out", counts.fields_dropped)?;
        let renewals = self.sources.counts.renewals();
        out.counters("renewals", "Changed certificates and tokens that were read again", "outcome", &renewals)?;
        let knocks = self.sources.counts.knocks.counts();
        out.counters("auth_failures", "Calls refused for want of a token or a role", "reason", &knocks)
    }

    fn index(&self, out: &mut Out<'_>) -> fmt::Result {
        let feed = self.sources.fleet.feed();
        let (sizes, told) = (feed.sizes(), feed.told());
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        out.counter("revisions", "Revisions that were allotted: changes of single objects", sizes.revision)?;
        let objects = [("live", sizes.live), ("tombstone", sizes.tombstones)];
        out.gauges("index_objects", "Objects of the index that watchers read", "kind", &objects)?;
        out.gauge("index_pages", "Messages that are kept for watchers to share", sizes.pages)?;
        let messages = [("encoded", load(&told.made)), ("shared", load(&told.shared))];
        out.counters("watch_messages", "Messages of watches: encoded, or shared as they were", "how", &messages)?;
        out.counter("conflated", "States that were replaced before a watcher was told", load(&told.conflated))?;
        out.counter("watchers_cut", "Watches that were cut because nobody read them", load(&self.sources.cut))
    }

    fn bounds(&self, out: &mut Out<'_>, fleet: [(&'static str, Met); 3]) -> fmt::Result {
        let bounds = &self.sources.bounds;
        let counted = |bound: &Bound| (Some(bound.taken()), bound.limit(), Some(bound.refused()));
        // How large, or how many of each: there is no sum of them.
        let each = |bound: &Bound| (None, bound.limit(), Some(bound.refused()));
        let per_address =
            (Some(self.sources.addresses.most()), bounds.per_address.limit(), Some(bounds.per_address.refused()));
        let own = [
            ("connections", counted(&bounds.connections)),
            ("connections_per_address", per_address),
            ("calls", counted(&bounds.calls)),
            ("reserving", counted(&bounds.reserving)),
            ("hive_calls", counted(&bounds.hive_calls)),
            ("hive_streams", counted(&bounds.hive_streams)),
            ("tunnels", counted(&bounds.tunnels)),
            ("watchers", counted(&bounds.watchers)),
            ("watch_classes", self.sources.fleet.feed().classes_met()),
            ("unread_bytes", counted(&bounds.unread_bytes)),
            ("request_bytes", each(&bounds.request_bytes)),
            ("header_bytes", each(&bounds.header_bytes)),
            ("streams_per_connection", each(&bounds.streams)),
        ];
        let all: Vec<(&str, Met)> = own.into_iter().chain(fleet).collect();
        let taken: Vec<_> = all.iter().filter_map(|(name, met)| Some((*name, met.0?))).collect();
        out.gauges("bound_current", "What there is of what is bounded", "bound", &taken)?;
        let limits: Vec<_> = all.iter().map(|(name, met)| (*name, met.1)).collect();
        out.gauges("bound_limit", "What there may be", "bound", &limits)?;
        let refused: Vec<_> = all.iter().filter_map(|(name, met)| Some((*name, met.2?))).collect();
        out.counters("bound_refused", "How often there was no room", "bound", &refused)
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let out = &mut Out(encoder);
        let tally = self.sources.fleet.tally(Instant::now());
        out.build()?;
        let by = |counts: [usize; 3]| [0, 1, 2].map(|at| (FRESHNESS[at], counts[at]));
        out.gauges("hives", "Hives that are known, by freshness", "freshness", &by(tally.hives))?;
        out.gauges("workers", "Workers that are known, by freshness", "freshness", &by(tally.workers))?;
        self.telemetry(out)?;
        self.index(out)?;
        let fleet = [
            ("hives", tally.bound_hives),
            ("workers_per_hive", tally.bound_workers),
            ("frame_bytes", tally.bound_frame_bytes),
        ];
        self.bounds(out, fleet)
    }
}

/// Writes families with one label, or none.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn build(&mut self) -> fmt::Result {
        let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        info.encode(self.0.encode_descriptor("build", "Which rbee this is", None, info.metric_type())?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        let metric = ConstGauge::new(value as u64);
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            ConstCounter::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, usize)]) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in values {
            ConstGauge::new(*count as u64).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }
}
