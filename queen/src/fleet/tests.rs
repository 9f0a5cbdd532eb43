//! What the fleet makes of frames and of time.

use super::sample::{SECOND, Session, cpu, fleet, hive, names, one_hive, row};
use super::{Outcome, Refusal};
use common::columns::{Change, Quanta, encode};
use common::{HiveId, WorkerId};
use proto::push_telemetry_request::Frame;
use proto::{Activity, Batch, Freshness, ProcessStats, PushTelemetryRequest, RegisterRequest, Snapshot, Worker};
use std::time::{Duration, Instant};

fn get(fleet: &super::Fleet, now: Instant, slot: u32) -> Option<Worker> {
    fleet.worker(now, &HiveId::parse("box").unwrap(), &WorkerId::new("llm", &slot.to_string()).unwrap())
}

fn freshness(fleet: &super::Fleet, now: Instant, slot: u32) -> Freshness {
    get(fleet, now, slot).unwrap().freshness()
}

#[test]
fn update_workers_stores_correctly() {
    let now = Instant::now();
    let fleet = fleet(now);
    let stats = ProcessStats {
        cpu_pct: Some(12.5),
        memory_current_bytes: Some(12_345),
        gpu_util_pct: Some(0.0),
        vram_bytes: Some(8 << 30),
        ..ProcessStats::default()
    };
    let mut session = one_hive(&fleet, now, vec![stats.clone(), cpu(1.0)]);
    assert_eq!(get(&fleet, now, 1).unwrap().stats, Some(stats.clone()));
    // Columns change one field of one worker; everything else stays as it was.
    let after = Quanta::of(&ProcessStats { cpu_pct: Some(50.0), ..stats.clone() });
    let columns = encode(&[Change { slot: 1, before: Quanta::of(&stats), after }]);
    session.batch(now + SECOND, Batch { columns, ..Batch::default() }).unwrap();
    let stored = get(&fleet, now + SECOND, 1).unwrap().stats.unwrap();
    assert_eq!((stored.cpu_pct, stored.gpu_util_pct, stored.vram_bytes), (Some(50.0), Some(0.0), Some(8 << 30)));
    assert_eq!(get(&fleet, now + SECOND, 2).unwrap().stats, Some(cpu(1.0)));
}

#[test]
fn get_workers_returns_stored() {
    let now = Instant::now();
    let fleet = fleet(now);
    one_hive(&fleet, now, vec![cpu(1.0)]);
    let worker = get(&fleet, now + SECOND, 1).unwrap();
    assert_eq!(worker.spec.unwrap().instance, "1");
    assert_eq!((worker.freshness, worker.age), (Freshness::Live.into(), Some(common::duration(SECOND))));
    assert_eq!(get(&fleet, now, 2), None);
}

#[test]
fn get_all_workers_flattens() {
    let now = Instant::now();
    let fleet = fleet(now);
    one_hive(&fleet, now, vec![cpu(1.0), cpu(2.0)]);
    let mut other = Session::open(&fleet, hive("den"), now).unwrap();
    other.snapshot(now, vec![row("den", 1, cpu(3.0))]).unwrap();
    assert_eq!(names(&fleet, now), ["box/llm/1", "box/llm/2", "den/llm/1"]);
}

#[test]
fn update_workers_thread_safe() {
    let now = Instant::now();
    let fleet = fleet(now);
    std::thread::scope(|scope| {
        for id in ["a", "b", "c", "d"] {
            let fleet = &fleet;
            scope.spawn(move || {
                let mut session = Session::open(fleet, hive(id), now).unwrap();
                for round in 1..=200_u32 {
                    let rows = (1..=5).map(|slot| row(id, slot, cpu(f64::from(round)))).collect();
                    session.snapshot(now + Duration::from_millis(round.into()), rows).unwrap();
                }
            });
        }
        for _ in 0..200 {
            fleet.expire(now);
            fleet.walk(now, None, |seen| assert!(seen.stats().is_some()));
        }
    });
    assert_eq!(names(&fleet, now).len(), 20);
    fleet.walk(now, None, |seen| assert_eq!(seen.stats().unwrap().cpu_pct(), Some(200.0)));
}

