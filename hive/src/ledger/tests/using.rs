//! Grants that workers are started with.

use super::*;

fn held(keeper: &Keeper, reservation: &str, wishes: &[Wish]) -> Vec<Grant> {
    keeper.hold(&ask(reservation, wishes), || scene(&[("a", 24 * G, 0)], &["1"])).unwrap()
}

/// What the GPU has free if this worker uses so much.
fn due(keeper: &Keeper, used: u64) -> u64 {
    promises(granted(keeper).iter(), &|_, _| used).iter().map(Promise::due).sum()
}

#[test]
fn g5_a_grant_in_use_lives_as_long_as_its_worker() {
    let place = Place::new();
    let keeper = place.open();
    let first = held(&keeper, "r", &[vram(10 * G)]);
    assert_eq!(due(&keeper, 9 * G), 10 * G, "nobody uses it");
    let taken = keeper.take(start("r", &worker("2"))).unwrap();
    assert_eq!((tokens(&taken), due(&keeper, 0), due(&keeper, 7 * G)), (tokens(&first), 10 * G, 3 * G));
    keeper.started(&worker("2"));
    place.pass(Duration::from_secs(24 * 3600));
    assert_eq!((granted(&keeper).len(), keeper.next_end(), keeper.release("r", false)), (1, None, 0));
    drop(keeper);
    let keeper = place.open();
    assert!(granted(&keeper)[0].used.as_ref().unwrap().started);
    // By its restart policy.
    keeper.take(Start { again: true, ..start("r", &worker("2")) }).unwrap();
    assert!(matches!(keeper.take(start("r", &worker("2"))), Err(Refusal::Used { .. })), "another one of its name");
    keeper.ended(&worker("2"));
    assert!(matches!(keeper.take(start("r", &worker("2"))), Err(Refusal::Unknown(_))));
    assert_eq!(granted(&keeper), []);
}

#[test]
fn g5_a_start_that_fails_gives_back_what_it_was_given_for_the_rest_of_its_time() {
    let place = Place::new();
    let keeper = place.open();
    held(&keeper, "r", &[vram(10 * G)]);
    keeper.take(start("r", &worker("2"))).unwrap();
    // The process was there, and ended before its start was answered.
    keeper.ended(&worker("2"));
    place.pass(Duration::from_secs(3));
    keeper.give_back(&worker("2"));
    assert_eq!((granted(&keeper)[0].used.clone(), keeper.next_end()), (None, Some(Duration::from_secs(2))));
    keeper.take(start("r", &worker("3"))).unwrap();
    place.pass(Duration::from_secs(3));
    assert_eq!(granted(&keeper).len(), 1);
    keeper.give_back(&worker("3"));
    assert_eq!(granted(&keeper), [], "its time is over");
}

#[test]
fn g3_an_older_fencing_token_is_refused() {
    let place = Place::new();
    let keeper = place.open();
    let old = held(&keeper, "r", &[vram(G)])[0].token;
    place.pass(TTL);
    let new = held(&keeper, "r", &[vram(G)])[0].token;
    let with = |token| keeper.take(Start { token: Some(token), ..start("r", &worker("2")) });
    let refused = with(old).unwrap_err();
    assert!(matches!(refused, Refusal::Fenced { token, newest, .. } if (token, newest) == (old, new)), "{refused}");
    assert!(with(new + 1).is_err());
    with(new).unwrap();
}

#[test]
fn what_holds_no_memory_or_too_little_or_is_used_starts_nothing() {
    let place = Place::new();
    let keeper = place.open();
    held(&keeper, "w", &[Wish::Worker(worker("1"))]);
    assert!(matches!(keeper.take(start("w", &worker("2"))), Err(Refusal::NoMemory(_))));
    assert!(matches!(keeper.take(start("other", &worker("2"))), Err(Refusal::Unknown(_))));
    held(&keeper, "r", &[vram(2 * G), vram(3 * G)]);
    let two = worker("2");
    let bytes = |bytes| Start { bytes: Some(bytes), ..start("r", &two) };
    assert!(matches!(keeper.take(bytes(6 * G)), Err(Refusal::TooLittle { .. })));
    assert_eq!(keeper.take(bytes(5 * G)).unwrap().len(), 2);
    assert!(matches!(keeper.take(start("r", &worker("3"))), Err(Refusal::Used { by, .. }) if by == "llm/2"));
    assert_eq!(due(&keeper, 4 * G), G, "what it uses counts for both together");
}

#[test]
fn holds_tell_what_their_worker_does_not_use_yet() {
    let place = Place::new();
    let keeper = place.open();
    held(&keeper, "r", &[vram(2 * G), vram(3 * G)]);
    let all = |used| shown(&granted(&keeper), &|_, _| used);
    let unused = |used| all(used).iter().map(|hold| hold.unused_vram_bytes / G).collect::<Vec<_>>();
    assert_eq!(unused(4 * G), [2, 3]);
    assert!(all(0)[0].tentative && all(0)[0].expire_time.is_some());
    keeper.take(start("r", &worker("2"))).unwrap();
    assert_eq!((unused(0), unused(4 * G), unused(9 * G)), (vec![2, 3], vec![0, 1], vec![0, 0]));
    let used = all(4 * G);
    assert_eq!((used[0].used_by.as_str(), used[0].tentative, used[0].expire_time), ("llm/2", false, None));
    let record = |holds: &[proto::Hold], token| proto::Hive {
        holds: holds.to_vec(),
        last_fencing_token: token,
        ..proto::Hive::default()
    };
    let told = record(&used, 2);
    assert!(same_holds(&told, &record(&all(0), 2)) && !same_holds(&told, &record(&used[..1], 2)));
    assert!(!same_holds(&told, &record(&used, 3)), "what was granted and has ended meanwhile is news too");
}
