//! What one queen has been handed, and the next frame computed against it. Pure: nothing here waits or sends.

use crate::roster::{Member, Roster, Slot};
use crate::round::{Round, Sample};
use common::columns::{Change, Quanta, encode, gaps};
use common::gpus::{Uses, pack, round};
use prost::Message;
use proto::push_telemetry_request::Frame;
use proto::{Batch, PushTelemetryRequest, Snapshot, WorkerRow};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows are added to a frame until it has this many bytes; the rest goes into the next frame.
const FRAME_BYTES: usize = 192 * 1024;

/// One worker as the queen has it.
#[derive(Debug, Clone)]
struct Known {
    member: Arc<Member>,
    quanta: Quanta,
    uses: Uses,
}

/// The state that one session of one queen was last handed.
#[derive(Debug)]
pub struct Handed {
    session: String,
    opened: Instant,
    sequence: u64,
    known: BTreeMap<Slot, Known>,
    hive: proto::Hive,
}

/// A frame, and whether rows had to be left for another one.
#[derive(Debug)]
pub struct Next {
    /// To be sent now.
    pub frame: PushTelemetryRequest,
    /// Call again at once.
    pub more: bool,
}

impl Handed {
    /// A session that was opened at `opened` with this record of the hive, and has been sent nothing yet.
    pub fn new(session: String, opened: Instant, hive: proto::Hive) -> Self {
        Self { session, opened, sequence: 0, known: BTreeMap::new(), hive }
    }

    /// The hive's record as the queen has it.
    pub fn hive(&self) -> &proto::Hive {
        &self.hive
    }

    /// Everything, in chunks. Call once, first.
    pub fn snapshot(&mut self, roster: &Roster, round: &Round) -> Vec<PushTelemetryRequest> {
        let mut chunks: Vec<Vec<WorkerRow>> = vec![Vec::new()];
        let mut bytes = 0;
        for member in &roster.members {
            let row = self.hand_over(member, sample_of(round, member));
            bytes += row.encoded_len();
            if bytes > FRAME_BYTES {
                chunks.push(Vec::new());
                bytes = row.encoded_len();
            }
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(row);
            }
        }
        let count = chunks.len();
        let frames = chunks.into_iter().enumerate();
        frames.map(|(i, rows)| self.frame(round, Frame::Snapshot(Snapshot { rows, last: i + 1 == count }))).collect()
    }

    /// What changed since the frame before. `sampled` says that `round` is news: only then does a worker that cannot
    /// be found in it count as not sampled.
    pub fn next(&mut self, roster: &Roster, round: &Round, hive: &proto::Hive, sampled: bool) -> Next {
        let mut batch =
            Batch { failed: round.failed.clone().filter(|_| sampled).unwrap_or_default(), ..Batch::default() };
        batch.removed_slots = self.leavers(roster);
        let (mut changes, mut failed, mut bytes, mut more) = (Vec::new(), Vec::new(), 0, false);
        for member in &roster.members {
            let sample = sample_of(round, member);
            match self.known.get_mut(&member.slot) {
                Some(known) if same(&known.member, member) => match sample {
                    Some(stats) => {
                        let after = Quanta::of(stats);
                        if after != known.quanta {
                            changes.push(Change { slot: member.slot, before: known.quanta, after });
                            known.quanta = after;
                        }
                        if !known.uses.still(stats) {
                            known.uses = Uses::of(stats, &self.hive.gpus);
                            batch.gpus.push(pack(member.slot, &self.hive.gpus, &known.uses));
                        }
                    }
                    // Who waits for its next start has nothing to be sampled.
                    None if member.footing.is_none() => {}
                    None => failed.push(member.slot),
                },
                _ if bytes > FRAME_BYTES => more = true,
                _ => {
                    let row = self.hand_over(member, sample);
                    bytes += row.encoded_len();
                    batch.rows.push(row);
                }
            }
        }
        batch.columns = encode(&changes);
        batch.failed_slot_gaps = gaps(failed.into_iter());
        let mut frame = self.frame(round, Frame::Batch(batch));
        if *hive != self.hive {
            self.hive.clone_from(hive);
            frame.hive = Some(hive.clone());
        }
        Next { frame, more }
    }

    fn leavers(&mut self, roster: &Roster) -> Vec<Slot> {
        let lives = |slot: Slot| roster.members.binary_search_by_key(&slot, |m| m.slot).is_ok();
        let gone: Vec<Slot> = self.known.keys().copied().filter(|slot| !lives(*slot)).collect();
        for slot in &gone {
            self.known.remove(slot);
        }
        gone
    }

    fn hand_over(&mut self, member: &Arc<Member>, stats: Option<&proto::ProcessStats>) -> WorkerRow {
        let quanta = stats.map(Quanta::of).unwrap_or_default();
        let uses = Uses::Rows(stats.map(|s| s.gpus.clone()).unwrap_or_default());
        self.known.insert(member.slot, Known { member: Arc::clone(member), quanta, uses });
        // What differences will say of it later is said from the first: a number must not move when only its form does.
        let stats = stats.map(|stats| {
            let mut row = stats.clone();
            quanta.write(&mut row);
            round(&mut row.gpus);
            row
        });
        WorkerRow { slot: member.slot, spec: Some(member.spec.clone()), state: member.state.into(), stats }
    }

    fn frame(&mut self, round: &Round, frame: Frame) -> PushTelemetryRequest {
        self.sequence += 1;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        PushTelemetryRequest {
            session: self.session.clone(),
            sequence: self.sequence,
            monotonic_ms: ms(round.taken.saturating_duration_since(self.opened)),
            before_register_ms: ms(self.opened.saturating_duration_since(round.taken)),
            sampled_at: Some(common::timestamp(round.sampled_at)),
            frame: Some(frame),
            hive: None,
        }
    }
}

