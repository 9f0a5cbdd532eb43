//! Holds: who gets one, who does not, and when it is over.

use super::*;

#[test]
fn g1_room_that_is_held_is_room_for_nobody_else() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 4 * G)], &[]));
    let keeper = place.open();
    let held = keeper.hold(&ask("r1", &[vram(15 * G)]), || scene.clone()).unwrap();
    assert_eq!(held[0].thing, Thing::Vram { gpu: "a".to_owned(), bytes: 15 * G });
    let refused = keeper.hold(&ask("r2", &[vram(6 * G)]), || scene.clone()).unwrap_err();
    assert!(
        matches!(refused, Refusal::NoRoom(_)) && refused.to_string().contains("reservations hold 15.0 GiB"),
        "{refused}"
    );
    keeper.hold(&ask("r3", &[vram(5 * G)]), || scene.clone()).unwrap();
    // A promise to a worker without a reservation counts as well.
    let mut other = super::scene(&[("b", 24 * G, 0)], &[]);
    other.promises.push(Promise { uuid: "b".to_owned(), asked: 20 * G, used: 5 * G, held: false });
    assert!(keeper.hold(&ask("r4", &[vram(10 * G)]), || other.clone()).is_err());
    keeper.hold(&ask("r4", &[vram(9 * G)]), || other.clone()).unwrap();
}

#[test]
fn g1_headroom_and_a_named_gpu_are_heeded() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0), ("b", 8 * G, 0)], &[]));
    let keeper = place.open();
    let wish = |bytes, gpu: &str, headroom| Wish::Vram { bytes, gpu: gpu.to_owned(), headroom };
    let hold = |name: &str, wish| keeper.hold(&ask(name, &[wish]), || scene.clone());
    assert!(hold("r1", wish(7 * G, "b", 2 * G)).is_err());
    assert_eq!(hold("r2", wish(6 * G, "", 2 * G)).unwrap()[0].vram(), Some(("b", 6 * G)), "least to spare");
    assert_eq!(hold("r3", wish(G, "a", 0)).unwrap()[0].vram(), Some(("a", G)));
    let missing = hold("r4", wish(G, "c", 0)).unwrap_err();
    assert!(matches!(missing, Refusal::NoSuchGpu { .. }), "{missing}");
    assert!(missing.to_string().contains("GPU 0 (a) is a"), "{missing}");
}

#[test]
fn g1_a_gpu_is_granted_by_one_hive_of_a_machine() {
    let (first, second) = (Place::new(), Place::new());
    let scene = scene(&[("a", 24 * G, 0)], &[]);
    let one = first.open();
    let other = Keeper::open(second.state.path(), "boot", first.locks(), second.clock());
    one.hold(&ask("r1", &[vram(G)]), || scene.clone()).unwrap();
    let refused = other.hold(&ask("r2", &[vram(G)]), || scene.clone()).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("another hive of this machine grants it, process {}", std::process::id())),
        "{refused}"
    );
    one.release("r1", false);
    one.tidy(|| BTreeSet::from(["a".to_owned()]));
    assert!(other.owns("a").is_err(), "a worker of the first one was promised some of it");
    one.tidy(BTreeSet::new);
    other.hold(&ask("r2", &[vram(G)]), || scene.clone()).unwrap();
    assert!(one.hold(&ask("r3", &[vram(G)]), || scene.clone()).is_err());
}

#[test]
fn g2_one_key_one_answered_grant() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &[]));
    let keyed = |reservation: &str, wish| Ask { key: "k".to_owned(), wish, ..ask(reservation, &[vram(15 * G)]) };
    let keeper = place.open();
    let first = keeper.hold(&keyed("r1", 1), || scene.clone()).unwrap();
    place.pass(Duration::from_secs(3));
    let again = keeper.hold(&keyed("r2", 1), || scene.clone()).unwrap();
    assert_eq!((tokens(&again), again[0].reservation.as_str()), (tokens(&first), "r1"));
    assert!(again[0].until > first[0].until, "whoever asks is alive");
    assert!(matches!(keeper.hold(&keyed("r1", 2), || scene.clone()), Err(Refusal::KeyTaken(_))));
    let without = ask("r1", &[vram(15 * G)]);
    assert!(matches!(keeper.hold(&without, || scene.clone()), Err(Refusal::ReservationTaken(_))));
    drop(keeper);
    let keeper = place.open();
    assert_eq!(tokens(&keeper.hold(&keyed("r3", 1), || scene.clone()).unwrap()), tokens(&first));
    keeper.renew("r1", Duration::from_secs(60), true).unwrap();
    let end = granted(&keeper)[0].until;
    assert_eq!(keeper.hold(&keyed("r4", 1), || scene.clone()).unwrap()[0].until, end, "a real one is not moved");
    keeper.release("r1", false);
    let next = keeper.hold(&keyed("r5", 2), || scene.clone()).unwrap();
    assert!(next[0].token > first[0].token);
}

