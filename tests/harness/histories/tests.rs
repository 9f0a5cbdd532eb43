//! Each checker passes a good history, and finds the one fault that was planted in a bad one.

use super::*;
use proto::watch_response::Event;
use proto::{Bookmark, SnapshotBegin, SnapshotEnd, SnapshotReason, Update, Worker, WorkerSpec};
use std::collections::BTreeMap;

fn worker(instance: &str, model: &str, state: i32) -> Worker {
    let spec = WorkerSpec {
        hive: "box".into(),
        group: "llm".into(),
        instance: instance.into(),
        model: Some(model.into()),
        ..WorkerSpec::default()
    };
    Worker { spec: Some(spec), state, ..Worker::default() }
}

fn object(instance: &str, model: &str, state: i32) -> Object {
    Object::Worker(Box::new(worker(instance, model, state)))
}

fn everything(object: &Object) -> Option<Object> {
    Some(object.clone())
}

fn only_a(object: &Object) -> Option<Object> {
    let matches = |worker: &Worker| worker.spec.as_ref().is_some_and(|spec| spec.model.as_deref() == Some("a"));
    matches!(object, Object::Worker(worker) if matches(worker)).then(|| object.clone())
}

fn begin(reason: SnapshotReason) -> Event {
    Event::SnapshotBegin(SnapshotBegin { reason: reason.into() })
}

fn end(revision: &str) -> Event {
    Event::SnapshotEnd(SnapshotEnd { revision: revision.into() })
}

fn update(revision: &str, workers: Vec<Worker>, removed: &[&str]) -> Event {
    let removed_workers = removed.iter().map(|name| (*name).to_owned()).collect();
    Event::Update(Update { revision: revision.into(), workers, removed_workers, ..Update::default() })
}

fn bookmark(revision: &str) -> Event {
    Event::Bookmark(Bookmark { revision: revision.into(), ..Bookmark::default() })
}

/// A history of one stream, a message a second.
fn history(resume_after: &str, events: Vec<Event>) -> History {
    let mut history = History::default();
    history.opened(Duration::ZERO, resume_after);
    for (second, event) in (1..).zip(events) {
        history.heard(Duration::from_secs(second), WatchResponse { event: Some(event) });
    }
    history
}

/// 1: box/llm/1 as a. 2: box/llm/2 as b. 3: the first one as b. 4: the second one ends.
fn log() -> Log {
    let mut log = Log::default();
    log.note("q1", 1, "box/llm/1", Some(object("1", "a", 2)));
    log.note("q1", 2, "box/llm/2", Some(object("2", "b", 2)));
    log.note("q1", 3, "box/llm/1", Some(object("1", "b", 2)));
    log.note("q1", 4, "box/llm/2", None);
    log
}

fn good() -> Vec<Event> {
    vec![
        begin(SnapshotReason::Initial),
        update("q1:2", vec![worker("1", "a", 2), worker("2", "b", 2)], &[]),
        end("q1:2"),
        update("q1:3", vec![worker("1", "b", 2)], &[]),
        bookmark("q1:3"),
        update("q1:4", vec![], &["box/llm/2"]),
    ]
}

/// The good history with one message replaced, or left out.
fn with(place: usize, event: Option<Event>) -> History {
    let mut events = good();
    match event {
        Some(event) => events[place] = event,
        None => drop(events.remove(place)),
    }
    history("", events)
}

fn fault(found: Result<(), Fault>) -> String {
    found.unwrap_err().what
}

#[test]
fn a_good_history_passes_every_checker() {
    let good = history("", good());
    check(&good, &log(), &everything).unwrap();
    no_repeats(&good).unwrap();
    reached(&good, &log().last("q1", &everything)).unwrap();
    bookmarks(&good, Duration::from_secs(2)).unwrap();
    let mut resumed = history("q1:2", vec![update("q1:4", vec![worker("1", "b", 2)], &["box/llm/2"])]);
    check(&resumed, &log(), &everything).unwrap();
    resumed.ended(Duration::from_secs(9));
    bookmarks(&resumed, Duration::from_secs(9)).unwrap();
}

#[test]
fn ordered_finds_a_revision_that_goes_back_or_stands_still() {
    assert!(fault(ordered(&with(4, Some(bookmark("q1:2"))))).contains("follows q1:3"));
    assert!(fault(ordered(&with(5, Some(update("q1:3", vec![], &["box/llm/2"]))))).contains("q1:3 follows q1:3"));
    assert!(fault(ordered(&with(4, Some(bookmark("q2:9"))))).contains("q2:9"));
    assert!(fault(ordered(&with(0, None))).contains("did not begin"));
    assert!(fault(ordered(&history("q1:4", vec![update("q1:4", vec![worker("1", "b", 2)], &[])]))).contains("follows"));
    assert!(fault(ordered(&with(1, Some(bookmark("q1:1"))))).contains("within a snapshot"));
}

