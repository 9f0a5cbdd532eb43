//! One batch into a hive: what changed since the frame before. Everything is checked before anything is kept.

use super::apply::{Outcome, Scratch, check_rows, resync, too_many};
use super::frame::Batch;
use super::known::KnownHive;
use super::row::{self, Checked};
use super::slots::Synced;
use super::{Bounds, Refusal};
use common::columns::{self, ColumnError};
use common::gpus::Uses;
use std::collections::HashSet;
use std::time::Instant;

struct CheckedBatch {
    failed: bool,
    newcomers: usize,
    rows: Vec<Checked>,
    removed: Vec<u32>,
    unsampled: Vec<u32>,
    gpus: Vec<(u32, Uses)>,
    dropped: u64,
}

impl KnownHive {
    /// Applies a batch. `misfit`: its columns do not fit one another.
    pub fn batch(
        &mut self,
        batch: Batch<'_>,
        taken: Instant,
        now: Instant,
        bounds: &Bounds,
        scratch: &mut Scratch,
        misfit: Option<ColumnError>,
    ) -> Result<Outcome, Refusal> {
        match &self.synced {
            Synced::Yes if self.pending.is_none() => {}
            Synced::Refused(reason) => return Err(Refusal::TooMuch(reason.clone())),
            _ => return Err(Refusal::Resync("a batch came before the whole snapshot".to_owned())),
        }
        if batch.rows.len() > bounds.max_workers {
            return Ok(self.refuse(too_many(batch.rows.len(), bounds), true));
        }
        let checked = self.check(batch, scratch, misfit)?;
        let count = self.count() + checked.newcomers;
        if count > bounds.max_workers + checked.removed.len() {
            return Ok(self.refuse(too_many(count, bounds), true));
        }
        Ok(self.commit(checked, scratch, taken, now))
    }

    fn check(
        &self,
        batch: Batch<'_>,
        scratch: &mut Scratch,
        misfit: Option<ColumnError>,
    ) -> Result<CheckedBatch, Refusal> {
        let mut removed = batch.removed;
        removed.sort_unstable();
        removed.dedup();
        let rows = check_rows(self, batch.rows)?;
        let newcomers = self.check_slots(&rows, &removed)?;
        let unsampled = columns::slots(&batch.unsampled_gaps).map_err(resync)?;
        let (mut gpus, mut named) = (Vec::with_capacity(batch.gpus.len()), HashSet::new());
        let mut lies = 0;
        for mut packed in batch.gpus {
            let slot = packed.slot;
            // Each once, and none longer than is kept: a list takes much more room than the bytes it came as.
            if !named.insert(slot) {
                return Err(Refusal::invalid("batch.gpus", format!("slot {slot} is there twice")));
            }
            lies += row::clean_packed(&mut packed);
            let told = common::gpus::unpack(&self.info.gpus, packed);
            let mut uses =
                told.ok_or_else(|| Refusal::Resync(format!("slot {slot} uses a GPU that was never told")))?;
            lies += row::clean_uses(&mut uses);
            gpus.push((slot, uses));
        }
        if let Some(misfit) = misfit {
            return Err(resync(misfit));
        }
        self.find(scratch);
        let slots: HashSet<u32> = rows.iter().map(|row| row.slot).collect();
        let new = |slot: &u32| slots.contains(slot);
        let found = scratch.columns.slots().iter().zip(&scratch.places);
        let strange = found.filter(|(_, place)| place.is_none()).map(|(slot, _)| *slot).find(|slot| !new(slot));
        let others = removed.iter().chain(&unsampled).copied().chain(gpus.iter().map(|(slot, _)| *slot));
        let missing = |slot: &u32| self.by_slot.get(*slot).is_none() && !new(slot);
        if let Some(slot) = strange.or_else(|| others.into_iter().find(missing)) {
            return Err(resync(ColumnError::UnknownSlot(slot)));
        }
        let dropped = lies + rows.iter().map(|row| row.dropped).sum::<u64>();
        Ok(CheckedBatch { failed: batch.failed, newcomers, rows, removed, unsampled, gpus, dropped })
    }

    /// Looks up the workers of the columns.
    fn find(&self, scratch: &mut Scratch) {
        let mut hint = 0;
        scratch.places.clear();
        let places = scratch.columns.slots().iter().map(|slot| self.by_slot.get_from(&mut hint, *slot));
        scratch.places.extend(places);
    }

    /// A slot is one worker's for the whole session, and a worker has one slot at a time. Answers how many rows are of
    /// workers that are not there, or leave with this frame.
    fn check_slots(&self, rows: &[Checked], removed: &[u32]) -> Result<usize, Refusal> {
        let leaving: HashSet<u32> = removed.iter().filter_map(|slot| self.by_slot.get(*slot)).collect();
        let mut newcomers = 0;
        for row in rows {
            let held = self.by_slot.get(row.slot);
            if held.and_then(|place| self.at(place)).is_some_and(|worker| worker.id != row.id) {
                return Err(Refusal::Resync(format!("slot {} changed its worker", row.slot)));
            }
            let stays = self.place_of(&row.id).filter(|place| !leaving.contains(place));
            newcomers += usize::from(stays.is_none());
            if stays.is_some_and(|place| held != Some(place)) {
                return Err(Refusal::Resync(format!("{} has another slot than {} already", row.id, row.slot)));
            }
        }
        Ok(newcomers)
    }

    fn commit(&mut self, batch: CheckedBatch, scratch: &mut Scratch, taken: Instant, now: Instant) -> Outcome {
        // A slot that is removed was named by the hive itself; a failed round removes nothing else.
        for place in self.by_slot.take(&batch.removed) {
            self.leave(place);
        }
        let moved = !batch.removed.is_empty() || !batch.rows.is_empty();
        let (mut fresh, mut except, mut placed) = (0, Vec::new(), Vec::new());
        for row in batch.rows {
            let (slot, sampled) = (row.slot, row.stats.is_some());
            let place = self.place(row, taken, now);
            placed.push((slot, place));
            if sampled {
                fresh += 1;
            } else {
                except.push(place);
            }
        }
        if moved {
            self.by_slot.set(placed);
            self.find(scratch);
        }
        let dropped = batch.dropped + self.take(&scratch.places, &mut scratch.columns, taken);
        for (slot, uses) in &batch.gpus {
            if let Some(place) = self.by_slot.get(*slot) {
                self.write_gpus(place, uses);
            }
        }
        except.extend(batch.unsampled.iter().filter_map(|slot| self.by_slot.get(*slot)));
        except.sort_unstable();
        let samples = if batch.failed { fresh } else { self.sampled(taken, &except) };
        Outcome::Accepted { samples, dropped }
    }
}