#[test]
fn g4_after_its_end_a_hold_is_nobodys_and_its_room_is_free() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &["1"]));
    let keeper = place.open();
    let wishes = [vram(20 * G), Wish::Worker(worker("1"))];
    keeper.hold(&ask("r1", &wishes), || scene.clone()).unwrap();
    place.pass(TTL - Duration::from_nanos(1));
    assert_eq!(keeper.next_end(), Some(Duration::from_nanos(1)));
    assert!(keeper.hold(&ask("r2", &wishes), || scene.clone()).is_err());
    place.pass(Duration::from_nanos(1));
    keeper.hold(&ask("r2", &wishes), || scene.clone()).unwrap();
    assert!(matches!(keeper.renew("r1", TTL, true), Err(Refusal::Unknown(_))));
    assert!(matches!(keeper.take(start("r1", &worker("2"))), Err(Refusal::Unknown(_))));
    assert_eq!(keeper.release("r1", false), 0);
    assert_eq!(granted(&keeper).iter().filter(|grant| grant.reservation == "r1").count(), 0);
}

#[test]
fn g4_the_rest_of_its_time_is_what_a_restarted_hive_leaves_it() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &[]));
    let keeper = place.open();
    keeper.hold(&ask("r1", &[vram(20 * G)]), || scene.clone()).unwrap();
    place.pass(Duration::from_secs(4));
    drop(keeper);
    let keeper = place.open();
    assert_eq!(keeper.next_end(), Some(Duration::from_secs(1)));
    drop(keeper);
    place.pass(Duration::from_secs(1));
    assert_eq!(granted(&place.open()), []);
}

#[test]
fn g6_several_at_once_are_all_or_nothing() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0), ("b", 24 * G, 0)], &["1", "2"]));
    let keeper = place.open();
    let (one, two) = (Wish::Worker(worker("1")), Wish::Worker(worker("2")));
    for wishes in [
        vec![vram(20 * G), vram(20 * G), vram(20 * G)],
        vec![one.clone(), vram(25 * G)],
        vec![one.clone(), one.clone()],
        vec![two.clone(), Wish::Worker(worker("3"))],
    ] {
        assert!(keeper.hold(&ask("r", &wishes), || scene.clone()).is_err(), "{wishes:?}");
        assert_eq!((granted(&keeper), std::fs::read(place.file()).unwrap().len() < 200), (vec![], true));
    }
    let held = keeper.hold(&ask("r", &[vram(20 * G), one, vram(20 * G), two]), || scene.clone()).unwrap();
    let parts: Vec<u32> = held.iter().map(|grant| grant.part).collect();
    assert_eq!((parts.as_slice(), tokens(&held).as_slice()), ([0, 1, 2, 3].as_slice(), [1, 2, 3, 4].as_slice()));
    let gpus: Vec<_> = held.iter().filter_map(Grant::vram).map(|(gpu, _)| gpu).collect();
    assert_eq!(gpus, ["a", "b"]);
    let renewed = keeper.renew("r", Duration::from_secs(60), true).unwrap();
    assert_eq!((renewed.len(), renewed.iter().any(|grant| grant.tentative)), (4, false));
    place.pass(Duration::from_secs(59));
    assert_eq!((granted(&keeper).len(), keeper.release("r", false), keeper.release("r", false)), (4, 4, 0));
}

#[test]
fn g6_what_is_never_confirmed_ends_by_itself() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &[]));
    let keeper = place.open();
    assert!(keeper.hold(&ask("r", &[vram(G)]), || scene.clone()).unwrap()[0].tentative);
    place.pass(TTL);
    assert_eq!(granted(&keeper), []);
}