fn same(known: &Arc<Member>, member: &Arc<Member>) -> bool {
    Arc::ptr_eq(known, member) || (known.state == member.state && known.spec == member.spec)
}

/// None of a worker that waits for its next start: what the round has of it is of a life that is over.
fn sample_of<'a>(round: &'a Round, member: &Member) -> Option<&'a proto::ProcessStats> {
    member.footing.as_ref()?;
    let at = round.samples.binary_search_by_key(&member.slot, |s: &Sample| s.slot).ok()?;
    round.samples.get(at)?.stats.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Footing;
    use common::WorkerId;
    use proto::{ProcessStats, WorkerSpec, WorkerState};
    use std::time::SystemTime;

    fn member(slot: Slot) -> Arc<Member> {
        let instance = format!("{slot}");
        Arc::new(Member {
            slot,
            id: WorkerId::new("llm", &instance).unwrap(),
            spec: WorkerSpec { hive: "box".into(), group: "llm".into(), instance, ..WorkerSpec::default() },
            state: WorkerState::Running,
            footing: Some(Footing { pid: 1, start_ticks: 1, cgroup: None, cgroup_inode: None }),
        })
    }

    fn roster(slots: &[Slot]) -> Roster {
        Roster { members: slots.iter().map(|s| member(*s)).collect() }
    }

    fn round(samples: &[(Slot, Option<f64>)]) -> Round {
        let sample = |(slot, cpu): &(Slot, Option<f64>)| Sample {
            slot: *slot,
            stats: cpu.map(|pct| ProcessStats { cpu_pct: Some(pct), ..ProcessStats::default() }),
        };
        Round { samples: samples.iter().map(sample).collect(), ..Round::empty(Instant::now(), SystemTime::now()) }
    }

    fn batch(next: Next) -> Batch {
        match next.frame.frame {
            Some(Frame::Batch(batch)) => batch,
            other => panic!("not a batch: {other:?}"),
        }
    }

    #[test]
    fn only_what_changed_is_sent() {
        let (who, hive) = (roster(&[1, 2, 3]), proto::Hive::default());
        let mut handed = Handed::new("s".into(), Instant::now(), hive.clone());
        let first = handed.snapshot(&who, &round(&[(1, Some(1.0)), (2, Some(2.0)), (3, Some(3.0))]));
        assert_eq!((first.len(), first[0].sequence), (1, 1));
        let next = handed.next(&who, &round(&[(1, Some(1.0)), (2, Some(9.0)), (3, Some(3.0))]), &hive, true);
        assert_eq!((next.frame.sequence, next.frame.hive.clone(), next.more), (2, None, false));
        let columns = batch(next).columns.unwrap();
        assert_eq!(columns.slot_gaps, vec![2]);
        assert_eq!(columns.cpu_pct.unwrap().deltas, vec![700]);
        assert_eq!(columns.vram, None);
    }

    #[test]
    fn s1_what_was_measured_before_the_session_says_so() {
        let old = round(&[(1, Some(1.0))]);
        let opened = old.taken + Duration::from_secs(300);
        let mut handed = Handed::new("s".into(), opened, proto::Hive::default());
        let frame = handed.snapshot(&roster(&[1]), &old).remove(0);
        assert_eq!((frame.monotonic_ms, frame.before_register_ms), (0, 300_000));
        let new = Round { taken: opened + Duration::from_secs(2), ..old };
        let frame = handed.next(&roster(&[1]), &new, &proto::Hive::default(), true).frame;
        assert_eq!((frame.monotonic_ms, frame.before_register_ms), (2_000, 0));
    }

    #[test]
    fn t3_a_replaced_round_loses_no_worker_removal_or_value() {
        let hive = proto::Hive::default();
        let mut handed = Handed::new("s".into(), Instant::now(), hive.clone());
        handed.snapshot(&roster(&[1, 2]), &round(&[(1, Some(1.0)), (2, Some(2.0))]));
        // A round in which worker 3 came, 2 went and 1 changed was never taken by the wire; this is the one after it.
        let sent = batch(handed.next(&roster(&[1, 3]), &round(&[(1, Some(5.0)), (3, Some(7.0))]), &hive, true));
        assert_eq!(sent.removed_slots, vec![2]);
        assert_eq!(sent.rows.iter().map(|r| r.slot).collect::<Vec<_>>(), vec![3]);
        assert_eq!(sent.columns.unwrap().cpu_pct.unwrap().deltas, vec![400]);
    }

    #[test]
    fn t4_a_worker_that_could_not_be_sampled_is_named_not_removed() {
        let (who, hive) = (roster(&[1, 2]), proto::Hive::default());
        let mut handed = Handed::new("s".into(), Instant::now(), hive.clone());
        handed.snapshot(&who, &round(&[(1, Some(1.0)), (2, Some(2.0))]));
        let sent = batch(handed.next(&who, &round(&[(1, None), (2, Some(2.0))]), &hive, true));
        assert_eq!((sent.failed_slot_gaps, sent.removed_slots, sent.columns), (vec![1], vec![], None));
    }

    #[test]
    fn who_waits_for_its_next_start_is_not_called_unsampled_and_shows_no_numbers_of_its_last_life() {
        let hive = proto::Hive::default();
        let mut handed = Handed::new("s".into(), Instant::now(), hive.clone());
        handed.snapshot(&roster(&[1]), &round(&[(1, Some(1.0))]));
        let mut waits = roster(&[1]);
        let member = Arc::make_mut(&mut waits.members[0]);
        (member.state, member.footing) = (WorkerState::Backoff, None);
        let sent = batch(handed.next(&waits, &round(&[(1, Some(1.0))]), &hive, false));
        assert_eq!((sent.rows[0].state(), sent.rows[0].stats.clone()), (WorkerState::Backoff, None));
        let sent = batch(handed.next(&waits, &round(&[]), &hive, true));
        assert_eq!((sent.failed_slot_gaps, sent.rows.len(), sent.columns), (vec![], 0, None));
    }

    #[test]
    fn a_snapshot_too_large_for_one_frame_travels_in_chunks() {
        let many: Vec<Slot> = (1..=20_000).collect();
        let mut handed = Handed::new("s".into(), Instant::now(), proto::Hive::default());
        let frames = handed.snapshot(&roster(&many), &round(&[]));
        assert!(frames.len() > 1);
        assert!(frames.iter().all(|f| f.encoded_len() <= 256 * 1024));
        let lasts: Vec<bool> = frames.iter().map(|f| matches!(&f.frame, Some(Frame::Snapshot(s)) if s.last)).collect();
        assert_eq!(lasts.iter().filter(|l| **l).count(), 1);
        assert_eq!(lasts.last(), Some(&true));
    }
}
