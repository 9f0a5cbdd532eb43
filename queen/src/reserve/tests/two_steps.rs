//! Hold, renew, answer: all or nothing, whatever happens in between.

use super::*;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn holds_are_tentative_for_5_s_and_renewed_before_the_answer() {
    let hive = FakeHive::start("box", vec![idle(), idle()], &[("GPU-1", 8)]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let ttl = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let claims = vec![vram(2), named("box/llm/2"), vram(3)];
    let request = ReserveRequest { ttl, holder: "me".into(), ..request("", claims) };
    let answered = queen.ask(request).await.unwrap();
    assert_eq!(held(&answered), ["box/GPU-1", "box/llm/2", "box/GPU-1"]);
    assert_eq!(hive.calls(), ["hold 3 5s", "renew true 30s"], "one call for all on one hive");
    let hold = answered.reservation.holds[2].hold.clone().unwrap();
    assert_eq!((hold.vram_bytes, hold.tentative, hold.holder.as_str()), (3 << 30, false, "me"));
    assert_eq!(hold.reservation, answered.reservation.id);
    let end = common::from_timestamp(answered.reservation.expire_time.as_ref().unwrap()).unwrap();
    assert!(end.duration_since(std::time::SystemTime::now()).unwrap() > SECOND * 20);
}

#[tokio::test]
async fn g6_when_one_hive_refuses_all_is_given_back() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    let queen = Queen::new(&hives);
    hives[1].mood(|mood| mood.refuses = true);
    let refused = queen.reserve(vec![vram(8), vram(8)]).await.unwrap_err();
    assert!(matches!(&refused, Refused::NothingFits(why) if why.contains("this hive refuses")), "{refused}");
    assert_eq!((hives[0].holds(), hives[1].holds()), (vec![], vec![]));
    hives[1].mood(|mood| mood.refuses = false);
    assert_eq!(queen.reserve(vec![vram(8), vram(8)]).await.unwrap().reservation.holds.len(), 2);
}

#[tokio::test]
async fn g6_a_hive_that_dies_after_its_hold_leaves_nothing_for_longer_than_5_s() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    let queen = Queen::new(&hives);
    hives[1].mood(|mood| mood.dead_after_hold = true);
    let refused = queen.reserve(vec![vram(8), vram(8)]).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unreachable(why) if why.contains("1200 ms")), "{refused}");
    assert_eq!(hives[0].holds(), [], "the one that can be reached has been asked to give back");
    let took = eventually("the end of the other", || hives[1].holds().is_empty()).await;
    assert!(took < SECOND * 5, "{took:?}");
}

#[tokio::test]
async fn a_slow_hive_is_left_for_another_one() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 9)]).await];
    let queen = Queen::new(&hives);
    hives[0].mood(|mood| mood.slow = SECOND * 60);
    assert_eq!(held(&queen.reserve(vec![vram(8)]).await.unwrap()), ["b/GPU-b"]);
}

#[tokio::test]
async fn no_more_reservations_are_made_at_once_than_there_is_room_for() {
    let hive = FakeHive::start("box", vec![idle(), idle()], &[]).await;
    let config = Config { max_reserving: 1, ..Config::default() };
    let started = Instant::now().checked_sub(config.grace).unwrap();
    let queen = Queen::with(std::slice::from_ref(&hive), started, &config);
    hive.mood(|mood| mood.slow = Duration::from_millis(20));
    let (one, other) = tokio::join!(queen.reserve(vec![any()]), queen.reserve(vec![any()]));
    assert!(one.is_ok(), "{one:?}");
    assert_eq!(other, Err(Refused::TooMuch("1 reservations are already being made".into())));
    assert_eq!((queen.reserving.places.taken(), queen.reserving.places.refused()), (0, 1));
    assert!(queen.reserve(vec![any()]).await.is_ok());
}

