//! Holds of workers and of GPU memory, and starts with what is held.

use super::giving::{G, environment, gpus, with_vram};
use super::*;
use crate::gpus::Process;
use crate::ledger::Refusal;
use tokio::sync::watch::Sender;

fn wish(bytes: u64) -> proto::HoldWish {
    let vram = proto::VramWish { bytes, ..Default::default() };
    proto::HoldWish { what: Some(proto::hold_wish::What::Vram(vram)) }
}

fn worker_wish(instance: &str) -> proto::HoldWish {
    proto::HoldWish { what: Some(proto::hold_wish::What::Worker(id(instance).to_string())) }
}

async fn hold(
    life: &Life,
    reservation: &str,
    wish: proto::HoldWish,
    ttl: Duration,
) -> Result<Vec<proto::Hold>, Refusal> {
    let request = proto::HoldRequest {
        reservation: reservation.to_owned(),
        wishes: vec![wish],
        ttl: Some(common::duration(ttl)),
        ..Default::default()
    };
    life.hold(request).await
}

fn reserved(instance: &str, reservation: &str, command: &[&str]) -> proto::StartWorkerRequest {
    proto::StartWorkerRequest { reservation: reservation.to_owned(), ..request(instance, command) }
}

fn release(reservation: &str) -> proto::ReleaseHoldRequest {
    proto::ReleaseHoldRequest { reservation: reservation.to_owned(), aborting: false }
}

async fn holds(life: &Life) -> Vec<proto::Hold> {
    life.list_holds().await.unwrap()
}