#[test]
fn cleanup_stale_removes_old_workers() {
    let now = Instant::now();
    let fleet = fleet(now);
    one_hive(&fleet, now, vec![cpu(1.0)]);
    fleet.expire(now + SECOND * 3);
    assert_eq!(freshness(&fleet, now + SECOND * 3, 1), Freshness::Live);
    fleet.expire(now + SECOND * 4);
    assert_eq!(freshness(&fleet, now + SECOND * 4, 1), Freshness::Stale);
    assert_eq!(fleet.expire(now + SECOND * 11).lost.len(), 1);
    assert!(fleet.expire(now + SECOND * 90).removed.is_empty());
    assert_eq!(fleet.expire(now + SECOND * 91).removed, [HiveId::parse("box").unwrap()]);
    assert!(names(&fleet, now + SECOND * 91).is_empty());
}

#[test]
fn a_hive_that_is_heard_from_keeps_its_workers() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    for second in 1..=200 {
        session.batch(now + SECOND * second, Batch::default()).unwrap();
        assert_eq!(fleet.expire(now + SECOND * second), super::Expired::default());
    }
    assert_eq!(freshness(&fleet, now + SECOND * 200, 1), Freshness::Live);
}

#[test]
fn t1_a_replayed_frame_is_counted_and_ignored() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    session.sequence -= 1;
    assert_eq!(session.snapshot(now, vec![]), Ok(Outcome::Replayed));
    assert_eq!(names(&fleet, now).len(), 1);
    session.sequence += 1;
    assert!(matches!(session.batch(now, Batch::default()), Err(Refusal::Resync(_))), "a gap asks for a resync");
}

#[test]
fn t2_a_newer_session_fences_the_older() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut old = one_hive(&fleet, now, vec![cpu(1.0)]);
    let fence = fleet.attach(&old.session).unwrap();
    let mut new = Session::open(&fleet, hive("box"), now).unwrap();
    assert!(fence.is_cancelled());
    assert_eq!(old.snapshot(now, vec![]), Err(Refusal::Superseded));
    assert_eq!(names(&fleet, now), ["box/llm/1"], "what the older told stays until the first snapshot of the newer");
    fleet.detach(now, &old.session, false);
    assert_eq!(freshness(&fleet, now, 1), Freshness::Live, "the end of the older stream says nothing");
    new.snapshot(now, vec![row("box", 7, cpu(1.0))]).unwrap();
    assert_eq!(names(&fleet, now), ["box/llm/7"]);
    let stranger = PushTelemetryRequest { session: "box/99/x".into(), sequence: 1, ..Default::default() };
    assert_eq!(fleet.apply(now, stranger), Err(Refusal::Unknown));
}

#[test]
fn t2_a_register_that_was_given_up_and_is_met_late_fences_nobody() {
    let now = Instant::now();
    let fleet = fleet(now);
    let register = |at, sent_boottime_ns| {
        let request = RegisterRequest { hive: Some(hive("box")), sent_boottime_ns, ..RegisterRequest::default() };
        fleet.register(at, request, "t").map(|opened| opened.session)
    };
    let present = register(now, Some(7)).unwrap();
    let fence = fleet.attach(&present).unwrap();
    assert_eq!(register(now, Some(6)), Err(Refusal::Superseded));
    assert!(!fence.is_cancelled() && fleet.holder(&present).is_ok());
    assert!(register(now, Some(7)).is_ok() && fence.is_cancelled(), "not before it is not late");
    assert!(register(now, None).is_ok(), "who does not say comes when it comes");
    assert!(register(now, Some(6)).is_ok(), "and nothing is known to be before that");
    assert_eq!(register(now + SECOND * 10, Some(5)), Err(Refusal::Superseded));
    let silent = register(now + SECOND * 11, Some(5)).expect("clocks go back, and a silent session bars nobody");
    fleet.attach(&silent).unwrap();
    fleet.detach(now + SECOND * 11, &silent, true);
    assert!(register(now + SECOND * 11, Some(4)).is_ok(), "nor one that has said goodbye");
}

