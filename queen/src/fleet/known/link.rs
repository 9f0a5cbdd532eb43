//! Tells the feed what has changed of a hive. After the index has been told, because this forgets what has changed.

use super::{KnownHive, KnownWorker};
use crate::fleet::feed::{AHEAD, Beat, Feed, News, Subject, Writer};
use crate::fleet::{Measured, object};
use std::sync::Arc;
use std::time::Instant;

/// What of an object waits to be linked.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Its present state.
    state: bool,
    /// So many states before that, which were replaced while nobody watched.
    replaced: u32,
}

impl Waiting {
    /// There is a new state.
    pub fn add(&mut self) {
        self.replaced = self.replaced.saturating_add(self.state.into());
        self.state = true;
    }

    /// Whether one waits.
    pub fn is_any(&self) -> bool {
        self.state
    }

    /// Nothing waits any more. Answers how many states were replaced, if anything waited.
    fn take(&mut self) -> Option<u32> {
        let waiting = std::mem::take(self);
        waiting.state.then_some(waiting.replaced)
    }
}

impl KnownWorker {
    fn news<'a>(&'a self, stats: Option<&'a Measured>, held: Option<&'a Arc<str>>) -> News<'a> {
        News {
            spec: &self.spec,
            stats,
            state: self.state,
            freshness: self.freshness,
            held,
            refiltered: self.refiltered,
        }
    }

    /// Links its state, if one waits: without its numbers where nobody watches, who then has them added first.
    fn link(&mut self, writer: &mut Writer<'_>, numbers: &Measured, held: Option<&Arc<str>>, watched: bool) {
        let stats = self.measured.then_some(numbers);
        match (self.waiting.take(), self.key) {
            (Some(replaced), key) => {
                writer.pass_over(replaced);
                self.key = Some(writer.put_worker(key, &self.news(stats.filter(|_| watched), held)));
                (self.refiltered, self.hollow) = (false, !watched);
            }
            (None, Some(key)) if watched && self.hollow => {
                writer.fill(key, &self.news(stats, held));
                self.hollow = false;
            }
            _ => {}
        }
    }
}

impl KnownHive {
    /// Links what changed, and with `beat` that the hive was heard from. Workers are copied here, and encoded when
    /// somebody reads them; only the hive's own record is made into bytes at once, before the feed is locked.
    /// While nobody watches, numbers wait, and are not copied. Who is there, and what filters look at, is always linked:
    /// a reader with a revision must be told that what it has seen is gone, or has left its filter.
    pub fn link(&mut self, feed: &Feed, now: Instant, beat: bool) {
        self.unheard |= beat;
        if std::mem::take(&mut self.dirty) {
            self.waiting.add();
        }
        let waits = self.key.is_some() && self.gone.is_empty() && self.stirred != Stirred::Shape;
        let watched = feed.is_watched();
        if waits && !watched {
            return;
        }
        let beat = std::mem::take(&mut self.unheard);
        let hive = self.waiting.take().map(|replaced| {
            self.info.worker_count = u32::try_from(self.by_name.len()).unwrap_or(u32::MAX);
            self.info.freshness = self.freshness.into();
            (replaced, object::hive(&self.info))
        });
        if hive.is_none() && !beat && self.gone.is_empty() && self.stirred == Stirred::Nothing {
            return;
        }
        let mut writer = feed.write(now);
        for key in self.gone.drain(..) {
            writer.remove(key);
        }
        if let Some((replaced, bytes)) = hive {
            let subject = Subject::Hive { id: Arc::clone(&self.name) };
            writer.pass_over(replaced);
            self.key = Some(writer.put(self.key, subject, bytes, false));
        }
        if self.stirred != Stirred::Nothing {
            for (workers, numbers) in self.workers.chunks_mut(AHEAD).zip(self.numbers.chunks(AHEAD)) {
                let waiting = workers.iter().flatten().filter(|worker| worker.waiting.is_any());
                writer.touch(waiting.filter_map(|worker| worker.key));
                for (worker, numbers) in workers.iter_mut().zip(numbers) {
                    let Some(worker) = worker else { continue };
                    worker.link(&mut writer, numbers, self.held.get(&worker.id), watched);
                }
            }
        }
        // Of who is linked without numbers something is still to be told.
        self.stirred = if watched { Stirred::Nothing } else { Stirred::Numbers };
        if beat {
            let Self { name: hive, sampled_at, sequence, epoch, .. } = &*self;
            let told = Beat { hive, sampled_at: *sampled_at, sequence: *sequence, epoch: *epoch };
            self.beat = Some(writer.beat(self.beat, &told));
        }
    }
}

/// What of the workers waits to be linked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stirred {
    #[default]
    Nothing,
    /// Numbers, freshness, holds.
    Numbers,
    /// Somebody is new, or has another spec or state.
    Shape,
}

#[cfg(test)]
mod tests;
