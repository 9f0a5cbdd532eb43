//! Which places are chosen, and what is said when there is none.

use super::*;
use proto::{Filter, Fit, OperationalStatus, VramClaim, WorkerClaim};

fn no(answer: Result<Answered, Refused>) -> String {
    answer.unwrap_err().to_string()
}

#[tokio::test]
async fn a_worker_that_was_idle_longest_comes_first_and_each_goes_once() {
    let hive = FakeHive::start("box", vec![idle(), idle(), busy()], &[]).await;
    hive.ledger().workers[0].1.idle_since = Some(common::timestamp(std::time::SystemTime::now()));
    hive.ledger().workers[1].1.idle_since = Some(common::timestamp(std::time::SystemTime::now() - 60 * SECOND));
    let queen = Queen::new(std::slice::from_ref(&hive));
    // No record shows the first when the second is asked for.
    assert_eq!(held(&queen.reserve(vec![any()]).await.unwrap()), ["box/llm/2"]);
    assert_eq!(held(&queen.reserve(vec![any()]).await.unwrap()), ["box/llm/1"]);
    let why = no(queen.reserve(vec![any()]).await);
    assert!(why.contains("box/llm/1 is held by r") && why.contains("box/llm/3 is busy"), "{why}");
    let not_idle = What::AnyWorker(WorkerClaim::default());
    assert_eq!(held(&queen.reserve(vec![not_idle]).await.unwrap()), ["box/llm/3"], "idleness was not asked for");
}

#[tokio::test]
async fn claims_that_only_fit_together_in_one_way_are_all_served() {
    let hives = [FakeHive::start("a", vec![idle()], &[]).await, FakeHive::start("b", vec![idle()], &[]).await];
    let queen = Queen::new(&hives);
    let on = |hive: &str| {
        let filter = Some(Filter { hive: hive.into(), ..Filter::default() });
        What::AnyWorker(WorkerClaim { filter, ..Default::default() })
    };
    let answered = queen.reserve(vec![any(), on("a")]).await.unwrap();
    assert_eq!(held(&answered), ["b/llm/1", "a/llm/1"], "in the order of the claims");
}

#[tokio::test]
async fn g7_a_stale_record_leads_to_a_refusal_and_the_next_candidate() {
    let hives = [FakeHive::start("a", vec![idle(), idle()], &[]).await, FakeHive::start("b", vec![idle()], &[]).await];
    let (first, second) = (Queen::new(&hives), Queen::new(&hives));
    let mut all: Vec<String> = Vec::new();
    for queen in [&first, &second, &first] {
        all.extend(held(&queen.reserve(vec![any()]).await.unwrap()));
    }
    all.sort();
    assert_eq!(all, ["a/llm/1", "a/llm/2", "b/llm/1"], "neither has seen what the other was given");
    let why = no(second.reserve(vec![any()]).await);
    assert!(why.contains("was refused by its hive"), "{why}");
}

#[tokio::test]
async fn a_refusal_for_two_does_not_cost_the_one_that_is_free() {
    let hive = FakeHive::start("a", vec![idle(), idle(), idle()], &[]).await;
    let (first, second) = (Queen::new(std::slice::from_ref(&hive)), Queen::new(std::slice::from_ref(&hive)));
    first.reserve(vec![named("a/llm/1")]).await.unwrap();
    let answered = second.reserve(vec![any(), any()]).await.unwrap();
    assert_eq!(held(&answered).len(), 2, "{answered:?}");
    assert!(!held(&answered).contains(&"a/llm/1".to_owned()));
}

#[tokio::test]
async fn a_hive_that_says_the_same_of_two_is_not_asked_for_all() {
    let hives = [FakeHive::start("a", vec![idle(); 40], &[]).await, FakeHive::start("b", vec![idle()], &[]).await];
    let queen = Queen::new(&hives);
    hives[0].mood(|mood| mood.refuses = true);
    assert_eq!(held(&queen.reserve(vec![any()]).await.unwrap()), ["b/llm/1"]);
    assert_eq!(hives[0].calls().iter().filter(|call| call.starts_with("hold")).count(), 2);
}