#[test]
fn a_name_that_is_alive_elsewhere_is_refused_until_it_is_lost() {
    let now = Instant::now();
    let fleet = fleet(now);
    one_hive(&fleet, now, vec![]);
    let twin = || proto::Hive { boot_id: "boot-2".into(), ..hive("box") };
    let request = || RegisterRequest { hive: Some(twin()), ..RegisterRequest::default() };
    let refusal = fleet.register(now + SECOND, request(), "t").unwrap_err();
    let sentence = refusal.to_string();
    assert!(sentence.contains("boot-1") && sentence.contains("boot-2"), "{sentence}");
    assert!(fleet.register(now + SECOND * 11, request(), "t").is_ok());
}

#[test]
fn t4_a_failed_round_removes_nothing_and_ages_grow() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0), cpu(2.0)]);
    for second in 1..=5 {
        session.batch(now + SECOND * second, Batch { failed: "no cgroups".into(), ..Batch::default() }).unwrap();
    }
    assert_eq!(get(&fleet, now + SECOND * 5, 1).unwrap().age, Some(common::duration(SECOND * 5)));
    assert_eq!(freshness(&fleet, now + SECOND * 5, 1), Freshness::Stale);
    // One worker that cannot be sampled grows old alone.
    session.batch(now + SECOND * 6, Batch { failed_slot_gaps: vec![2], ..Batch::default() }).unwrap();
    assert_eq!(freshness(&fleet, now + SECOND * 6, 1), Freshness::Live);
    assert_eq!(freshness(&fleet, now + SECOND * 6, 2), Freshness::Stale);
}

#[test]
fn removals_apply_with_the_last_chunk_only() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0), cpu(2.0)]);
    let chunk = |slot, last| Frame::Snapshot(Snapshot { rows: vec![row("box", slot, cpu(1.0))], last });
    let first = session.frame(now, chunk(3, false));
    fleet.apply(now, first).unwrap();
    assert_eq!(names(&fleet, now).len(), 3);
    let last = session.frame(now, chunk(1, true));
    fleet.apply(now, last).unwrap();
    assert_eq!(names(&fleet, now), ["box/llm/1", "box/llm/3"]);
}

#[test]
fn b1_a_frame_over_the_limits_is_refused_and_the_next_snapshot_counts() {
    let now = Instant::now();
    let config = crate::Config { max_workers: 2, max_frame_bytes: 2_000, ..Default::default() };
    let fleet = super::Fleet::new(&config, "q1".into(), now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    let rows = |count| (1..=count).map(|slot| row("box", slot, cpu(1.0))).collect::<Vec<_>>();
    assert!(matches!(session.snapshot(now, rows(3)), Ok(Outcome::Refused(_))));
    assert!(matches!(session.snapshot(now, rows(200)), Ok(Outcome::Refused(_))));
    assert_eq!(names(&fleet, now).len(), 1, "nothing of it was kept, nothing removed");
    assert!(matches!(session.snapshot(now, rows(2)), Ok(Outcome::Accepted { samples: 2, .. })));
    assert_eq!(names(&fleet, now).len(), 2);
    let third = Batch { rows: vec![row("box", 3, cpu(1.0))], ..Batch::default() };
    assert!(matches!(session.batch(now, third), Ok(Outcome::Refused(_))));
    let reason = session.batch(now, Batch::default()).unwrap_err().to_string();
    assert!(reason.contains("at most 2"), "differences no longer fit, and the end says why: {reason}");
}

#[test]
fn columns_that_do_not_fit_ask_for_a_resync_and_change_nothing() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    let change = |slot| Change { slot, before: Quanta::default(), after: Quanta::of(&cpu(9.0)) };
    let batch = Batch { columns: encode(&[change(1), change(5)]), removed_slots: vec![1], ..Batch::default() };
    assert!(matches!(session.batch(now, batch), Err(Refusal::Resync(_))));
    assert_eq!(get(&fleet, now, 1).unwrap().stats, Some(cpu(1.0)));
}

