//! One frame into the fleet. Everything is checked before anything is kept, so a refused frame leaves no trace but
//! its number.

use super::known::{KnownHive, Pending, Synced};
use super::row::{self, Checked};
use super::{Bounds, Fleet, Refusal};
use common::columns::{self, ColumnError, Quanta, Unpacked};
use common::gpus::Uses;
use prost::Message;
use proto::push_telemetry_request::Frame;
use proto::{Batch, PushTelemetryRequest, Snapshot};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// After this many frames in a row that were older than the lost limit when they arrived, the hive is asked to begin
/// again: either a backlog is being replayed, or its clock stood still and can no longer be compared.
const LATE_FRAMES: u32 = 10;

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    Accepted {
        /// Samples of single workers in it.
        samples: u64,
        /// Numbers that cannot be true and were left out.
        dropped: u64,
    },
    /// Its number was not above the last one.
    Replayed,
    /// It is over a limit, which this sentence names. The stream may go on with a snapshot.
    Refused(String),
}

struct CheckedBatch {
    failed: bool,
    newcomers: usize,
    rows: Vec<Checked>,
    removed: Vec<u32>,
    unsampled: Vec<u32>,
    columns: Unpacked,
    gpus: Vec<(u32, Uses)>,
    dropped: u64,
}

impl Fleet {
    /// Applies a frame that arrived now.
    pub fn apply(&self, now: Instant, frame: PushTelemetryRequest) -> Result<Outcome, Refusal> {
        let mut hive = self.session(&frame.session)?;
        if frame.sequence <= hive.sequence {
            return Ok(Outcome::Replayed);
        }
        if hive.spoilt {
            return Err(Refusal::Resync("an earlier frame of this session was not accepted".to_owned()));
        }
        let outcome = self.accept(&mut hive, now, frame);
        hive.spoilt = outcome.is_err();
        outcome
    }

    fn accept(&self, hive: &mut KnownHive, now: Instant, frame: PushTelemetryRequest) -> Result<Outcome, Refusal> {
        let size = frame.encoded_len();
        if frame.sequence != hive.sequence + 1 {
            let gap = format!("frame {} follows frame {}", frame.sequence, hive.sequence);
            return Err(Refusal::Resync(gap));
        }
        hive.sequence = frame.sequence;
        hive.arrived = now;
        let taken = hive.arrivals.taken(now, frame.monotonic_ms);
        self.judge_lateness(hive, now, taken)?;
        if size > self.bounds.max_frame_bytes {
            self.refused.frame_bytes();
            let limit = self.bounds.max_frame_bytes;
            let last = !matches!(&frame.frame, Some(Frame::Snapshot(snapshot)) if !snapshot.last);
            return Ok(hive.refuse(format!("a frame of {size} bytes is above the limit of {limit}"), last));
        }
        let news = frame.hive.map(|mut info| row::check_hive(&hive.id, &mut info).map(|dropped| (info, dropped)));
        let news = news.transpose()?;
        let sampled_at = frame.sampled_at.filter(|at| common::from_timestamp(at).is_some());
        let untimely = u64::from(frame.sampled_at.is_some() && sampled_at.is_none());
        hive.sampled_at = sampled_at.or(hive.sampled_at);
        let (mut outcome, sampled) = match frame.frame {
            Some(Frame::Snapshot(snapshot)) => (hive.snapshot(snapshot, taken, now, &self.bounds)?, true),
            Some(Frame::Batch(batch)) => {
                let failed = !batch.failed.is_empty();
                (hive.batch(batch, taken, now, &self.bounds)?, !failed)
            }
            None => (Outcome::Accepted { samples: 0, dropped: 0 }, false),
        };
        if matches!(outcome, Outcome::Refused(_)) {
            self.refused.workers();
        }
        if let Outcome::Accepted { dropped, .. } = &mut outcome {
            *dropped += untimely;
            if let Some((info, lies)) = news {
                *dropped += lies;
                hive.dirty |= !hive.is_told(&info);
                hive.info = info;
                hive.note_holds();
            }
        }
        hive.taken = hive.taken.max(taken);
        hive.broken &= hive.synced != Synced::Yes;
        hive.refresh(now, &self.bounds.limits, &self.pardon());
        hive.settle(&self.index);
        hive.link(&self.feed, now, sampled && matches!(outcome, Outcome::Accepted { .. }));
        Ok(outcome)
    }

