//! Hives that break the rules of their session, by mistake or not: what they send costs others nothing and leaves no
//! state that nobody described.

use super::sample::{SECOND, Session, cpu, fleet, hive, names, one_hive, row};
use super::{Fleet, Outcome, Refusal};
use crate::Config;
use proto::push_telemetry_request::Frame;
use proto::{Batch, Column, Columns, Gpu, GpuCell, GpuUse, Hive, ProcessStats, SlotGpus, Snapshot, WorkerRow};
use std::time::{Duration, Instant};

fn named(slot: u32, name: u32) -> WorkerRow {
    WorkerRow { slot, ..row("box", name, cpu(1.0)) }
}

fn small(now: Instant) -> Fleet {
    Fleet::new(&Config { max_workers: 4, ..Config::default() }, "q1".into(), now)
}

#[test]
fn a_slot_or_a_worker_named_twice_in_a_frame_is_refused() {
    let now = Instant::now();
    for twice in [vec![named(7, 7), named(7, 8)], vec![named(7, 7), named(8, 7)]] {
        let fleet = fleet(now);
        let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
        let refusal = session.batch(now, Batch { rows: twice.clone(), ..Batch::default() }).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid { field: "rows.slot", .. }), "{refusal}");
        let mut session = Session::open(&fleet, hive("box"), now).unwrap();
        assert!(session.snapshot(now, twice.clone()).is_err());
        let mut session = Session::open(&fleet, hive("box"), now).unwrap();
        let mut chunks = twice.into_iter().map(|row| Frame::Snapshot(Snapshot { rows: vec![row], last: false }));
        let first = session.frame(now, chunks.next().unwrap());
        fleet.apply(now, first).unwrap();
        let second = session.frame(now, chunks.next().unwrap());
        assert!(fleet.apply(now, second).is_err(), "in two chunks of one snapshot");
    }
}

#[test]
fn a_worker_has_one_slot_at_a_time() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0), cpu(2.0)]);
    let moved = Batch { rows: vec![named(9, 1)], removed_slots: vec![1, 1], ..Batch::default() };
    assert!(matches!(session.batch(now, moved), Ok(Outcome::Accepted { .. })), "removed and named anew at once");
    assert_eq!(names(&fleet, now), ["box/llm/1", "box/llm/2"]);
    let copied = Batch { rows: vec![named(10, 1)], ..Batch::default() };
    assert!(matches!(session.batch(now, copied), Err(Refusal::Resync(_))));
}

#[test]
fn a_session_that_was_refused_a_frame_goes_on_with_a_new_one_only() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    let column = Column { present: vec![], deltas: vec![100] };
    let step = || Columns { slot_gaps: vec![1], cpu_pct: Some(column.clone()), ..Columns::default() };
    let stranger = WorkerRow { slot: 2, ..row("den", 2, cpu(1.0)) };
    let bad = Batch { rows: vec![stranger], columns: Some(step()), ..Batch::default() };
    assert!(session.batch(now, bad).is_err());
    let next = Batch { columns: Some(step()), ..Batch::default() };
    assert!(matches!(session.batch(now, next), Err(Refusal::Resync(_))), "its differences build on what was refused");
    assert!(session.snapshot(now, vec![]).is_err(), "a chunk may have been lost before this one");
    assert_eq!(names(&fleet, now), ["box/llm/1"]);
    let mut session = Session::open(&fleet, hive("box"), now).unwrap();
    assert!(session.snapshot(now, vec![row("box", 3, cpu(1.0))]).is_ok());
    assert_eq!(names(&fleet, now), ["box/llm/3"]);
}

#[test]
fn q3_snapshots_that_never_become_whole_do_not_pile_up() {
    let now = Instant::now();
    let fleet = small(now);
    for round in 0..50 {
        let mut session = Session::open(&fleet, hive("box"), now).unwrap();
        let rows = (1..=4).map(|slot| named(slot, round * 4 + slot)).collect();
        let frame = session.frame(now, Frame::Snapshot(Snapshot { rows, last: false }));
        fleet.apply(now, frame).unwrap();
        assert!(names(&fleet, now).len() <= 8);
    }
    let mut session = Session::open(&fleet, hive("box"), now).unwrap();
    session.snapshot(now, vec![named(1, 1)]).unwrap();
    assert_eq!(names(&fleet, now), ["box/llm/1"]);
}

