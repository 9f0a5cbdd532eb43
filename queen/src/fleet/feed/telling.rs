//! What is told of an object: its bytes in an update, made when somebody first reads them. A fleet that nobody watches
//! encodes nothing, and a worker that changed twice between two looks is encoded once.

use super::numbers::Row;
use crate::fleet::mask::Numbers;
use crate::fleet::{Copied, Measured, Spec, object};
use bytes::Bytes;
use proto::Freshness;
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

/// A worker as it was when it was linked. What a reader of columns and the next link look at comes first.
#[derive(Debug)]
#[repr(C)]
struct Linked {
    slot: u32,
    state: i32,
    freshness: Freshness,
    held: Option<Arc<str>>,
    stats: Option<Copied>,
    spec: Arc<Spec>,
}

impl Linked {
    fn encode(&self) -> Bytes {
        let held = self.held.as_deref().unwrap_or_default();
        let stats = self.stats.as_ref().map(Copied::row);
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

/// The bytes of an object in an update, as soon as they are read.
#[derive(Debug)]
#[repr(C)]
pub struct Telling {
    made: OnceCell<Box<Bytes>>,
    /// Of a worker. The bytes of everything else are made at once.
    worker: Option<Linked>,
}

impl From<Bytes> for Telling {
    fn from(bytes: Bytes) -> Self {
        Self { worker: None, made: OnceCell::from(Box::new(bytes)) }
    }
}

impl Deref for Telling {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        self.made.get_or_init(|| Box::new(self.worker.as_ref().map(Linked::encode).unwrap_or_default()))
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
            stats: news.stats.map(Copied::of),
            state: news.state,
            freshness: news.freshness,
            held: news.held.cloned(),
            slot: 0,
        };
        Self { worker: Some(linked), made: OnceCell::new() }
    }

    /// Of a worker that is called so in columns.
    pub fn name(&mut self, slot: u32) {
        if let Some(linked) = &mut self.worker {
            linked.slot = slot;
        }
    }

    /// Of a worker again: in the room of the last time. Tells whether more than its numbers changed.
    pub fn renew(&mut self, news: &News<'_>, slot: u32) -> bool {
        let Some(linked) = &mut self.worker else {
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
            (Some(room), Some(stats)) => room.renew(stats),
            (room, stats) => *room = stats.map(Copied::of),
        }
        detailed
    }

    /// Has what is kept of a worker on its way from memory.
    #[inline]
    pub fn touch(&self) -> i64 {
        let Some(linked) = &self.worker else { return 0 };
        linked.stats.as_ref().map_or(0, Copied::touch) ^ i64::from(linked.slot)
    }

    /// Whether it is of a worker.
    pub fn is_worker(&self) -> bool {
        self.worker.is_some()
    }

    /// A worker's numbers alone, where columns can say them.
    pub(super) fn row(&self, wanted: Numbers) -> Option<Row<'_>> {
        let linked = self.worker.as_ref()?;
        Row::of(linked.slot, linked.stats.as_ref()?, wanted)
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