/// One of two hives is asked to confirm, and its queen ends.
async fn die_between_confirmations(hives: &[FakeHive; 2]) {
    hives[1].mood(|mood| mood.renews_nothing = true);
    let dying = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Channels of its own: those of the test do not end with its runtime.
    let doomed = Queen::new(hives);
    let wish = Wish::parse(request("", vec![vram(8), vram(8)])).unwrap();
    dying.spawn(async move { doomed.reserving.reserve(wish).await });
    let renewed = |hive: &FakeHive| hive.holds().iter().any(|hold| !hold.tentative);
    eventually("the renewal at one of two", || renewed(&hives[0])).await;
    dying.shutdown_background();
    assert_eq!(hives[1].holds().len(), 1);
}

/// A queen tidies up, and hears of both hives, until nothing is held any more.
async fn until_nothing_is_held(queen: &Queen, hives: &[FakeHive; 2]) -> Duration {
    let stopping = CancellationToken::new();
    let tidying = tokio::spawn(queen.reserving.clone().tidy(stopping.clone()));
    let took = eventually("the end of both", || {
        hives.iter().for_each(|hive| queen.hear(hive));
        hives.iter().all(|hive| hive.holds().is_empty())
    });
    let took = took.await;
    stopping.cancel();
    tidying.await.unwrap();
    took
}

#[tokio::test]
async fn g6_what_a_queen_left_between_two_renewals_is_given_back_by_another() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    let other = Queen::new(&hives);
    die_between_confirmations(&hives).await;
    let took = until_nothing_is_held(&other, &hives).await;
    assert!(took < SECOND * 7, "5 s for the tentative one, and a round for the other: {took:?}");
}

#[tokio::test]
async fn g6_what_a_queen_left_between_two_renewals_is_given_back_by_one_that_saw_nothing_of_it() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    die_between_confirmations(&hives).await;
    eventually("the end of the tentative one", || hives[1].holds().is_empty()).await;
    assert_eq!(hives[0].holds().len(), 1);
    let took = until_nothing_is_held(&Queen::new(&hives), &hives).await;
    assert!(took < SECOND * 2, "{took:?}");
}

#[tokio::test]
async fn g6_what_is_left_of_an_answered_reservation_stays() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    let queen = Queen::new(&hives);
    queen.reserve(vec![vram(8), vram(8)]).await.unwrap();
    // A worker was started with it and has ended.
    hives[1].ledger().holds.clear();
    let later = Queen::new(&hives);
    assert_eq!(later.reserving.halves(), BTreeMap::new());
    hives[0].ledger().aborted.push("r0".into());
    later.hear(&hives[0]);
    assert_eq!((later.reserving.halves(), hives[0].holds().len()), (BTreeMap::new(), 1));
}

#[tokio::test]
async fn what_could_not_be_given_back_is_asked_for_again() {
    let hive = FakeHive::start("a", vec![], &[("GPU-a", 8)]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let id = queen.reserve(vec![vram(8)]).await.unwrap().reservation.id;
    hive.mood(|mood| mood.slow = SECOND * 60);
    queen.reserving.abandon(&id, vec![hive.id.clone()], true).await;
    assert_eq!(hive.holds().len(), 1);
    hive.mood(|mood| mood.slow = Duration::ZERO);
    let stopping = CancellationToken::new();
    let tidying = tokio::spawn(queen.reserving.clone().tidy(stopping.clone()));
    eventually("its end", || hive.holds().is_empty()).await;
    stopping.cancel();
    tidying.await.unwrap();
}

#[tokio::test]
async fn a_caller_that_left_without_a_key_holds_nothing() {
    let hive = FakeHive::start("box", vec![idle()], &[]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    hive.mood(|mood| mood.slow = Duration::from_millis(50));
    let reserving = queen.reserving.clone();
    let wish = Wish::parse(request("", vec![any()])).unwrap();
    let calling = tokio::spawn(async move { reserving.reserve(wish).await });
    eventually("its hold", || !hive.holds().is_empty()).await;
    calling.abort();
    eventually("the release", || hive.calls().contains(&"release".to_owned()) && hive.holds().is_empty()).await;
    assert_eq!(queen.reserving.list(""), []);
}
