//! Renew, release, list; and what else shows that something is held.

use super::*;
use common::{HiveId, WorkerId};

#[tokio::test]
async fn a_renewal_moves_all_or_says_what_has_ended() {
    let hives =
        [FakeHive::start("a", vec![], &[("GPU-a", 8)]).await, FakeHive::start("b", vec![], &[("GPU-b", 8)]).await];
    let queen = Queen::new(&hives);
    let reservation = queen.reserve(vec![vram(8), vram(8)]).await.unwrap().reservation;
    let renewed = queen.reserving.renew(&reservation.id, SECOND * 600).await.unwrap();
    assert_eq!(renewed.holds.len(), 2);
    let end = |reservation: &proto::Reservation| common::from_timestamp(reservation.expire_time.as_ref().unwrap());
    assert!(end(&renewed).unwrap() > end(&reservation).unwrap() + SECOND * 500);
    assert_eq!(queen.reserving.list("")[0], renewed, "also before a record shows it");
    // Another queen, who has heard of it only by now.
    let other = Queen::new(&hives);
    assert!(other.reserving.renew(&reservation.id, SECOND * 60).await.is_ok());
    hives[1].ledger().holds.clear();
    let gone = queen.reserving.renew(&reservation.id, SECOND * 60).await.unwrap_err();
    assert!(matches!(&gone, Refused::Unknown(why) if why.contains("hive b")), "{gone}");
    hives[1].mood(|mood| mood.slow = SECOND * 60);
    assert!(matches!(other.reserving.renew(&reservation.id, SECOND).await, Err(Refused::Unreachable(_))));
    assert!(matches!(queen.reserving.renew("r9", SECOND).await, Err(Refused::Unknown(_))));
}

#[tokio::test]
async fn an_answer_of_another_queen_is_waited_for_before_it_is_called_unknown() {
    let hive = FakeHive::start("box", vec![idle()], &[]).await;
    let queens = [Queen::new(std::slice::from_ref(&hive)), Queen::new(std::slice::from_ref(&hive))];
    let id = queens[0].reserve(vec![any()]).await.unwrap().reservation.id;
    let hearing = async {
        tokio::time::sleep(LOOK * 20).await;
        queens[1].hear(&hive);
    };
    let (renewed, ()) = tokio::join!(queens[1].reserving.renew(&id, SECOND * 60), hearing);
    assert_eq!(renewed.unwrap().id, id);
}

#[tokio::test]
async fn what_another_queen_gave_back_is_gone_as_soon_as_the_hive_says_so() {
    let hive = FakeHive::start("box", vec![idle()], &[]).await;
    let queens = [Queen::new(std::slice::from_ref(&hive)), Queen::new(std::slice::from_ref(&hive))];
    let id = queens[0].reserve(vec![any()]).await.unwrap().reservation.id;
    queens[1].hear(&hive);
    let before = hive.record().last_fencing_token - 1;
    assert_eq!(queens[1].reserving.release(&id).await.unwrap().released, 1);
    // A record from before the grant says nothing of it.
    queens[0].hear_record(proto::Hive { last_fencing_token: before, ..hive.record() }, &hive);
    assert_eq!(queens[0].reserving.list("").len(), 1);
    assert!(queens[0].reserve(vec![any()]).await.is_err(), "not offered while it may be held");
    queens[0].hear(&hive);
    assert_eq!(queens[0].reserving.list(""), []);
    assert!(queens[0].reserve(vec![any()]).await.is_ok());
}

#[tokio::test]
async fn a_renewal_asks_who_has_just_answered_though_its_part_has_ended_there() {
    let hives = [FakeHive::start("a", vec![idle()], &[]).await, FakeHive::start("b", vec![idle()], &[]).await];
    let queen = Queen::new(&hives);
    let id = queen.reserve(vec![any(), any()]).await.unwrap().reservation.id;
    let request = proto::ReleaseHoldRequest { reservation: id.clone(), aborting: false };
    hives[0].client().release_hold(request).await.unwrap();
    queen.hear(&hives[0]);
    queen.hear(&hives[1]);
    let left = queen.reserving.list("");
    assert_eq!((left.len(), left[0].holds.len()), (1, 1));
    let refused = queen.reserving.renew(&id, SECOND * 60).await;
    assert!(matches!(&refused, Err(Refused::Unknown(why)) if why.contains("hive a")), "{refused:?}");
}