#[test]
fn a_broken_stream_shows_at_once() {
    let now = Instant::now();
    let fleet = fleet(now);
    let session = one_hive(&fleet, now, vec![cpu(1.0)]);
    fleet.detach(now, &session.session, false);
    assert_eq!(freshness(&fleet, now, 1), Freshness::Stale);
    let mut again = Session::open(&fleet, hive("box"), now + SECOND).unwrap();
    assert_eq!(freshness(&fleet, now + SECOND, 1), Freshness::Stale, "until it is heard from");
    again.snapshot(now + SECOND, vec![row("box", 1, cpu(1.0))]).unwrap();
    assert_eq!(freshness(&fleet, now + SECOND, 1), Freshness::Live);
}

#[test]
fn t3_a_backlog_is_old_when_it_arrives_and_ends_in_a_resync() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = one_hive(&fleet, now, vec![cpu(1.0)]);
    session.batch(now + SECOND, Batch::default()).unwrap();
    let arrival = now + SECOND * 120;
    let mut ended = None;
    for second in 2..=30 {
        let mut frame = session.frame(now, Frame::Batch(Batch::default()));
        frame.monotonic_ms = second * 1_000;
        if let Err(refusal) = fleet.apply(arrival, frame) {
            ended = Some((second, refusal));
            break;
        }
        assert_eq!(freshness(&fleet, arrival, 1), Freshness::Lost, "second {second} is news of long ago");
    }
    assert!(matches!(ended, Some((11, Refusal::Resync(_)))), "{ended:?}");
}

#[test]
fn s4_after_its_own_pause_the_queen_loses_nobody_before_a_full_grace() {
    let now = Instant::now();
    let fleet = fleet(now);
    one_hive(&fleet, now, vec![cpu(1.0)]);
    fleet.look(now + SECOND);
    fleet.expire(now + SECOND);
    let back = now + SECOND * 122;
    assert_eq!(fleet.look(back), Some(SECOND * 120));
    assert_eq!(fleet.expire(back), super::Expired::default());
    assert_eq!(freshness(&fleet, back, 1), Freshness::Live);
    assert_eq!(get(&fleet, back, 1).unwrap().age, Some(common::duration(SECOND * 122)), "its age is told as it is");
    for second in 123..=211 {
        assert_eq!(fleet.look(now + SECOND * second), None);
        assert_eq!(fleet.expire(now + SECOND * second).removed.len(), usize::from(second == 211), "{second}");
    }
}

#[test]
fn s4_what_waited_for_the_queen_loses_nobody_before_she_has_noticed_her_pause() {
    let now = Instant::now();
    let fleet = fleet(now);
    let session = one_hive(&fleet, now, vec![cpu(1.0)]).session;
    fleet.look(now + SECOND);
    let back = now + SECOND * 122;
    assert_eq!(freshness(&fleet, back, 1), Freshness::Live);
    fleet.detach(back, &session, false);
    assert_eq!(freshness(&fleet, back, 1), Freshness::Stale, "as whoever lost his stream");
    let request = RegisterRequest { hive: Some(hive("box")), ..RegisterRequest::default() };
    fleet.register(back, request, "t").unwrap();
    assert_eq!(freshness(&fleet, back, 1), Freshness::Stale);
    assert_eq!(fleet.look(back), Some(SECOND * 120));
    assert_eq!(fleet.expire(back), super::Expired::default());
}

