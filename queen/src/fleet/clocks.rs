//! Hives whose wall clock says nonsense, or is set: it decides nothing.

use super::sample::{SECOND, cpu, fleet, one_hive, row};
use common::{HiveId, WorkerId};
use proto::push_telemetry_request::Frame;
use proto::{Activity, Batch, Freshness, ProcessStats};
use std::time::{Duration, Instant};

#[test]
fn s3_steps_of_the_wall_clock_change_nothing() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    for (second, seconds) in [(1, 0), (2, 315_360_000), (3, -315_360_000), (4, 2_000_000_000)] {
        let mut frame = session.frame(now + SECOND * second, Frame::Batch(Batch::default()));
        frame.sampled_at = Some(prost_types::Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 });
        fleet.apply(now + SECOND * second, frame).unwrap();
        let (hive, id) = (HiveId::parse("box").unwrap(), WorkerId::new("llm", "1").unwrap());
        let worker = fleet.worker(now + SECOND * second, &hive, &id).unwrap();
        assert_eq!((worker.freshness(), worker.age), (Freshness::Live, Some(common::duration(Duration::ZERO))));
    }
}

#[test]
fn idle_time_is_counted_by_the_hives_own_clock_before_and_ours_after() {
    let now = Instant::now();
    let fleet = fleet(now);
    let idle_since = |seconds| ProcessStats {
        activity: Activity::Idle.into(),
        idle_since: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..ProcessStats::default()
    };
    // The first frame of a test session is sampled at 1,000,001 s.
    let mut session = one_hive(&fleet, now, vec![idle_since(1_000_001 - 60)]);
    let idle_for = |at| {
        let mut found = None;
        fleet.walk(at, None, |seen| found = seen.idle_for());
        found
    };
    assert_eq!(idle_for(now + SECOND), Some(SECOND * 61));
    session.batch(now + SECOND, Batch { rows: vec![row("box", 1, cpu(90.0))], ..Batch::default() }).unwrap();
    assert_eq!(idle_for(now + SECOND), None);
    session.batch(now + SECOND * 2, Batch { rows: vec![row("box", 1, idle_since(5))], ..Batch::default() }).unwrap();
    assert_eq!(idle_for(now + SECOND * 2), Some(SECOND), "never longer than since it was last seen busy");
}

#[test]
fn s3_a_wall_clock_that_is_set_ends_no_stretch_of_idleness() {
    let now = Instant::now();
    let fleet = fleet(now);
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let idle_since =
        |seconds| ProcessStats { activity: Activity::Idle.into(), idle_since: at(seconds), ..ProcessStats::default() };
    let mut session = one_hive(&fleet, now, vec![idle_since(1_000_001 - 60)]);
    // The hive's clock is set ten years forward; what it tells of the stretch is set with it.
    let later = now + SECOND * 5;
    let rows = vec![row("box", 1, idle_since(316_000_000 - 65))];
    let mut frame = session.frame(later, Frame::Batch(Batch { rows, ..Batch::default() }));
    frame.sampled_at = at(316_000_000);
    fleet.apply(later, frame).unwrap();
    let mut found = None;
    fleet.walk(later, None, |seen| found = seen.idle_for());
    assert_eq!(found, Some(SECOND * 65));
}
