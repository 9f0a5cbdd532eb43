//! One key, one answered grant.

use super::super::rivals::ASKED;
use super::*;
use proto::HoldRequest;
use std::collections::HashSet;
use tokio::task::JoinSet;

/// How often two queens are asked at once.
fn rounds() -> usize {
    if std::env::var_os("LONG").is_some() { 2_000 } else { 100 }
}

async fn two_hives() -> [FakeHive; 2] {
    [FakeHive::start("a", vec![idle()], &[]).await, FakeHive::start("b", vec![idle()], &[]).await]
}

fn ids(answers: &[Result<Answered, Refused>]) -> HashSet<String> {
    answers.iter().flatten().map(|answered| answered.reservation.id.clone()).collect()
}

#[tokio::test]
async fn g2_calls_with_one_key_at_one_queen_share_one_grant() {
    let hives = two_hives().await;
    let queen = Queen::new(&hives);
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (reserving, wish) = (queen.reserving.clone(), Wish::parse(request("k", vec![any()])).unwrap());
        calls.spawn(async move { reserving.reserve(wish).await });
    }
    let answers = calls.join_all().await;
    assert_eq!(ids(&answers).len(), 1, "{answers:?}");
    assert_eq!(answers.iter().flatten().filter(|answered| !answered.existing).count(), 1);
    let later = queen.ask(request("k", vec![any()])).await.unwrap();
    assert!(later.existing && ids(&answers).contains(&later.reservation.id));
    assert_eq!(hives[0].holds().len() + hives[1].holds().len(), 1);
    assert_eq!(queen.ask(request("k", vec![any(), any()])).await, Err(Refused::KeyUsed("k".into())));
    queen.reserving.release(&later.reservation.id).await.unwrap();
    let anew = queen.ask(request("k", vec![any()])).await.unwrap();
    assert!(!anew.existing, "a key is free once its reservation has ended");
}

#[tokio::test]
async fn g2_a_retry_at_another_queen_finds_the_grant_with_or_without_its_record() {
    let hives = two_hives().await;
    let first = Queen::new(&hives);
    let id = first.ask(request("k", vec![any()])).await.unwrap().reservation.id;
    let with = Queen::new(&hives);
    let again = with.ask(request("k", vec![any()])).await.unwrap();
    assert_eq!((again.existing, &again.reservation.id), (true, &id), "its record shows the key");
    // Records from before; the hive that was not chosen looks better now.
    let without = with_hives(&hives);
    for hive in &hives {
        without.hear_record(proto::Hive { holds: vec![], ..hive.record() }, hive);
    }
    let holder = usize::from(hives[0].holds().is_empty());
    assert_eq!(hives[holder].holds().len(), 1);
    let again = without.ask(request("k", vec![any()])).await.unwrap();
    assert_eq!((again.existing, &again.reservation.id), (true, &id));
    assert_eq!(without.ask(request("k", vec![named("b/llm/1")])).await, Err(Refused::KeyUsed("k".into())));
    assert_eq!(hives[0].holds().len() + hives[1].holds().len(), 1);
}

#[tokio::test]
async fn g2_a_key_in_flight_is_not_shared_with_another_wish() {
    let hives = two_hives().await;
    let queen = Queen::new(&hives);
    hives.iter().for_each(|hive| hive.mood(|mood| mood.slow = Duration::from_millis(20)));
    let (first, other) =
        tokio::join!(queen.ask(request("k", vec![any()])), queen.ask(request("k", vec![named("a/llm/1")])));
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(other, Err(Refused::KeyUsed("k".into())));
}

/// A queen who can call these hives and has heard of none.
fn with_hives(hives: &[FakeHive]) -> Queen {
    let queen = Queen::new(&[]);
    Queen { reserving: with_ways(&queen, hives), ..queen }
}

fn with_ways(queen: &Queen, hives: &[FakeHive]) -> Arc<Reserving> {
    let reached = hives.to_vec();
    let ways = Ways::new(move |id| Ok(reached.iter().find(|hive| hive.id == *id).unwrap().channel.clone()));
    let config = Config::default();
    let places = Bound::new(config.max_reserving);
    Arc::new(Reserving::new(queen.fleet.clone(), ways, config.max_age, config.grace, places))
}