#[test]
fn unique_finds_a_name_twice() {
    let twice = vec![worker("1", "a", 2), worker("1", "b", 2)];
    assert!(fault(unique(&with(3, Some(update("q1:3", twice, &[]))))).contains("twice"));
    let both = update("q1:3", vec![worker("1", "b", 2)], &["box/llm/1"]);
    assert!(fault(unique(&with(3, Some(both)))).contains("twice"));
}

#[test]
fn no_repeats_finds_a_state_that_is_no_news() {
    let again = with(3, Some(update("q1:3", vec![worker("1", "a", 2)], &[])));
    assert!(fault(no_repeats(&again)).contains("as it was"));
}

#[test]
fn reached_finds_what_is_missing_wrong_or_left_over() {
    let last = log().last("q1", &everything);
    assert!(fault(reached(&with(5, None), &last)).contains("box/llm/2"), "a removal that was never told");
    assert!(fault(reached(&with(3, None), &last)).contains("box/llm/1"), "a state that was never told");
    let more = BTreeMap::from([("box/llm/9".to_owned(), object("9", "a", 2))]);
    assert!(fault(reached(&history("", vec![]), &more)).contains("box/llm/9"));
}

#[test]
fn resumed_finds_a_silent_gap() {
    let gap = history("", good()[..3].to_vec());
    let mut missed = gap.clone();
    missed.ended(Duration::from_secs(4));
    missed.opened(Duration::from_secs(5), "q1:2");
    let late = update("q1:4", vec![], &["box/llm/2"]);
    missed.heard(Duration::from_secs(6), WatchResponse { event: Some(late) });
    assert!(fault(resumed(&missed, &log(), &everything)).contains("box/llm/1 at q1:4"));
    let mut other = gap;
    other.opened(Duration::from_secs(5), "q1:2");
    other.heard(Duration::from_secs(6), WatchResponse { event: Some(bookmark("q2:1")) });
    assert!(fault(resumed(&other, &log(), &everything)).contains("unannounced"));
}

#[test]
fn resumed_finds_a_reason_that_cannot_be() {
    for (asked, reason) in [
        ("", SnapshotReason::QueenRestarted),
        ("", SnapshotReason::Unspecified),
        ("q1:2", SnapshotReason::Initial),
        ("", SnapshotReason::FellBehind),
    ] {
        let bad = history(asked, vec![begin(reason)]);
        assert!(fault(resumed(&bad, &log(), &everything)).contains("at the beginning"), "{reason:?}");
    }
    let late = with(4, Some(begin(SnapshotReason::Compacted)));
    assert!(fault(resumed(&late, &log(), &everything)).contains("later on"));
}

#[test]
fn complete_finds_what_a_snapshot_left_out_or_kept() {
    let missing = with(1, Some(update("q1:2", vec![worker("2", "b", 2)], &[])));
    assert!(fault(complete(&missing, &log(), &everything)).contains("box/llm/1"));
    let ghost = vec![worker("1", "a", 2), worker("2", "b", 2), worker("3", "a", 2)];
    assert!(fault(complete(&with(1, Some(update("q1:2", ghost, &[]))), &log(), &everything)).contains("box/llm/3"));
    let newer = with(1, Some(update("q1:2", vec![worker("1", "b", 2)], &[])));
    complete(&newer, &log(), &everything).unwrap();
}

#[test]
fn filtered_finds_what_does_not_match_was_never_true_or_is_old() {
    let pass = history(
        "",
        vec![
            begin(SnapshotReason::Initial),
            update("q1:2", vec![worker("1", "a", 2)], &[]),
            end("q1:2"),
            update("q1:3", vec![], &["box/llm/1"]),
        ],
    );
    check(&pass, &log(), &only_a).unwrap();
    let unseen = history("", vec![begin(SnapshotReason::Initial), update("q1:2", vec![worker("2", "b", 2)], &[])]);
    assert!(fault(filtered(&unseen, &log(), &only_a)).contains("never matched"));
    let made_up = with(3, Some(update("q1:3", vec![worker("1", "c", 2)], &[])));
    assert!(fault(filtered(&made_up, &log(), &everything)).contains("never matched"));
    let mut back = good();
    back.push(update("q1:5", vec![worker("1", "a", 2)], &[]));
    assert!(fault(filtered(&history("", back), &log(), &everything)).contains("as it was before"));
    let false_end = with(3, Some(update("q1:3", vec![], &["box/llm/1"])));
    assert!(fault(filtered(&false_end, &log(), &everything)).contains("never left"));
    // Who never hears that it left its filter holds it for ever.
    let kept = history("", vec![begin(SnapshotReason::Initial), good().remove(1), end("q1:2"), bookmark("q1:4")]);
    assert!(fault(resumed(&kept, &log(), &only_a)).contains("box/llm/"));
}

#[test]
fn bookmarks_finds_a_stream_that_falls_silent() {
    let silent = with(4, None);
    assert!(fault(bookmarks(&silent, Duration::from_secs(1))).contains("no bookmark for 2s"));
    let resumed = history("q1:2", vec![update("q1:3", vec![], &[]), update("q1:4", vec![], &[])]);
    assert!(fault(bookmarks(&resumed, Duration::from_secs(1))).contains("no bookmark"));
}
