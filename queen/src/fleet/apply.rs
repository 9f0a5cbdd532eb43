//! One frame into the fleet. Everything is checked before anything is kept, so a refused frame leaves no trace but
//! its number.

use super::frame::{self, Batch, Body, Frame};
use super::known::{Judging, KnownHive};
use super::row::{self, Checked};
use super::session::hive_of;
use super::slots::{Pending, Slots, Synced};
use super::{Bounds, Fleet, Refusal};
use common::HiveId;
use common::columns::{ColumnError, ReadError, Room};
use prost::Message;
use proto::{PushTelemetryRequest, Snapshot};
use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Instant;

/// After this many frames in a row that were older than the lost limit when they arrived, the hive is asked to begin
/// again: either a backlog is being replayed, or its clock stood still and can no longer be compared.
const LATE_FRAMES: u32 = 10;

/// Rooms that are kept for the next frames: as many as there may be threads that apply some at once.
const SPARE: usize = 64;

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

/// Room that one frame after the other is read into.
#[derive(Debug, Default)]
pub struct Scratch {
    pub columns: Room,
    /// The places of the workers in `columns`.
    pub places: Vec<Option<u32>>,
}

impl Fleet {
    /// Applies a frame that arrived now.
    ///
    /// # Errors
    /// Why its stream must end.
    pub fn apply(&self, now: Instant, frame: PushTelemetryRequest) -> Result<Outcome, Refusal> {
        self.apply_bytes(now, &hive_of(&frame.session)?, &frame.encode_to_vec())
    }