#[tokio::test]
async fn g2_two_queens_asked_at_once_with_one_key_answer_one_grant() {
    let hives = two_hives().await;
    let blind = |hidden: usize| {
        // Each prefers another hive: to her the other's worker is not as long idle.
        let queen = Queen::new(&hives);
        let mut record = hives[hidden].record();
        record.operational_status = proto::OperationalStatus::Draining.into();
        queen.hear_record(record, &hives[hidden]);
        queen
    };
    for round in 0..rounds() {
        hives.iter().for_each(|hive| hive.mood(|mood| mood.slow = Duration::from_micros(200 * (round % 7) as u64)));
        let queens = [blind(0), blind(1)];
        let key = format!("k{round}");
        let ask = || request(&key, vec![any()]);
        let (one, other) = tokio::join!(queens[0].ask(ask()), queens[1].ask(ask()));
        let answers = [one, other];
        assert_eq!(ids(&answers).len(), 1, "round {round}: {answers:?}");
        let granted: Vec<_> = hives.iter().flat_map(FakeHive::holds).collect();
        assert_eq!(granted.len(), 1, "round {round}: {granted:?}");
        assert!(!granted[0].tentative && ids(&answers).contains(&granted[0].reservation), "{granted:?}");
        let id = &granted[0].reservation;
        hives.iter().for_each(|hive| hive.ledger().holds.retain(|(hold, _)| hold.reservation != *id));
    }
}

/// More than are asked one by one.
async fn many_hives() -> Vec<FakeHive> {
    let mut hives = Vec::new();
    for at in 0..40 {
        hives.push(FakeHive::start(&format!("h{at}"), vec![idle()], &[]).await);
    }
    hives
}

/// What a queen is told of a hive that she believes to be draining, if she does.
fn tell(queen: &Queen, hive: &FakeHive, drains: bool) {
    let status = if drains { proto::OperationalStatus::Draining } else { proto::OperationalStatus::Ready };
    queen.hear_record(proto::Hive { operational_status: status.into(), ..hive.record() }, hive);
}

#[tokio::test]
async fn g2_in_a_large_fleet_two_queens_asked_at_once_meet_at_the_witnesses_of_the_key() {
    let hives = many_hives().await;
    // Each takes a hive of her own half.
    let drains = |queen: usize, at: usize| at % 2 == queen;
    for round in 0..rounds() / 5 {
        let slow = Duration::from_micros(200 * (round % 7) as u64);
        hives.iter().for_each(|hive| hive.mood(|mood| mood.slow = slow));
        let queens = [with_hives(&hives), with_hives(&hives)];
        // Else the one asks all hives and the witnesses, the other the witnesses only.
        let alike = round % 2 == 0;
        let known = if alike { [hives.len(); 2] } else { [ASKED, ASKED + 1] };
        let tell_all = |held_only: bool| {
            for (queen, number) in queens.iter().zip(0..) {
                let told = hives[..known[number]]
                    .iter()
                    .enumerate()
                    .filter(|(_, hive)| !held_only || !hive.holds().is_empty());
                told.for_each(|(at, hive)| tell(queen, hive, drains(number, at)));
            }
        };
        tell_all(false);
        let key = format!("k{round}");
        let ask = |queen: usize| queens[queen].ask(request(&key, vec![any()]));
        // Asked later, the other has heard of no record yet.
        let first = if alike { None } else { Some(ask(0).await) };
        let both = async {
            match first {
                Some(first) => (first, ask(1).await),
                None => tokio::join!(ask(0), ask(1)),
            }
        };
        let records = async {
            loop {
                tokio::time::sleep(LOOK).await;
                tell_all(true);
            }
        };
        let (one, other) = tokio::select! { answers = both => answers, () = records => unreachable!() };
        let answers = [one, other];
        assert_eq!(ids(&answers).len(), 1, "round {round}: {answers:?}");
        assert!(answers.iter().all(Result::is_ok), "round {round}: {answers:?}");
        let granted: Vec<_> = hives.iter().flat_map(FakeHive::holds).collect();
        assert!(granted.len() == 1 && !granted[0].tentative, "round {round}: {granted:?}");
        if !alike {
            hives.iter().for_each(|hive| hive.ledger().holds.clear());
            continue;
        }
        // And another wish with the key is refused by whoever bears witness, before any record tells.
        let late = with_hives(&hives);
        hives.iter().for_each(|hive| late.hear_record(proto::Hive { holds: vec![], ..hive.record() }, hive));
        let two = late.ask(request(&key, vec![any(), any()])).await;
        assert_eq!(two, Err(Refused::KeyUsed(key.clone())), "round {round}");
        queens[0].reserving.release(&granted[0].reservation).await.unwrap();
        assert_eq!(hives.iter().map(|hive| hive.ledger().holds.len()).sum::<usize>(), 0, "the key is free too");
    }
}

#[tokio::test]
async fn g2_in_a_large_fleet_nothing_is_answered_while_most_witnesses_of_the_key_are_away() {
    let hives = many_hives().await;
    let queen = Queen::new(&hives);
    let ask = |key: &str| request(key, vec![named("h0/llm/1")]);
    let witnesses = queen.reserving.witnesses("k", hives.len()).unwrap();
    assert_eq!(witnesses.len(), 3);
    let away: Vec<&FakeHive> = hives.iter().filter(|hive| witnesses[..2].contains(&hive.id)).collect();
    away.iter().for_each(|hive| hive.mood(|mood| mood.slow = SECOND * 60));
    let told = queen.ask(ask("k")).await.unwrap_err();
    assert!(matches!(&told, Refused::Unreachable(why) if why.contains("bear witness")), "{told}");
    assert_eq!(hives[0].holds(), []);
    away[0].mood(|mood| mood.slow = Duration::ZERO);
    assert!(queen.ask(ask("k")).await.is_ok(), "one of three may be away");
}

