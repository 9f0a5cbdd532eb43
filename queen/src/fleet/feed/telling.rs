//! What is told of an object: its bytes in an update, made when somebody first reads them. A fleet that nobody watches
//! encodes nothing, and a worker that changed twice between two looks is encoded once.

use super::numbers::Row;
use crate::fleet::mask::Numbers;
use crate::fleet::{Measured, Spec, object};
use bytes::Bytes;
use proto::{Freshness, HiveBeat};
use std::cell::OnceCell;
use std::ops::Deref;
use std::sync::Arc;

/// News of a worker.
#[derive(Debug, Clone, Copy)]
pub struct News<'a> {
    /// What it is.
    pub spec: &'a Arc<Spec>,
    /// Its numbers.
    pub stats: Option<&'a Measured>,
    /// A `WorkerState` as it came.
    pub state: i32,
    /// How far its numbers may be trusted.
    pub freshness: Freshness,
    /// The reservation that holds it.
    pub held: Option<&'a Arc<str>>,
    /// Spec or state changed.
    pub refiltered: bool,
}

/// A worker as it was when it was linked.
#[derive(Debug)]
struct Linked {
    spec: Arc<Spec>,
    stats: Option<Measured>,
    state: i32,
    freshness: Freshness,
    held: Option<Arc<str>>,
    slot: u32,
}

impl Linked {
    fn encode(&self) -> Bytes {
        let held = self.held.as_deref().unwrap_or_default();
        let stats = self.stats.as_ref().map(Measured::row);
        object::worker(self.spec.bytes(), stats.as_ref(), self.state, self.freshness, held, self.slot)
    }

    /// Whether more than numbers is another.
    fn differs(&self, news: &News<'_>) -> bool {
        let same_gpus = match (&self.stats, news.stats) {
            (Some(before), Some(after)) => before.is_on_those_of(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        !same_gpus
            || (self.state, self.freshness, self.held.as_ref()) != (news.state, news.freshness, news.held)
            || news.refiltered
    }
}

#[derive(Debug)]
enum Source {
    /// The bytes are there.
    Made,
    Worker(Box<Linked>),
    Beat {
        hive: Arc<str>,
        sampled_at: Option<prost_types::Timestamp>,
        sequence: u64,
        epoch: u64,
    },
}

/// The bytes of an object in an update, as soon as they are read.
#[derive(Debug)]
pub struct Telling {
    source: Source,
    made: OnceCell<Bytes>,
}

impl From<Bytes> for Telling {
    fn from(bytes: Bytes) -> Self {
        Self { source: Source::Made, made: OnceCell::from(bytes) }
    }
}

impl Deref for Telling {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        self.made.get_or_init(|| match &self.source {
            Source::Made => Bytes::new(),
            Source::Worker(linked) => linked.encode(),
            Source::Beat { hive, sampled_at, sequence, epoch } => object::beat(&HiveBeat {
                hive: hive.to_string(),
                sampled_at: *sampled_at,
                sequence: *sequence,
                epoch: *epoch,
            }),
        })
    }
}

#[cfg(test)]
impl PartialEq<Bytes> for Telling {
    fn eq(&self, bytes: &Bytes) -> bool {
        **self == *bytes
    }
}

impl Telling {
    /// Of a worker.
    pub fn worker(news: &News<'_>) -> Self {
        let linked = Linked {
            spec: Arc::clone(news.spec),
            stats: news.stats.cloned(),
            state: news.state,
            freshness: news.freshness,
            held: news.held.cloned(),
            slot: 0,
        };
        Self { source: Source::Worker(Box::new(linked)), made: OnceCell::new() }
    }

    /// Of a worker that is called so in columns.
    pub fn name(&mut self, slot: u32) {
        if let Source::Worker(linked) = &mut self.source {
            linked.slot = slot;
        }
    }

    /// Of a worker again: in the room of the last time. Tells whether more than its numbers changed.
    pub fn renew(&mut self, news: &News<'_>, slot: u32) -> bool {
        let Source::Worker(linked) = &mut self.source else {
            *self = Self::worker(news);
            self.name(slot);
            return true;
        };
        self.made.take();
        let detailed = linked.differs(news);
        if news.refiltered {
            linked.spec.clone_from(news.spec);
        }
        (linked.state, linked.freshness) = (news.state, news.freshness);
        linked.held = news.held.cloned();
        match (&mut linked.stats, news.stats) {
            (Some(room), Some(stats)) => room.copy(stats),
            (room, stats) => *room = stats.cloned(),
        }
        detailed
    }

    /// Has what is kept of a worker on its way from memory.
    #[inline]
    pub fn touch(&self) -> i64 {
        match &self.source {
            Source::Worker(linked) => linked.stats.as_ref().map_or(0, Measured::touch) ^ i64::from(linked.slot),
            Source::Made | Source::Beat { .. } => 0,
        }
    }

    /// Whether it is of a worker.
    pub fn is_worker(&self) -> bool {
        matches!(self.source, Source::Worker(_))
    }

    /// A worker's numbers alone, where columns can say them.
    pub(super) fn row(&self, wanted: Numbers) -> Option<Row<'_>> {
        match &self.source {
            Source::Worker(linked) => Row::of(linked.slot, linked.stats.as_ref()?, wanted),
            Source::Made | Source::Beat { .. } => None,
        }
    }

    /// Of a hive that was heard from.
    pub fn beat(hive: &Arc<str>, sampled_at: Option<prost_types::Timestamp>, sequence: u64, epoch: u64) -> Self {
        Self { source: Source::Beat { hive: Arc::clone(hive), sampled_at, sequence, epoch }, made: OnceCell::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::columns::Quanta;
    use proto::{GpuUse, ProcessStats, WorkerSpec};

    fn stats(cpu_pct: f64, gpu: &str) -> ProcessStats {
        let gpus = vec![GpuUse { uuid: gpu.into(), util_pct: Some(cpu_pct), vram_bytes: None }];
        ProcessStats { cpu_pct: Some(cpu_pct), gpus, ..ProcessStats::default() }
    }

    #[test]
    fn bytes_are_those_of_the_newest_state_however_often_it_changed() {
        let spec = Arc::new(Spec::of(&WorkerSpec { instance: "1".into(), ..WorkerSpec::default() }));
        let (first, second, third) = (stats(1.0, "a"), stats(2.0, "a"), stats(3.0, "b"));
        let (r1, r2): (Arc<str>, Arc<str>) = ("r1".into(), "r2".into());
        let [one, two, three] = [&first, &second, &third].map(|stats| Measured::of(Quanta::of(stats), stats.clone()));
        let news =
            |stats, held| News { spec: &spec, stats, state: 2, freshness: Freshness::Live, held, refiltered: false };
        let mut told = Telling::worker(&news(Some(&one), None));
        told.name(7);
        let changes = [
            (Some(&one), None, false),
            (Some(&two), None, false),
            (Some(&two), Some(&r1), true),
            (Some(&two), Some(&r2), true),
            (Some(&three), Some(&r2), true),
            (None, Some(&r2), true),
            (Some(&one), Some(&r2), true),
            (Some(&two), Some(&r2), false),
        ];
        for (stats, held, detailed) in changes {
            assert_eq!(told.renew(&news(stats, held), 7), detailed, "{stats:?} {held:?}");
            let row = stats.map(Measured::row);
            let bytes =
                object::worker(spec.bytes(), row.as_ref(), 2, Freshness::Live, held.map_or("", AsRef::as_ref), 7);
            assert_eq!(told, bytes);
            assert_eq!(told, bytes, "and stay so");
        }
    }
}