    fn judge_lateness(&self, hive: &mut KnownHive, now: Instant, taken: Instant) -> Result<(), Refusal> {
        let late = now.saturating_duration_since(taken) > self.bounds.limits.lost;
        hive.late = if late { hive.late + 1 } else { 0 };
        if hive.late < LATE_FRAMES {
            return Ok(());
        }
        Err(Refusal::Resync(format!("{LATE_FRAMES} frames in a row were old when they arrived")))
    }
}

impl KnownHive {
    /// Whether a record says nothing new.
    fn is_told(&self, info: &proto::Hive) -> bool {
        let known = proto::Hive { freshness: 0, age: None, worker_count: 0, ..self.info.clone() };
        known == *info
    }

    fn refuse(&mut self, reason: String, last: bool) -> Outcome {
        self.pending = None;
        self.skipping = !last;
        self.synced = Synced::Refused(reason.clone());
        Outcome::Refused(reason)
    }

    fn snapshot(
        &mut self,
        snapshot: Snapshot,
        taken: Instant,
        now: Instant,
        bounds: &Bounds,
    ) -> Result<Outcome, Refusal> {
        if self.skipping {
            self.skipping = !snapshot.last;
            return Ok(Outcome::Refused("its snapshot was refused before".to_owned()));
        }
        let before = self.pending.as_ref().map_or(0, |pending| pending.slots.len());
        if before + snapshot.rows.len() > bounds.max_workers {
            return Ok(self.refuse(too_many(before + snapshot.rows.len(), bounds), snapshot.last));
        }
        let rows = check_rows(self, snapshot.rows)?;
        if let Some(pending) = &self.pending {
            let twice = |row: &&Checked| {
                let placed = self.place_of(&row.id).is_some_and(|place| pending.places.contains(&place));
                placed || pending.slots.contains_key(&row.slot)
            };
            rows.iter().find(twice).map_or(Ok(()), |row| Err(named_twice(row)))?;
        }
        let dropped = rows.iter().map(|row| row.dropped).sum();
        let samples = rows.iter().filter(|row| row.stats.is_some()).count() as u64;
        let mut pending = self.pending.take().unwrap_or_default();
        // Workers of the session before stay until the snapshot is whole. Only snapshots that never became whole can
        // have left more than that.
        if self.count() + rows.len() > bounds.max_workers.saturating_mul(2) {
            self.by_slot.clear();
            self.keep_only(|place| pending.places.contains(&place));
        }
        for row in rows {
            let slot = row.slot;
            let place = self.place(row, taken, now);
            pending.slots.insert(slot, place);
            pending.places.insert(place);
        }
        if snapshot.last {
            self.complete(pending);
        } else {
            self.pending = Some(pending);
        }
        Ok(Outcome::Accepted { samples, dropped })
    }

    /// The snapshot is whole: who was not named is gone.
    fn complete(&mut self, pending: Pending) {
        self.keep_only(|place| pending.places.contains(&place));
        self.by_slot = pending.slots;
        self.synced = Synced::Yes;
    }

    fn batch(&mut self, batch: Batch, taken: Instant, now: Instant, bounds: &Bounds) -> Result<Outcome, Refusal> {
        match &self.synced {
            Synced::Yes if self.pending.is_none() => {}
            Synced::Refused(reason) => return Err(Refusal::TooMuch(reason.clone())),
            _ => return Err(Refusal::Resync("a batch came before the whole snapshot".to_owned())),
        }
        if batch.rows.len() > bounds.max_workers {
            return Ok(self.refuse(too_many(batch.rows.len(), bounds), true));
        }
        let checked = self.check(batch)?;
        let count = self.count() + checked.newcomers;
        if count > bounds.max_workers + checked.removed.len() {
            return Ok(self.refuse(too_many(count, bounds), true));
        }
        Ok(self.commit(checked, taken, now))
    }