#[tokio::test]
async fn g2_what_a_dead_queen_holds_with_a_key_is_waited_for_and_not_taken_over() {
    let hive = FakeHive::start("box", vec![idle(), idle()], &[]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let wish = Wish::parse(request("k", vec![any()])).unwrap();
    let what = Some(proto::hold_wish::What::Worker("llm/1".into()));
    let orphan = HoldRequest {
        reservation: "r0".into(),
        wishes: vec![proto::HoldWish { what }],
        ttl: Some(common::duration(SECOND)),
        key: "k".into(),
        wish: wish.digest,
        ..HoldRequest::default()
    };
    for seen in [true, false] {
        hive.client().hold(orphan.clone()).await.unwrap();
        if seen {
            queen.hear(&hive);
        }
        let answered = queen.ask(request("k", vec![any()])).await.unwrap();
        assert!(!answered.existing && answered.reservation.id != "r0", "{answered:?}");
        queen.reserving.release(&answered.reservation.id).await.unwrap();
        queen.hear(&hive);
    }
    // Longer than the call may take: its caller is told to come back.
    hive.client().hold(HoldRequest { ttl: Some(common::duration(SECOND * 60)), ..orphan }).await.unwrap();
    let told = queen.ask(request("k", vec![any()])).await.unwrap_err();
    assert!(matches!(&told, Refused::Unreachable(why) if why.contains("another queen")), "{told}");
    assert_eq!(hive.holds().len(), 1);
}

#[tokio::test]
async fn g6_half_of_a_reservation_is_not_answered_for_its_key() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    let queen = Queen::new(&hives);
    let ask = || request("k", vec![vram(8), vram(8)]);
    let first = queen.ask(ask()).await.unwrap().reservation.id;
    // Its other half never came to be: its queen died in between.
    hives[1].ledger().holds.clear();
    hives[1].ledger().aborted.push(first.clone());
    let later = Queen::new(&hives);
    let second = later.ask(ask()).await.unwrap();
    assert!(second.reservation.id != first && second.reservation.holds.len() == 2 && !second.existing);
    assert_eq!(hives[0].holds().len(), 1);
}

#[tokio::test]
async fn g2_what_is_left_of_an_answered_reservation_is_answered_for_its_key() {
    let hives = two_hives().await;
    let queen = Queen::new(&hives);
    let ask = || request("k", vec![any(), any()]);
    let first = queen.ask(ask()).await.unwrap().reservation.id;
    // One of its workers has ended.
    hives[1].ledger().holds.clear();
    let again = Queen::new(&hives).ask(ask()).await.unwrap();
    assert_eq!((again.existing, &again.reservation.id, held(&again).len()), (true, &first, 1));
}

#[tokio::test]
async fn g2_a_witness_that_has_not_heard_of_a_release_is_told_again() {
    let hives = many_hives().await;
    let queen = Queen::new(&hives);
    let ask = |key: &str| request(key, vec![named("h0/llm/1")]);
    let key = (0..).map(|at| format!("k{at}")).find(|key| {
        let witnesses = queen.reserving.witnesses(key, hives.len()).unwrap();
        witnesses[0] == hives[0].id
    });
    let key = key.unwrap();
    for round in 0..3 {
        let held = queen.ask(ask(&key)).await.unwrap();
        assert!(!held.existing, "round {round}");
        let lost: Vec<_> = hives.iter().map(|hive| hive.ledger().holds.clone()).collect();
        queen.reserving.release(&held.reservation.id).await.unwrap();
        // Every hive forgets that it was released.
        hives.iter().zip(lost).for_each(|(hive, holds)| hive.ledger().holds = holds);
    }
}

#[tokio::test]
async fn g2_a_queen_that_has_just_started_does_not_guess() {
    let hives = two_hives().await;
    let queen = Queen::started(&hives, Instant::now());
    let told = queen.ask(request("k", vec![any()])).await.unwrap_err();
    assert!(matches!(&told, Refused::Unreachable(why) if why.contains("just started")), "{told}");
    assert!(queen.ask(request("", vec![any()])).await.is_ok(), "without a key there is nothing to know");
    let free = if hives[0].holds().is_empty() { "a/llm/1" } else { "b/llm/1" };
    assert!(queen.ask(request("k", vec![named(free)])).await.is_ok(), "the hive that is named guards the key");
    assert!(matches!(queen.reserve(vec![named("den/llm/1")]).await, Err(Refused::Unreachable(_))));
    let ttl = SECOND * 60;
    assert!(matches!(queen.reserving.renew("r9", ttl).await, Err(Refused::Unreachable(_))));
    assert!(matches!(queen.reserving.release("r9").await, Err(Refused::Unreachable(_))));
}
