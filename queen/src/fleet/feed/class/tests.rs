//! Classes: what they share, what they pass over in silence, and how a watcher comes into one.

use super::super::tests::Bench;
use super::*;
use crate::fleet::feed::mirror::Mirror;
use crate::fleet::feed::{Message, Place, Read, Revision, TooManyClasses};
use proto::Filter;
use std::sync::Arc;

fn only_a() -> Filter {
    Filter { model: "a".into(), ..Filter::default() }
}

fn message(bench: &Bench, place: &mut Place, class: &Class) -> Option<Message> {
    match bench.feed.read(bench.now, place, Some(class), 4_000) {
        Read::Page { message, .. } => message,
        Read::Behind => panic!("behind"),
    }
}

#[test]
fn those_who_want_the_same_share_one_class_and_its_messages() {
    let mut bench = Bench::new();
    bench.put(1, "a", 2);
    let class = bench.class(Some(&only_a()), &["workers.state"]);
    let same = bench.class(Some(&only_a()), &["workers.state", "workers.state"]);
    assert!(Arc::ptr_eq(&class, &same));
    let read = |class: &Class| message(&bench, &mut bench.feed.start(), class).unwrap().framed().as_ptr();
    assert_eq!(read(&class), read(&same));
}

#[test]
fn there_are_no_more_classes_than_allowed_and_an_ended_one_makes_room() {
    let bench = Bench::new();
    let filter = |state| Filter { state, ..Filter::default() };
    let mut held: Vec<_> = (1..=4).map(|state| bench.class(Some(&filter(state)), &[])).collect();
    let wanted = |state| Wanted::new(Some(filter(state)), None, false);
    assert_eq!(bench.feed.class(wanted(5)).unwrap_err(), TooManyClasses(4));
    assert!(bench.feed.class(wanted(4)).is_ok(), "those that are there serve further watchers");
    assert!(bench.feed.class(Wanted::default()).unwrap().is_none(), "everything needs no class");
    held.pop();
    assert!(bench.feed.class(wanted(5)).is_ok());
    assert_eq!(bench.feed.class_count(), 3);
}

#[test]
fn what_a_mask_hides_is_not_told() {
    let mut bench = Bench::new();
    bench.put(1, "a", 2);
    let class = bench.class(None, &["workers.spec.model"]);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!((mirror.updates, mirror.workers["box/llm/1"].state), (1, 0));
    bench.put(1, "a", 3);
    bench.put(1, "a", 4);
    assert_eq!(message(&bench, &mut place, &class), None);
    assert_eq!(place.cursor(), bench.feed.revision(), "its place moves on all the same");
    bench.put(1, "b", 4);
    bench.tip(&mut place, Some(&class), &mut mirror);
    let model = mirror.workers["box/llm/1"].spec.as_ref().unwrap().model.clone();
    assert_eq!((mirror.updates, model), (2, Some("b".into())));
    bench.remove(1);
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!(mirror.removed, ["box/llm/1"]);
}

#[test]
fn a_resume_into_a_class_is_told_what_the_class_itself_never_showed() {
    let mut bench = Bench::new();
    bench.put(1, "a", 2);
    let class = bench.class(None, &["workers.state"]);
    let (mut there, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut there, Some(&class), &mut mirror);
    // Somebody else saw the state between, which the class passed over.
    bench.put(1, "a", 3);
    let seen = bench.feed.revision();
    bench.put(1, "a", 2);
    assert_eq!(message(&bench, &mut there, &class), None);
    let (mut resumed, mut mirror) = (bench.feed.resume(Revision::at(seen)).unwrap(), Mirror::default());
    bench.tip(&mut resumed, Some(&class), &mut mirror);
    assert_eq!(mirror.workers["box/llm/1"].state, 2);
    bench.put(1, "b", 2);
    assert_eq!(message(&bench, &mut resumed, &class), None, "from then on it reads what the class shows");
}

#[test]
fn what_left_a_class_is_remembered_no_longer_than_the_index_remembers() {
    let mut bench = Bench::new();
    let class = bench.class(Some(&only_a()), &[]);
    bench.put(0, "a", 2);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    for round in 0..3 * TOMBSTONES_MIN as u32 {
        bench.put(1, "a", 2);
        bench.tip(&mut place, Some(&class), &mut mirror);
        bench.put(1, "b", 2);
        bench.tip(&mut place, Some(&class), &mut mirror);
        bench.put(2 + round, "a", 2);
        bench.tip(&mut place, Some(&class), &mut mirror);
        bench.remove(2 + round);
    }
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!(mirror.names(), ["box/llm/0"]);
    let view = class.view();
    assert!(view.gone.len() <= 2 * TOMBSTONES_MIN + 8, "{}", view.gone.len());
    assert!(view.objects.len() <= TOMBSTONES_MIN + 4, "{}", view.objects.len());
}

#[test]
fn a_class_that_fell_behind_begins_anew_and_says_so() {
    let mut bench = Bench::new();
    bench.put(1, "a", 2);
    let class = bench.class(Some(&only_a()), &[]);
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, Some(&class), &mut mirror);
    bench.remove(1);
    for name in 2..4_000 {
        bench.put(name, "b", 2);
        bench.remove(name);
    }
    bench.put(1, "a", 2);
    assert!(matches!(bench.feed.read(bench.now, &mut place, Some(&class), 400), Read::Behind));
    let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
    bench.tip(&mut place, Some(&class), &mut mirror);
    assert_eq!((mirror.names(), mirror.removed.len()), (vec!["box/llm/1"], 0));
}

#[test]
fn a_shared_page_from_before_a_removal_does_not_hide_it() {
    for filter in [None, Some(only_a())] {
        let mut bench = Bench::new();
        let class = filter.map(|filter| bench.class(Some(&filter), &[]));
        let class = class.as_deref();
        let pass = |bench: &mut Bench, names: std::ops::Range<u32>| {
            for name in names {
                bench.put(name, "b", 2);
                bench.remove(name);
            }
        };
        bench.put(9, "a", 2);
        bench.page(&mut bench.feed.start(), class, 4_000, &mut Mirror::default());
        // The second one starts after the removal and is given the page from before it.
        bench.remove(9);
        pass(&mut bench, 100..100 + TOMBSTONES_MIN as u32 - 1);
        let (mut place, mut mirror) = (bench.feed.start(), Mirror::default());
        bench.page(&mut place, class, 4_000, &mut mirror);
        pass(&mut bench, 10..11);
        let told = bench.page(&mut place, class, 400_000, &mut mirror).is_none();
        assert!(told || !mirror.workers.contains_key("box/llm/9"), "shown, gone, and nobody says so");
    }
}