    fn check(&self, batch: Batch) -> Result<CheckedBatch, Refusal> {
        let mut removed = batch.removed_slots;
        removed.sort_unstable();
        removed.dedup();
        let rows = check_rows(self, batch.rows)?;
        let newcomers = self.check_slots(&rows, &removed)?;
        let new: HashMap<u32, Quanta> = rows.iter().map(|row| (row.slot, row.quanta)).collect();
        let quanta = |slot: u32| {
            let held = self.by_slot.get(&slot).and_then(|place| self.at(*place)).map(|worker| worker.quanta);
            held.or_else(|| new.get(&slot).copied())
        };
        let columns = match batch.columns {
            Some(mut packed) => columns::decode(&mut packed, quanta).map_err(resync)?,
            None => Unpacked::default(),
        };
        let unsampled = columns::slots(&batch.failed_slot_gaps).map_err(resync)?;
        let mut gpus = Vec::with_capacity(batch.gpus.len());
        for packed in batch.gpus {
            let slot = packed.slot;
            let rows = common::gpus::unpack(&self.info.gpus, packed);
            gpus.push((
                slot,
                rows.ok_or_else(|| Refusal::Resync(format!("slot {slot} uses a GPU that was never told")))?,
            ));
        }
        let lies: u64 = gpus.iter_mut().map(|(_, uses)| row::clean_uses(uses)).sum();
        let named = removed.iter().chain(&unsampled).copied().chain(gpus.iter().map(|(slot, _)| *slot));
        if let Some(slot) = named.into_iter().find(|slot| quanta(*slot).is_none()) {
            return Err(resync(ColumnError::UnknownSlot(slot)));
        }
        let dropped = lies + columns.dropped + rows.iter().map(|row| row.dropped).sum::<u64>();
        let failed = !batch.failed.is_empty();
        Ok(CheckedBatch { failed, newcomers, rows, removed, unsampled, columns, gpus, dropped })
    }

    /// A slot is one worker's for the whole session, and a worker has one slot at a time. Answers how many rows are of
    /// workers that are not there, or leave with this frame.
    fn check_slots(&self, rows: &[Checked], removed: &[u32]) -> Result<usize, Refusal> {
        let leaving = |slot: &u32| self.by_slot.get(slot).filter(|_| removed.binary_search(slot).is_ok());
        let leaving: HashSet<u32> = removed.iter().filter_map(leaving).copied().collect();
        let mut newcomers = 0;
        for row in rows {
            let held = self.by_slot.get(&row.slot).copied();
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

    fn commit(&mut self, batch: CheckedBatch, taken: Instant, now: Instant) -> Outcome {
        // A slot that is removed was named by the hive itself; a failed round removes nothing else.
        for slot in batch.removed {
            if let Some(place) = self.by_slot.remove(&slot) {
                self.leave(place);
            }
        }
        let mut fresh = Vec::new();
        let mut bare = Vec::new();
        for row in batch.rows {
            let (slot, sampled) = (row.slot, row.stats.is_some());
            let place = self.place(row, taken, now);
            self.by_slot.insert(slot, place);
            if sampled { fresh.push(place) } else { bare.push(place) }
        }
        for (slot, quanta) in batch.columns.rows {
            self.write_slot(slot, Some(quanta), None, taken);
        }
        for (slot, gpus) in batch.gpus {
            self.write_slot(slot, None, Some(gpus), taken);
        }
        let mut except: Vec<u32> = batch.unsampled.iter().filter_map(|slot| self.by_slot.get(slot)).copied().collect();
        except.append(&mut bare);
        except.sort_unstable();
        let samples = if batch.failed { fresh.len() as u64 } else { self.sampled(taken, &except) };
        Outcome::Accepted { samples, dropped: batch.dropped }
    }

    fn write_slot(&mut self, slot: u32, quanta: Option<Quanta>, uses: Option<Uses>, taken: Instant) {
        if let Some(place) = self.by_slot.get(&slot) {
            self.write(*place, quanta, uses, taken);
        }
    }
}

fn check_rows(hive: &KnownHive, rows: Vec<proto::WorkerRow>) -> Result<Vec<Checked>, Refusal> {
    let rows: Vec<Checked> = rows.into_iter().map(|row| row::check(&hive.id, row)).collect::<Result<_, _>>()?;
    let (mut slots, mut names) = (HashSet::with_capacity(rows.len()), HashSet::with_capacity(rows.len()));
    match rows.iter().find(|row| !slots.insert(row.slot) || !names.insert(&row.id)) {
        Some(row) => Err(named_twice(row)),
        None => Ok(rows),
    }
}

fn named_twice(row: &Checked) -> Refusal {
    let reason = format!("{} on slot {}: each worker has one slot, and each slot one worker", row.id, row.slot);
    Refusal::invalid("rows.slot", reason)
}

fn too_many(count: usize, bounds: &Bounds) -> String {
    format!("{count} workers on one hive; at most {} are accepted", bounds.max_workers)
}

fn resync(error: ColumnError) -> Refusal {
    Refusal::Resync(error.to_string())
}