async fn without_holds(life: &Life) {
    let mut grants = life.grants();
    tokio::time::timeout(DEADLINE, grants.wait_for(|granted| granted.grants.is_empty())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_holds_and_starts_that_race_never_get_the_same_room() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0), ("GPU-b", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let tries = (0..8).map(|at| {
        let life = life.clone();
        tokio::spawn(async move {
            let name = at.to_string();
            if at % 2 == 0 {
                hold(&life, &name, wish(10 * G), LONG).await.is_ok()
            } else {
                life.start(with_vram(&name, "10G")).await.is_ok()
            }
        })
    });
    let mut given = 0;
    for one in tries.collect::<Vec<_>>() {
        given += usize::from(one.await.unwrap());
    }
    let bytes = life.held(&views.borrow()).bytes;
    assert_eq!((given, bytes.into_values().collect::<Vec<_>>()), (4, vec![20 * G, 20 * G]));
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_what_is_held_becomes_the_workers_and_lives_as_long_as_it_does() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let held = hold(&life, "r", wish(20 * G), Duration::from_secs(60)).await.unwrap();
    let refused = life.start(with_vram("1", "5G")).await.unwrap_err().to_string();
    assert!(refused.contains("reservations hold 20.0 GiB"), "{refused}");
    let asked = proto::StartWorkerRequest {
        fencing_token: Some(held[0].fencing_token),
        restart: proto::RestartPolicy::Always.into(),
        ..reserved("2", "r", &["sleep", "300"])
    };
    let started = life.start(asked).await.unwrap().member;
    assert_eq!(environment(&started)["CUDA_VISIBLE_DEVICES"], "0");
    assert_eq!((started.spec.gpu_uuids[0].as_str(), started.spec.reservation.as_str()), ("GPU-a", "r"));
    assert_eq!((holds(&life).await[0].used_by.as_str(), life.release_hold(release("r")).await.unwrap()), ("llm/2", 0));
    assert!(matches!(life.start(with_vram("1", "5G")).await, Err(StartError::NoRoom { .. })));
    // What it uses is no longer due.
    let pid = u32::try_from(started.pid().unwrap()).unwrap();
    let process = Process { pid, device: 0, vram_bytes: Some(18 * G), ..Process::default() };
    views.send_replace(gpus(&[("GPU-a", 24 * G, 18 * G)], vec![process]));
    assert_eq!(holds(&life).await[0].unused_vram_bytes, 2 * G);
    views.send_replace(gpus(&[("GPU-a", 24 * G, 0)], vec![]));
    // Over a restart by its policy.
    kill(&started);
    eventually("it is started again", || {
        member(&life, "2").is_some_and(|now| now.spec.restarts == 1 && now.pid().is_some())
    })
    .await;
    assert_eq!(holds(&life).await[0].used_by, "llm/2");
    // And over one of the hive.
    leave(life).await;
    let life = place.open_with(&views).await;
    views.send_replace(gpus(&[("GPU-a", 24 * G, 0)], vec![]));
    assert_eq!(
        (holds(&life).await[0].used_by.as_str(), member(&life, "2").unwrap().spec.reservation.as_str()),
        ("llm/2", "r")
    );
    assert!(matches!(life.start(with_vram("1", "5G")).await, Err(StartError::NoRoom { .. })));
    life.stop(&id("2"), LONG, "a test").await.unwrap();
    without_holds(&life).await;
    let refused = life.start(reserved("2", "r", &["sleep", "300"])).await.unwrap_err();
    assert!(matches!(refused, StartError::Refused(Refusal::Unknown(_))), "{refused}");
    life.start(with_vram("1", "24G")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_with_an_expired_or_an_older_one_nothing_is_started() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let first = hold(&life, "r", wish(20 * G), Duration::from_millis(300)).await.unwrap();
    without_holds(&life).await;
    views.send_replace(gpus(&[("GPU-a", 24 * G, 0)], vec![]));
    assert!(matches!(
        life.start(reserved("1", "r", &["sleep", "300"])).await,
        Err(StartError::Refused(Refusal::Unknown(_)))
    ));
    hold(&life, "r", wish(24 * G), LONG).await.unwrap();
    let old = proto::StartWorkerRequest {
        fencing_token: Some(first[0].fencing_token),
        ..reserved("1", "r", &["sleep", "300"])
    };
    assert!(matches!(life.start(old).await, Err(StartError::Refused(Refusal::Fenced { .. }))));
    let much =
        proto::StartWorkerRequest { limits: with_vram("1", "25G").limits, ..reserved("1", "r", &["sleep", "300"]) };
    assert!(matches!(life.start(much).await, Err(StartError::Refused(Refusal::TooLittle { .. }))));
    let named = proto::StartWorkerRequest { gpus: vec!["0".into()], ..reserved("1", "r", &["sleep", "300"]) };
    assert!(matches!(life.start(named).await, Err(StartError::Field { field: "gpus", .. })));
    assert_eq!((life.roster().borrow().members.len(), place.recorded("1")), (0, None));
    assert!(holds(&life).await[0].used_by.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_failed_start_gives_its_hold_back() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    hold(&life, "r", wish(20 * G), LONG).await.unwrap();
    assert!(matches!(life.start(reserved("1", "r", &["/nowhere/llm"])).await, Err(StartError::Failed { .. })));
    assert!(holds(&life).await[0].used_by.is_empty());
    let at_once = life.start(reserved("1", "r", &["sh", "-c", "exit 3"])).await;
    assert!(matches!(at_once, Err(StartError::EndedAtOnce { .. })));
    assert!(holds(&life).await[0].used_by.is_empty());
    let member = life.start(reserved("1", "r", &["sleep", "300"])).await.unwrap().member;
    kill(&member);
    without_holds(&life).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_what_a_killed_hive_had_given_to_a_start_is_its_holders_again() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    hold(&life, "r", wish(20 * G), LONG).await.unwrap();
    let start = crate::ledger::Start { reservation: "r", token: None, worker: &id("1"), again: false, bytes: None };
    life.inner().ledger.take(start).unwrap();
    assert_eq!(holds(&life).await[0].used_by, "llm/1");
    leave(life).await;
    let life = place.open_with(&views).await;
    assert!(holds(&life).await[0].used_by.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_after_a_reboot_a_worker_finds_its_room_again_by_promise() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    hold(&life, "r", wish(20 * G), LONG).await.unwrap();
    let always = proto::StartWorkerRequest {
        restart: proto::RestartPolicy::Always.into(),
        ..reserved("1", "r", &["sleep", "300"])
    };
    let first = life.start(always).await.unwrap().member;
    leave(life).await;
    dies_alone(&first).await;
    super::returning::reboot(&place);
    fs::remove_file(place.state.path().join("ledger")).unwrap();
    views.send_replace(gpus(&[("GPU-a", 24 * G, 0)], vec![]));
    let life = place.open_with(&views).await;
    let now = reaches(&life, "1", proto::WorkerState::Running).await;
    assert_eq!((now.spec.gpu_uuids[0].as_str(), now.spec.reservation.as_str()), ("GPU-a", ""));
    assert_eq!(holds(&life).await, []);
    assert!(hold(&life, "r2", wish(5 * G), LONG).await.is_err(), "its room is promised to it");
    hold(&life, "r2", wish(4 * G), LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_worker_is_held_once_while_it_runs() {
    let place = Place::new();
    let life = place.open().await;
    assert!(matches!(hold(&life, "r", worker_wish("1"), LONG).await, Err(Refusal::NoSuchWorker(_))));
    let member = life.start(request("1", &["sleep", "300"])).await.unwrap().member;
    let holder = hold(&life, "r", worker_wish("1"), LONG).await.unwrap();
    assert_eq!((holder[0].worker.as_str(), holder[0].tentative), ("llm/1", true));
    assert!(matches!(hold(&life, "r2", worker_wish("1"), LONG).await, Err(Refusal::Held { .. })));
    leave(life).await;
    let life = place.open().await;
    assert_eq!(holds(&life).await.len(), 1, "a restart of the hive ends nothing");
    kill(&member);
    without_holds(&life).await;
    life.start(request("1", &["sleep", "300"])).await.unwrap();
    hold(&life, "r2", worker_wish("1"), LONG).await.unwrap();
    leave(life).await;
    dies_alone(&self::holding_pid(&place)).await;
    let life = place.open().await;
    without_holds(&life).await;
}

/// The worker "1" as its record tells.
fn holding_pid(place: &Place) -> Member {
    let process = place.record("1").process.unwrap();
    let footing = Some(footing(process, None));
    let (spec, state) = (proto::WorkerSpec::default(), proto::WorkerState::Running);
    Member { slot: 1, id: id("1"), spec, state, footing }
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_of_two_hives_on_one_machine_one_grants_a_gpu() {
    let (place, other, views) = (Place::new(), Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let first = place.open_with(&views).await;
    let config = LifeConfig { gpu_lock_dir: place.state.path().to_owned(), ..other.config() };
    let second = Life::open(config, views.subscribe(), CancellationToken::new()).await.unwrap();
    first.start(with_vram("1", "1G")).await.unwrap();
    let refused = second.start(with_vram("1", "1G")).await.unwrap_err().to_string();
    assert!(refused.contains("another hive of this machine grants it, process"), "{refused}");
    assert!(hold(&second, "r", wish(G), LONG).await.is_err());
    first.stop(&id("1"), LONG, "a test").await.unwrap();
    eventually("the first gives it up", || second.inner().ledger.owns("GPU-a").is_ok()).await;
    hold(&second, "r", wish(G), LONG).await.unwrap();
    assert!(hold(&first, "r", wish(G), LONG).await.is_err());
}