    /// Applies a frame of the hive `id`, as it came off the wire, that arrived now.
    ///
    /// # Errors
    /// Why its stream must end.
    pub fn apply_bytes(&self, now: Instant, id: &HiveId, bytes: &[u8]) -> Result<Outcome, Refusal> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = spare().pop().unwrap_or_default();
        let outcome = match self.try_apply(now, id, bytes, &mut scratch) {
            Err(Trouble::Unusual) => self.apply_rewritten(now, id, bytes, &mut scratch),
            Err(Trouble::Refused(refusal)) => Err(refusal),
            Ok(outcome) => Ok(outcome),
        };
        let mut spare = spare();
        if spare.len() < SPARE {
            spare.push(scratch);
        }
        outcome
    }

    fn apply_rewritten(
        &self,
        now: Instant,
        id: &HiveId,
        bytes: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Outcome, Refusal> {
        let rewritten = frame::rewritten(bytes)?;
        self.try_apply(now, id, &rewritten, scratch).map_err(|trouble| match trouble {
            Trouble::Refused(refusal) => refusal,
            Trouble::Unusual => Refusal::invalid("frame", "cannot be read"),
        })
    }

    fn try_apply(&self, now: Instant, id: &HiveId, bytes: &[u8], scratch: &mut Scratch) -> Result<Outcome, Trouble> {
        let frame = Frame::read(bytes).map_err(|_| Trouble::Unusual)?;
        scratch.columns.clear();
        if let Body::Batch(Batch { columns: Some(columns), .. }) = &frame.body {
            // Columns that do not fit are judged in their turn: who sent them may have been refused before.
            match scratch.columns.read(columns) {
                Err(ReadError::Unusual(_)) => return Err(Trouble::Unusual),
                Err(ReadError::Column(error)) => return self.spoil(now, id, frame, scratch, Some(error)),
                Ok(()) => {}
            }
        }
        self.spoil(now, id, frame, scratch, None)
    }

    /// Applies a frame; one that cannot be applied spoils its session.
    fn spoil(
        &self,
        now: Instant,
        id: &HiveId,
        frame: Frame<'_>,
        scratch: &mut Scratch,
        misfit: Option<ColumnError>,
    ) -> Result<Outcome, Trouble> {
        let mut hive = self.session_of(id, frame.session)?;
        if frame.sequence <= hive.sequence {
            return Ok(Outcome::Replayed);
        }
        if hive.spoilt {
            let words = "an earlier frame of this session was not accepted".to_owned();
            return Err(Refusal::Resync(words).into());
        }
        let outcome = self.accept(&mut hive, now, frame, scratch, misfit);
        hive.spoilt = outcome.is_err();
        Ok(outcome?)
    }

    fn accept(
        &self,
        hive: &mut KnownHive,
        now: Instant,
        frame: Frame<'_>,
        scratch: &mut Scratch,
        misfit: Option<ColumnError>,
    ) -> Result<Outcome, Refusal> {
        if frame.sequence != hive.sequence + 1 {
            let gap = format!("frame {} follows frame {}", frame.sequence, hive.sequence);
            return Err(Refusal::Resync(gap));
        }
        hive.sequence = frame.sequence;
        hive.arrived = now;
        let taken = hive.arrivals.taken(now, frame.clock());
        self.judge_lateness(hive, now, taken)?;
        let limit = self.bounds.max_frame_bytes;
        if frame.size > limit {
            self.refused.frame_bytes();
            let size = frame.size;
            let last = frame.is_last()?;
            return Ok(hive.refuse(format!("a frame of {size} bytes is above the limit of {limit}"), last));
        }
        let news = frame.hive.map(|bytes| check_record(hive, bytes)).transpose()?;
        let sampled_at = frame.sampled_at.filter(|at| common::from_timestamp(at).is_some());
        let untimely = u64::from(frame.sampled_at.is_some() && sampled_at.is_none());
        hive.sampled_at = sampled_at.or(hive.sampled_at);
        let (mut outcome, sampled) = match frame.body {
            Body::Snapshot(bytes) => (hive.snapshot(Snapshot::decode(bytes)?, taken, now, &self.bounds)?, true),
            Body::Batch(batch) => {
                let failed = batch.failed;
                (hive.batch(batch, taken, now, &self.bounds, scratch, misfit)?, !failed)
            }
            Body::Nothing => (Outcome::Accepted { samples: 0, dropped: 0 }, false),
        };
        if matches!(outcome, Outcome::Refused(_)) {
            self.refused.workers();
        }
        if let Outcome::Accepted { dropped, .. } = &mut outcome {
            *dropped += untimely;
            if let Some((info, lies)) = news {
                *dropped += lies;
                hive.hear(info);
            }
        }
        hive.taken = hive.taken.max(taken);
        hive.broken &= hive.synced != Synced::Yes;
        hive.settle(&Judging { now, limits: &self.bounds.limits, pardon: &self.pardon(now) }, &self.index);
        hive.link(&self.feed, now, sampled && matches!(outcome, Outcome::Accepted { .. }));
        Ok(outcome)
    }

    /// A frame was too large even to be read.
    pub fn count_unread_frame(&self) {
        self.refused.frame_bytes();
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
    /// Keeps a new record. One that says nothing new is not linked again.
    fn hear(&mut self, mut info: proto::Hive) {
        (info.freshness, info.worker_count, info.age) = (self.info.freshness, self.info.worker_count, self.info.age);
        if info != self.info {
            self.info = info;
            self.dirty = true;
            self.note_holds();
        }
    }

    pub fn refuse(&mut self, reason: String, last: bool) -> Outcome {
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
        self.reserve(rows.iter().filter(|row| self.place_of(&row.id).is_none()).count());
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
        self.by_slot = Slots::from_pairs(pending.slots);
        self.synced = Synced::Yes;
    }
}

/// Why a frame was not applied.
enum Trouble {
    /// It is not written as every encoder writes it; nothing of it was looked at.
    Unusual,
    /// It was refused.
    Refused(Refusal),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn check_record(hive: &KnownHive, bytes: &[u8]) -> Result<(proto::Hive, u64), Refusal> {
    let mut info = proto::Hive::decode(bytes)?;
    let lies = row::check_hive(&hive.id, &mut info)?;
    Ok((info, lies))
}

pub(super) fn check_rows(hive: &KnownHive, rows: Vec<proto::WorkerRow>) -> Result<Vec<Checked>, Refusal> {
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

pub(super) fn too_many(count: usize, bounds: &Bounds) -> String {
    format!("{count} workers on one hive; at most {} are accepted", bounds.max_workers)
}

pub(super) fn resync(error: ColumnError) -> Refusal {
    Refusal::Resync(error.to_string())
}