#[tokio::test]
async fn memory_goes_where_the_claim_says() {
    let hives = [
        FakeHive::start("a", vec![], &[("GPU-a0", 24), ("GPU-a1", 80)]).await,
        FakeHive::start("b", vec![], &[("GPU-b0", 16)]).await,
    ];
    let queen = Queen::new(&hives);
    let claim = |gib: u64, fit: Fit, uuid: &str, hive: &str| {
        let filter = Some(Filter { hive: hive.into(), ..Filter::default() });
        What::Vram(VramClaim { bytes: gib << 30, fit: fit.into(), gpu_uuid: uuid.into(), filter, ..Default::default() })
    };
    let place = async |what: What| {
        let answered = queen.reserve(vec![what]).await.unwrap();
        queen.reserving.release(&answered.reservation.id).await.unwrap();
        held(&answered).remove(0)
    };
    assert_eq!(place(claim(8, Fit::Unspecified, "", "")).await, "b/GPU-b0");
    assert_eq!(place(claim(8, Fit::First, "", "")).await, "a/GPU-a0");
    assert_eq!(place(claim(8, Fit::MostFree, "", "")).await, "a/GPU-a1");
    assert_eq!(place(claim(8, Fit::Best, "", "a")).await, "a/GPU-a0");
    assert_eq!(place(claim(8, Fit::Best, "GPU-a1", "")).await, "a/GPU-a1");
    let answered = queen.reserve(vec![vram(10), vram(10), vram(20)]).await.unwrap();
    assert_eq!(held(&answered), ["b/GPU-b0", "a/GPU-a1", "a/GPU-a0"], "best fit, the largest first");
    let why = no(queen.reserve(vec![vram(75)]).await);
    assert!(why.contains("GPU GPU-a1 of a has 70.0 GiB free, 75.0 GiB are needed"), "{why}");
    queen.hear(&hives[0]);
    let again = no(queen.reserve(vec![vram(75)]).await);
    assert!(again.contains("70.0 GiB"), "what a record shows is not counted twice: {again}");
}