#[test]
fn b1_only_new_workers_count_against_the_limit() {
    let now = Instant::now();
    let fleet = small(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0), cpu(1.0), cpu(1.0)]);
    let changed = vec![named(1, 1), named(2, 2), named(4, 4)];
    let outcome = session.batch(now, Batch { rows: changed, ..Batch::default() });
    assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
    let again = |slot: u32| named(slot, slot);
    let rows = vec![again(1), again(2), again(3), again(4), again(7)];
    let beyond = Batch { rows, removed_slots: vec![1, 2, 3, 4], ..Batch::default() };
    assert!(matches!(session.batch(now, beyond), Ok(Outcome::Refused(_))), "all left and came back, and one more");
    session.snapshot(now, vec![again(1), again(2), again(3), again(4)]).unwrap();
    let beyond = Batch { rows: vec![named(5, 5), named(6, 6)], removed_slots: vec![1, 1, 1], ..Batch::default() };
    let outcome = session.batch(now, beyond);
    assert!(matches!(outcome, Ok(Outcome::Refused(_))), "one left, however often it is said: {outcome:?}");
}

#[test]
fn b2_dates_that_no_calendar_has_are_dropped_and_counted() {
    let now = Instant::now();
    let fleet = fleet(now);
    let never = [(i64::MAX, 0), (253_402_300_800, 0), (-1, 0), (1, -1), (1, i32::MAX)];
    for (seconds, nanos) in never {
        let at = Some(prost_types::Timestamp { seconds, nanos });
        let mut session = Session::open(&fleet, hive("box"), now).unwrap();
        let mut worker = row("box", 1, ProcessStats { idle_since: at, ..cpu(1.0) });
        worker.spec.as_mut().unwrap().start_time = at;
        let mut frame = session.frame(now, Frame::Snapshot(Snapshot { rows: vec![worker], last: true }));
        frame.sampled_at = at;
        let outcome = fleet.apply(now, frame).unwrap();
        assert_eq!(outcome, Outcome::Accepted { samples: 1, dropped: 3 }, "{seconds} s, {nanos} ns");
        let mut found = None;
        fleet.walk(now, None, |seen| found = Some(seen.to_wire()));
        let found = found.unwrap();
        assert_eq!((found.spec.unwrap().start_time, found.stats.unwrap().idle_since), (None, None));
        let late = Columns {
            slot_gaps: vec![1],
            idle_since: Some(Column { present: vec![], deltas: vec![253_402_300_800_000] }),
            ..Columns::default()
        };
        let outcome = session.batch(now, Batch { columns: Some(late), ..Batch::default() }).unwrap();
        assert!(matches!(outcome, Outcome::Accepted { dropped: 1, .. }), "{outcome:?}");
    }
}

#[test]
fn b1_no_name_of_a_gpu_makes_an_answer_too_large() {
    let now = Instant::now();
    let fleet = fleet(now);
    let long = || GpuUse { uuid: "x".repeat(3 << 20), ..GpuUse::default() };
    let mut session = one_hive(&fleet, now, vec![ProcessStats { gpus: vec![long()], ..cpu(1.0) }]);
    let gpus = vec![SlotGpus { slot: 1, gpus: vec![long()], cells: vec![], sole: None }];
    session.batch(now, Batch { gpus, ..Batch::default() }).unwrap();
    fleet.walk(now, None, |seen| assert_eq!(seen.stats().unwrap().gpus(), []));
}

#[test]
fn b7_a_list_of_gpus_takes_no_more_room_than_it_is_kept_in() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    let told = Hive { gpus: vec![Gpu { uuid: "x".repeat(128), ..Gpu::default() }], ..hive("box") };
    let mut frame = session.frame(now, Frame::Batch(Batch::default()));
    frame.hive = Some(told);
    fleet.apply(now, frame).unwrap();
    let cells = vec![GpuCell::default(); 100_000];
    let list = SlotGpus { slot: 1, cells, ..SlotGpus::default() };
    let outcome = session.batch(now, Batch { gpus: vec![list.clone()], ..Batch::default() }).unwrap();
    assert!(matches!(outcome, Outcome::Accepted { dropped: 99_936, .. }), "{outcome:?}");
    fleet.walk(now, None, |seen| assert_eq!(seen.stats().unwrap().gpus().len(), 64));
    let twice = Batch { gpus: vec![list.clone(), list], ..Batch::default() };
    assert!(matches!(session.batch(now, twice), Err(Refusal::Invalid { field: "batch.gpus", .. })));
}

#[test]
fn b7_a_frame_full_of_rows_and_slots_is_checked_in_time_that_grows_with_it() {
    let now = Instant::now();
    let fleet = Fleet::new(&Config { max_workers: 30_000, ..Config::default() }, "q1".into(), now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    let rows: Vec<WorkerRow> = (2..=30_000).map(|slot| row("box", slot, cpu(1.0))).collect();
    let columns = Some(Columns { slot_gaps: vec![1; 30_000], ..Columns::default() });
    let began = Instant::now();
    session.batch(now, Batch { rows, columns, ..Batch::default() }).unwrap();
    // Row by row for each slot it would be half a billion looks.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    fleet.expire(now + SECOND);
}