#[tokio::test]
async fn a_release_is_harmless_twice_and_leaves_what_a_worker_uses() {
    let hive = FakeHive::start("box", vec![idle()], &[("GPU-1", 8)]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let id = queen.reserve(vec![vram(2), any()]).await.unwrap().reservation.id;
    for released in [2, 0] {
        let told = queen.reserving.release(&id).await.unwrap();
        assert_eq!((told.released, told.in_use), (released, 0));
    }
    let id = queen.reserve(vec![vram(2), vram(2)]).await.unwrap().reservation.id;
    hive.ledger().holds[0].0.used_by = "llm/7".into();
    queen.hear(&hive);
    let told = queen.reserving.release(&id).await.unwrap();
    assert_eq!((told.released, told.in_use), (1, 1));
    queen.hear(&hive);
    let left = queen.reserving.list("");
    assert_eq!((left.len(), left[0].holds.len(), left[0].expire_time), (1, 1, None), "it ends with its worker");
}

#[tokio::test]
async fn a_list_is_in_the_order_of_ids_without_those_that_are_not_answered() {
    let hive = FakeHive::start("box", vec![], &[("GPU-1", 80)]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(queen.reserve(vec![vram(1)]).await.unwrap().reservation.id);
    }
    ids.sort();
    let listed = |after: &str| -> Vec<String> { queen.reserving.list(after).into_iter().map(|one| one.id).collect() };
    assert_eq!(listed(""), ids, "no record shows them yet");
    hive.ledger().holds[0].0.tentative = true;
    let tentative = hive.ledger().holds[0].0.reservation.clone();
    let later = Queen::new(std::slice::from_ref(&hive));
    let listed: Vec<String> = later.reserving.list("").into_iter().map(|one| one.id).collect();
    let answered: Vec<String> = ids.iter().filter(|id| **id != tentative).cloned().collect();
    assert_eq!(listed, answered);
    assert_eq!(later.reserving.list(&answered[1]).len(), 2);
}

#[tokio::test]
async fn a_held_worker_says_so_everywhere_and_is_not_counted_as_available() {
    let hive = FakeHive::start("box", vec![idle(), idle()], &[]).await;
    let queen = Queen::new(std::slice::from_ref(&hive));
    let now = Instant::now();
    assert_eq!(queen.fleet.census(now).workers_available, 2);
    let id = queen.reserve(vec![named("box/llm/2")]).await.unwrap().reservation.id;
    let mut place = queen.fleet.feed().start();
    let told = |place: &mut _| match queen.fleet.feed().read(Instant::now(), place, None, 1 << 20) {
        crate::fleet::feed::Read::Page { message: Some(message), .. } => {
            let Some(proto::watch_response::Event::Update(update)) = message.read().event else {
                panic!("not an update")
            };
            update.workers.into_iter().map(|w| (w.spec.unwrap().instance, w.reservation)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut place).len(), 2);
    // The record alone changes: nothing about the workers themselves.
    let session =
        queen.fleet.register(Instant::now(), RegisterRequest { hive: Some(hive.record()), ..Default::default() }, "t");
    assert!(session.is_ok());
    assert_eq!(told(&mut place), [("2".to_owned(), id.clone())], "and only that one is news");
    assert_eq!(queen.fleet.census(Instant::now()).workers_available, 1);
    let (box_, two) = (HiveId::parse("box").unwrap(), WorkerId::new("llm", "2").unwrap());
    assert_eq!(queen.fleet.worker(Instant::now(), &box_, &two).unwrap().reservation, id);
    queen.reserving.release(&id).await.unwrap();
    queen.hear(&hive);
    assert!(told(&mut place).contains(&("2".to_owned(), String::new())));
}