#[test]
fn g6_that_one_of_several_ended_unconfirmed_is_told_and_outlives_restarts() {
    let (mut place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &["1"]));
    let keeper = place.open();
    let aborted = |keeper: &Keeper| {
        keeper.tidy(BTreeSet::new);
        keeper.granted().aborted.iter().cloned().collect::<BTreeSet<String>>()
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let hold = |keeper: &Keeper, name: &str, size| {
        keeper.hold(&Ask { size, ..ask(name, &[vram(G)]) }, || scene.clone()).unwrap();
    };
    // Confirmed, the only one of its reservation, or given back before anybody was to confirm anything.
    hold(&keeper, "r1", 2);
    keeper.renew("r1", TTL, true).unwrap();
    hold(&keeper, "r2", 1);
    hold(&keeper, "r3", 2);
    keeper.release("r3", false);
    place.pass(TTL);
    assert_eq!((granted(&keeper), aborted(&keeper)), (vec![], named(&[])));
    // Its time is over; its queen gives up, also what was confirmed here; its worker ends.
    hold(&keeper, "r4", 2);
    place.pass(TTL);
    assert_eq!(aborted(&keeper), named(&["r4"]));
    hold(&keeper, "r5", 2);
    keeper.renew("r5", TTL, true).unwrap();
    keeper.release("r5", true);
    keeper.release("r5", true);
    keeper.hold(&Ask { size: 3, ..ask("r6", &[Wish::Worker(worker("1"))]) }, || scene.clone()).unwrap();
    keeper.ended(&worker("1"));
    assert_eq!(aborted(&keeper), named(&["r4", "r5", "r6"]));
    // While no hive is there; and when the machine is started anew.
    hold(&keeper, "r7", 2);
    drop(keeper);
    place.pass(TTL);
    let keeper = place.open();
    assert_eq!(aborted(&keeper), named(&["r4", "r5", "r6", "r7"]));
    hold(&keeper, "r8", 2);
    drop(keeper);
    place.reboot();
    drop(place.open());
    assert_eq!(aborted(&place.open()), named(&["r4", "r5", "r6", "r7", "r8"]));
    // Only the newest are kept.
    let keeper = place.open();
    for at in 0..80 {
        hold(&keeper, &format!("s{at}"), 2);
        keeper.release(&format!("s{at}"), true);
    }
    assert_eq!(aborted(&keeper), (16..80).map(|at| format!("s{at}")).collect());
}

#[test]
fn g2_a_key_alone_can_be_held_and_nothing_follows_from_its_end() {
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &[]));
    let keeper = place.open();
    let keyed = |name: &str, wish| Ask { key: "k".to_owned(), size: 2, ..ask(name, &[wish]) };
    let first = keeper.hold(&keyed("r1", Wish::Key), || scene.clone()).unwrap();
    assert_eq!((&first[0].thing, first[0].vram()), (&Thing::Key, None));
    for wish in [Wish::Key, vram(G)] {
        let other = keeper.hold(&keyed("r2", wish), || scene.clone()).unwrap();
        assert_eq!((other[0].reservation.as_str(), tokens(&other)), ("r1", tokens(&first)), "whose key it is");
    }
    keeper.hold(&ask("r3", &[vram(24 * G)]), || scene.clone()).unwrap();
    place.pass(TTL - Duration::from_secs(1));
    let again = |name: &str| keeper.hold(&keyed(name, Wish::Key), || scene.clone()).unwrap()[0].until;
    assert_eq!(again("r2"), first[0].until, "who waits for its end does not put it off");
    assert!(again("r1") > first[0].until);
    place.pass(TTL);
    assert_eq!((granted(&keeper), keeper.granted().aborted.clone()), (vec![], vec![]));
    assert_eq!(keeper.hold(&keyed("r2", Wish::Key), || scene.clone()).unwrap()[0].reservation, "r2");
}

#[test]
fn g8_a_worker_has_one_holder_and_has_to_run() {
    let (place, mut scene) = (Place::new(), scene(&[], &["1", "2"]));
    let keeper = place.open();
    let hold = |scene: &Scene, reservation: &str, name: &str| {
        keeper.hold(&ask(reservation, &[Wish::Worker(worker(name))]), || scene.clone())
    };
    hold(&scene, "r1", "1").unwrap();
    let refused = hold(&scene, "r2", "1").unwrap_err();
    assert!(matches!(&refused, Refusal::Held { reservation, .. } if reservation == "r1"), "{refused}");
    scene.workers.insert(worker("2"), Err("not ready".to_owned()));
    assert!(matches!(hold(&scene, "r2", "2"), Err(Refusal::NotRunning { .. })));
    assert!(matches!(hold(&scene, "r2", "3"), Err(Refusal::NoSuchWorker(_))));
    keeper.ended(&worker("1"));
    hold(&scene, "r2", "1").unwrap();
    assert!(matches!(keeper.renew("r1", TTL, true), Err(Refusal::Unknown(_))), "it ended with the worker");
}

#[test]
fn more_holds_than_are_kept_are_refused() {
    let names: Vec<String> = (0..ask::HOLDS_MAX).map(|at| at.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (place, scene) = (Place::new(), scene(&[("a", 24 * G, 0)], &names));
    let keeper = place.open();
    for (at, names) in names.chunks(ask::WISHES_MAX).enumerate() {
        let wishes: Vec<Wish> = names.iter().map(|name| Wish::Worker(worker(name))).collect();
        keeper.hold(&ask(&at.to_string(), &wishes), || scene.clone()).unwrap();
    }
    let refused = keeper.hold(&ask("one", &[vram(1)]), || scene.clone()).unwrap_err();
    assert!(refused.to_string().contains("at most 512 holds"), "{refused}");
    let key = Ask { key: "k".to_owned(), ..ask("key", &[Wish::Key]) };
    keeper.hold(&key, || scene.clone()).expect("keys take no place of a hold");
    keeper.release("key", false);
    keeper.release("0", false);
    keeper.hold(&ask("one", &[vram(1)]), || scene.clone()).unwrap();
}