#[tokio::test]
async fn what_was_given_back_is_free_before_the_record_says_so() {
    let hive = FakeHive::start("box", vec![idle()], &[("GPU-1", 10)]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    for claim in [named("box/llm/1"), vram(8)] {
        let id = queen.reserve(vec![claim.clone()]).await.unwrap().reservation.id;
        queen.hear(&hive);
        queen.reserving.release(&id).await.unwrap();
        assert!(queen.reserve(vec![claim]).await.is_ok());
    }
}

#[tokio::test]
async fn a_gpu_that_the_finds_leave_out_is_not_asked_for_either() {
    let hive = FakeHive::start("a", vec![], &[("GPU-a", 8)]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let stale = proto::Hive { gpu_sample_state: proto::GpuSampleState::Stale.into(), ..hive.record() };
    let mut divided = hive.record();
    divided.gpus.push(proto::Gpu { uuid: "MIG-1".into(), parent_uuid: Some("GPU-a".into()), ..Default::default() });
    for (record, why) in [(stale, "does not tell how much memory is free"), (divided, "is divided (MIG)")] {
        queen.hear_record(record, &hive);
        let told = no(queen.reserve(vec![vram(1)]).await);
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(hive.calls(), [""; 0], "its hive was not even asked");
}

#[tokio::test]
async fn hives_that_drain_or_are_silent_are_left_out() {
    let hives =
        [FakeHive::start("a", vec![idle()], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![idle()], &[]).await];
    let queen = Queen::new(&hives);
    let draining = proto::Hive { operational_status: OperationalStatus::Draining.into(), ..hives[0].record() };
    queen.hear_record(draining, &hives[0]);
    assert_eq!(held(&queen.reserve(vec![any()]).await.unwrap()), ["b/llm/1"]);
    for claim in [vram(1), any()] {
        let why = no(queen.reserve(vec![claim]).await);
        assert!(why.contains("is on a hive that is draining"), "{why}");
    }
    assert!(matches!(queen.reserve(vec![named("a/llm/1")]).await, Err(Refused::NotNow(_))));
    queen.fleet.expire(Instant::now());
    let session = queen.fleet.register(
        Instant::now(),
        RegisterRequest { hive: Some(hives[0].record()), ..Default::default() },
        "t",
    );
    let session = session.unwrap().session;
    queen.fleet.attach(&session).unwrap();
    queen.fleet.detach(Instant::now(), &session, false);
    assert!(
        matches!(queen.reserve(vec![named("a/llm/1")]).await, Err(Refused::Unreachable(_))),
        "its stream is broken"
    );
    assert!(queen.reserve(vec![vram(1)]).await.is_err());
}

#[tokio::test]
async fn what_is_wrong_with_a_named_worker_is_told() {
    let hive = FakeHive::start("box", vec![idle(), idle(), idle()], &[]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    assert!(matches!(queen.reserve(vec![named("box/llm/9")]).await, Err(Refused::Unknown(_))));
    assert!(matches!(queen.reserve(vec![named("den/llm/1")]).await, Err(Refused::Unknown(_))));
    queen.reserve(vec![named("box/llm/1")]).await.unwrap();
    let held = queen.reserve(vec![named("box/llm/1")]).await.unwrap_err();
    assert!(matches!(&held, Refused::NotNow(why) if why.contains("box/llm/1 is held by r")), "{held}");
    queen.hear(&hive);
    assert!(matches!(queen.reserve(vec![named("box/llm/1")]).await, Err(Refused::NotNow(_))), "now the record says so");
    // Somebody else's hold, which no record shows.
    let other = Queen::new(std::slice::from_ref(&hive));
    other.reserve(vec![named("box/llm/2")]).await.unwrap();
    let held = queen.reserve(vec![named("box/llm/2")]).await.unwrap_err();
    assert!(matches!(&held, Refused::NotNow(why) if why.contains("held already")), "{held}");
    let nowhere = Queen::new(&[]);
    nowhere.hear(&hive);
    let why = nowhere.reserve(vec![any()]).await.unwrap_err();
    assert!(matches!(&why, Refused::Unreachable(why) if why.contains("not attached")), "{why}");
}

#[tokio::test]
async fn g8_of_two_schedulers_through_two_queens_exactly_one_gets_the_worker() {
    race(1_000, |_| {}).await;
}

#[tokio::test]
#[should_panic(expected = "both")]
async fn a_hive_that_looks_first_and_grants_later_is_found_out_by_the_same_race() {
    race(1_000, |mood| mood.looks_first = true).await;
}

async fn race(rounds: usize, change: impl FnOnce(&mut fake::Mood)) {
    let hive = FakeHive::start("box", vec![idle()], &[]).await;
    hive.mood(change);
    let queens = [Queen::new(std::slice::from_ref(&hive)), Queen::new(std::slice::from_ref(&hive))];
    for round in 0..rounds {
        queens.iter().for_each(|queen| queen.hear(&hive));
        let claim = || vec![if round % 2 == 0 { named("box/llm/1") } else { any() }];
        let (one, other) = tokio::join!(queens[0].reserve(claim()), queens[1].reserve(claim()));
        assert!(one.is_ok() || other.is_ok(), "neither in round {round}: {one:?} {other:?}");
        assert!(one.is_err() || other.is_err(), "both in round {round}");
        let won = one.or(other).unwrap().reservation.id;
        // The queen that did not make it learns of it by a record only.
        for queen in &queens {
            queen.hear(&hive);
            assert_eq!(queen.reserving.list("").len(), 1, "as each looks every second");
        }
        queens[round % 2].reserving.release(&won).await.unwrap();
        assert_eq!(hive.holds(), []);
    }
}
