//! Threads that hold, start, promise, release and see things expire at the same time, in many orders: some hundred; with
//! LONG=1 100,000.

use super::model::{looked, taken};
use super::*;
use shuttle::sync::Mutex as Scheduled;
use shuttle::thread;

const TOTAL: u64 = 24 * G;

/// What a start without a reservation was promised.
type Promised = Arc<Scheduled<Vec<u64>>>;

fn schedules() -> usize {
    if std::env::var_os("LONG").is_some() { 100_000 } else { 300 }
}

fn seen(promised: &Promised) -> Scene {
    let promises = promised.lock().unwrap().clone();
    let promise = |asked| Promise { uuid: "a".to_owned(), asked, used: 0, held: false };
    Scene { promises: promises.into_iter().map(promise).collect(), ..scene(&[("a", TOTAL, 0)], &["1"]) }
}

/// Nothing is granted twice: looked at while nobody can change it.
fn check(keeper: &Keeper, promised: &Promised) {
    let looking = keeper.promise(|grants| {
        let held: u64 = grants.iter().filter_map(Grant::vram).map(|(_, bytes)| bytes).sum();
        let all = held + promised.lock().unwrap().iter().sum::<u64>();
        assert!(all <= TOTAL, "{} of {} GiB are granted", all / G, TOTAL / G);
        let holders = grants.iter().filter(|grant| matches!(grant.thing, Thing::Worker(_))).count();
        assert!(holders <= 1, "{holders} hold the worker");
        let mut sorted = tokens(grants);
        sorted.dedup();
        assert_eq!(sorted.len(), grants.len());
        Ok::<_, Refusal>(())
    });
    looking.unwrap();
}

fn hold(keeper: &Keeper, promised: &Promised, ask: &Ask, planted: bool) -> Option<Vec<Grant>> {
    let held = if planted {
        let look = looked(keeper, ask, &seen(promised));
        thread::yield_now();
        look.and_then(|change| taken(keeper, change))
    } else {
        keeper.hold(ask, || seen(promised))
    };
    check(keeper, promised);
    held.ok()
}

/// A start with so much memory and without a reservation.
fn promise(keeper: &Keeper, promised: &Promised, bytes: u64) -> bool {
    let promising = keeper.promise(|grants| {
        let mut all = promised.lock().unwrap();
        let held: u64 = grants.iter().filter_map(Grant::vram).map(|(_, bytes)| bytes).sum();
        let fits = held + all.iter().sum::<u64>() + bytes <= TOTAL;
        if fits {
            all.push(bytes);
        }
        Ok::<_, Refusal>(fits)
    });
    check(keeper, promised);
    promising.unwrap()
}

fn race(planted: bool) {
    let place = Arc::new(Place::new());
    let (keeper, promised) = (Arc::new(place.open_scheduled()), Promised::default());
    let spawn = |work: fn(&Place, &Keeper, &Promised, bool)| {
        let (place, keeper, promised) = (Arc::clone(&place), Arc::clone(&keeper), Arc::clone(&promised));
        thread::spawn(move || work(&place, &keeper, &promised, planted))
    };
    let works: [fn(&Place, &Keeper, &Promised, bool); 5] = [
        |_, keeper, promised, planted| {
            let (two, id) = (ask("r1", &[vram(14 * G), Wish::Worker(worker("1"))]), worker("2"));
            if hold(keeper, promised, &two, planted).is_some() && keeper.take(start("r1", &id)).is_ok() {
                keeper.started(&id);
            }
        },
        |_, keeper, promised, planted| {
            if hold(keeper, promised, &ask("r2", &[vram(12 * G)]), planted).is_some() {
                keeper.release("r2", false);
            }
            hold(keeper, promised, &ask("r3", &[vram(8 * G)]), planted);
        },
        |_, keeper, promised, planted| {
            hold(keeper, promised, &ask("r4", &[Wish::Worker(worker("1"))]), planted);
            keeper.ended(&worker("1"));
            check(keeper, promised);
        },
        |_, keeper, promised, _| {
            promise(keeper, promised, 11 * G);
        },
        |place, keeper, promised, _| {
            place.pass(TTL);
            check(keeper, promised);
            keeper.ended(&worker("2"));
        },
    ];
    let threads = works.map(spawn);
    for thread in threads {
        thread.join().unwrap();
    }
    check(&keeper, &promised);
}

#[test]
fn g1_g8_no_order_of_threads_grants_anything_twice() {
    shuttle::check_random(|| race(false), schedules());
}

#[test]
fn looking_before_the_lock_is_taken_is_found() {
    let found = std::panic::catch_unwind(|| shuttle::check_random(|| race(true), 10_000));
    assert!(found.is_err(), "no schedule found that two looked before one took");
}
