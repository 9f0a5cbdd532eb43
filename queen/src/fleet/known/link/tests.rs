//! What waits while nobody watches, and what may not.

use crate::fleet::Fleet;
use crate::fleet::feed::{Place, Read, Revision, Rhythm};
use crate::fleet::sample::{SECOND, cpu, fleet, one_hive, row};
use proto::Batch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Frames that are applied while watchers begin, one after the other.
const FRAMES: u32 = 2_000;

fn everything(fleet: &Fleet, now: Instant, place: &mut Place) -> Vec<proto::Update> {
    let mut updates = Vec::new();
    loop {
        let Read::Page { message, more, .. } = fleet.feed().read(now, place, None, 1 << 20) else { panic!("behind") };
        let events = message.into_iter().map(|message| message.read().event.unwrap());
        updates.extend(events.map(|event| match event {
            proto::watch_response::Event::Update(update) => update,
            other => panic!("{other:?}"),
        }));
        if !more {
            return updates;
        }
    }
}

#[test]
fn numbers_wait_while_nobody_watches_and_are_told_to_who_begins_to() {
    let now = Instant::now();
    let fleet = fleet(now);
    fleet.feed().link_when_watched();
    let mut session = one_hive(&fleet, now, vec![cpu(1.0), cpu(2.0)]);
    let known = fleet.feed().revision();
    for percent in 3..6 {
        session.batch(now, Batch { rows: vec![row("box", 2, cpu(f64::from(percent)))], ..Batch::default() }).unwrap();
    }
    assert_eq!(fleet.feed().revision(), known, "numbers are linked for nobody");
    let following = fleet.feed().follow(Rhythm::of(Duration::ZERO), Arc::default());
    fleet.link_waiting(now);
    let mut place = fleet.feed().resume(Revision::at(known)).unwrap();
    let [update] = &everything(&fleet, now, &mut place)[..] else { panic!("one update") };
    assert_eq!(
        update.workers.iter().map(|worker| worker.stats.as_ref().unwrap().cpu_pct).collect::<Vec<_>>(),
        [Some(5.0)]
    );
    assert_eq!(update.conflated, 2, "states that were never linked were not shown either");
    assert_eq!(update.beats.iter().map(|beat| beat.epoch).collect::<Vec<_>>(), [1]);
    let all = everything(&fleet, now, &mut fleet.feed().start());
    let told = all[0].workers.iter().map(|worker| worker.stats.as_ref().and_then(|stats| stats.cpu_pct));
    assert_eq!(told.collect::<Vec<_>>(), [Some(1.0), Some(5.0)], "who has not changed since has numbers too");
    session.batch(now, Batch { rows: vec![row("box", 2, cpu(7.0))], ..Batch::default() }).unwrap();
    assert_eq!(everything(&fleet, now, &mut place)[0].workers.len(), 1, "and from then on at once");
    drop(following);
    fleet.expire(now + SECOND);
    let before = fleet.feed().revision();
    session.batch(now + SECOND, Batch { rows: vec![row("box", 2, cpu(8.0))], ..Batch::default() }).unwrap();
    assert_eq!(fleet.feed().revision(), before, "nobody is left");
}

#[test]
fn who_was_seen_by_revision_and_left_while_nobody_watched_is_told_as_gone() {
    let now = Instant::now();
    let fleet = fleet(now);
    fleet.feed().link_when_watched();
    let mut session = one_hive(&fleet, now, vec![cpu(1.0), cpu(2.0)]);
    session.batch(now, Batch { rows: vec![row("box", 3, cpu(3.0))], ..Batch::default() }).unwrap();
    // A list is answered with the revision and all three.
    let listed = fleet.feed().revision();
    session.batch(now, Batch { removed_slots: vec![3], ..Batch::default() }).unwrap();
    let _following = fleet.feed().follow(Rhythm::of(Duration::ZERO), Arc::default());
    fleet.link_waiting(now);
    let mut place = fleet.feed().resume(Revision::at(listed)).unwrap();
    assert_eq!(everything(&fleet, now, &mut place)[0].removed_workers, ["box/llm/3"]);
}

#[test]
fn whoever_begins_to_watch_is_told_all_that_was_known_by_then() {
    let now = Instant::now();
    let fleet = fleet(now);
    fleet.feed().link_when_watched();
    let mut session = one_hive(&fleet, now, vec![cpu(0.0)]);
    let applied = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for percent in 1..=FRAMES {
                let rows = vec![row("box", 1, cpu(f64::from(percent)))];
                session.batch(now, Batch { rows, ..Batch::default() }).unwrap();
                applied.store(percent, Ordering::Release);
            }
        });
        let mut later = now;
        while applied.load(Ordering::Acquire) < FRAMES {
            // Pages that others were given are no longer shared then.
            later += SECOND;
            let known = applied.load(Ordering::Acquire);
            let following = fleet.feed().follow(Rhythm::of(Duration::ZERO), Arc::default());
            fleet.link_waiting(now);
            let updates = everything(&fleet, later, &mut fleet.feed().start());
            let told = updates[0].workers[0].stats.as_ref().unwrap().cpu_pct.unwrap();
            assert!(told >= f64::from(known), "{told} after {known}");
            drop(following);
            fleet.feed().rest();
        }
    });
}