#[test]
fn a_mass_loss_removes_nobody_for_a_while() {
    let now = Instant::now();
    let fleet = fleet(now);
    let ids: Vec<String> = (0..10).map(|i| format!("h{i}")).collect();
    let mut sessions: Vec<_> = ids.iter().map(|id| Session::open(&fleet, hive(id), now).unwrap()).collect();
    let mut frozen = 0;
    for second in 1..=92 {
        for session in sessions.iter_mut().skip(4) {
            session.snapshot(now + SECOND * second, vec![]).unwrap();
        }
        let expired = fleet.expire(now + SECOND * second);
        frozen += u32::from(expired.frozen);
        assert_eq!(expired.removed, []);
    }
    assert_eq!((frozen, fleet.coverage(now + SECOND * 92).hives_known), (1, 10));
}

#[test]
fn bookmarks_count_who_is_there() {
    let now = Instant::now();
    let fleet = fleet(now);
    let idle = ProcessStats { activity: Activity::Idle.into(), ..ProcessStats::default() };
    one_hive(&fleet, now, vec![idle, cpu(1.0)]);
    let census = fleet.census(now);
    assert_eq!((census.workers_online, census.workers_available), (2, 1));
    assert_eq!((census.hives_online, census.hives_available), (1, 1));
    assert_eq!(
        (census.worker_ids, census.hive_ids),
        (vec!["box/llm/1".into(), "box/llm/2".into()], vec!["box".into()])
    );
    assert_eq!(fleet.census(now + SECOND * 4).workers_online, 0);
}

#[test]
fn a_silent_hive_is_forgotten_at_once_also_while_removal_is_frozen() {
    let now = Instant::now();
    let fleet = fleet(now);
    let ids: Vec<String> = (0..10).map(|i| format!("h{i}")).collect();
    for id in &ids {
        let mut session = Session::open(&fleet, hive(id), now).unwrap();
        session.snapshot(now, vec![row(id, 1, cpu(1.0)), row(id, 2, cpu(1.0))]).unwrap();
    }
    let id = HiveId::parse("h3").unwrap();
    let refusal = fleet.forget(now + SECOND * 10, &id).unwrap_err().to_string();
    assert!(refusal.contains("h3 was heard from 10.0 s ago"), "{refusal}");
    let later = now + SECOND * 100;
    assert!(fleet.expire(later).frozen && fleet.coverage(later).removal_frozen);
    assert_eq!(fleet.forget(later, &id), Ok(2));
    assert_eq!(fleet.forget(later, &id), Err(super::Kept::Unknown(id)));
    assert_eq!((names(&fleet, later).len(), fleet.coverage(later).hives_known), (18, 9));
    assert!(!fleet.coverage(now + SECOND * 1_100).removal_frozen, "it lasts for a quarter of an hour");
}

#[test]
fn a_silent_hive_is_removed_in_the_end_however_often_others_make_that_wait() {
    let start = Instant::now();
    let fleet = fleet(start);
    let at = |seconds: u32| start + SECOND * seconds;
    let open = |i: u32| Session::open(&fleet, hive(&format!("h{i}")), start).unwrap();
    let mut sessions: Vec<Session> = (0..10).map(open).collect();
    let mut heard = |hives: std::ops::Range<usize>, when| {
        for i in hives {
            sessions[i].snapshot(when, vec![row(&format!("h{i}"), 1, cpu(1.0))]).unwrap();
        }
    };
    heard(0..10, start);
    heard(4..10, at(99));
    assert!(fleet.expire(at(100)).frozen, "four of ten");
    heard(4..10, at(795));
    heard(8..10, at(899));
    let expired = fleet.expire(at(900));
    assert!(expired.frozen && expired.removed.is_empty(), "four others: {expired:?}");
    heard(8..10, at(994));
    let mut removed: Vec<String> = fleet.expire(at(995)).removed.iter().map(ToString::to_string).collect();
    removed.sort();
    assert_eq!(removed, ["h0", "h1", "h2", "h3"]);
    assert!(fleet.coverage(at(995)).removal_frozen);
}
