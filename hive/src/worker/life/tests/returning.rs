//! What a hive finds that begins: workers to go on with, to start again, or to close, after crashes and reboots.

use super::*;
use proto::LifeEventKind::{Adopted, Backoff, Exited, Restarted};
use proto::WorkerState;

fn mended(policy: proto::RestartPolicy, instance: &str, command: &[&str]) -> proto::StartWorkerRequest {
    proto::StartWorkerRequest { restart: policy.into(), ..request(instance, command) }
}

/// As if the machine had been started anew since.
pub fn reboot(place: &Place) {
    let records = Records::open(place.state.path()).unwrap();
    for (_, mut record) in records.load() {
        record.boot_id = "an earlier boot".to_owned();
        records.write(&record).unwrap();
    }
}

#[tokio::test]
async fn l2_a_worker_that_waits_goes_on_waiting_in_the_next_hive() {
    let place = Place::new();
    let first = place.open().await;
    let tries = place.state.path().join("tries");
    let script = format!("echo try >> {0}; test $(wc -l < {0}) -lt 4 && exit 3; exec sleep 300", tries.display());
    first.start(mended(proto::RestartPolicy::OnFailure, "1", &["sh", "-c", &script])).await.unwrap();
    eventually("it waits for the third time", || {
        let kept = place.recorded("1");
        kept.is_some_and(|kept| kept.past.quick_ends == 3 && kept.past.next_start_unix_nanos.is_some())
    })
    .await;
    drop(first);
    let second = place.open().await;
    let waits = member(&second, "1").unwrap();
    assert_eq!((waits.state, waits.spec.restarts), (WorkerState::Backoff, 2));
    assert_eq!(waits.spec.last_exit.as_ref().unwrap().code, Some(3));
    assert!(matches!(second.start(request("1", &["sleep", "1"])).await, Err(StartError::AlreadyExists { .. })));
    let runs_now = reaches(&second, "1", WorkerState::Running).await;
    assert_eq!((runs_now.spec.restarts, runs_now.spec.origin()), (3, proto::Origin::Started));
}

#[tokio::test]
async fn who_ended_while_no_hive_ran_is_mended_as_its_policy_says() {
    let place = Place::new();
    let first = place.open().await;
    let mut all = Vec::new();
    for (name, policy) in [
        ("never", proto::RestartPolicy::Never),
        ("on-failure", proto::RestartPolicy::OnFailure),
        ("always", proto::RestartPolicy::Always),
    ] {
        all.push(first.start(mended(policy, name, &["sleep", "300"])).await.unwrap().member);
    }
    leave(first).await;
    for member in &all {
        dies_alone(member).await;
    }
    let second = place.open().await;
    assert!(member(&second, "never").is_none());
    for again in ["on-failure", "always"] {
        let now = reaches(&second, again, WorkerState::Running).await;
        assert_eq!((now.spec.restarts, now.spec.last_exit.as_ref().unwrap().reason()), (1, proto::ExitReason::Unknown));
        assert!(runs(&now));
    }
    let told: Vec<_> =
        second.journal().after(0).into_iter().filter(|event| event.instance == "always").map(|e| e.kind()).collect();
    assert_eq!(told[1..], [Exited, Backoff, Restarted]);
}

#[tokio::test]
async fn after_a_reboot_only_who_is_always_to_run_is_started_again() {
    let place = Place::new();
    let first = place.open().await;
    let mut always = mended(proto::RestartPolicy::Always, "always", &["sh", "-c", "echo $SECRET; exec sleep 300"]);
    always.env = HashMap::from([("SECRET".to_owned(), "hf_abcdefghijkl".to_owned())]);
    let all = [
        first.start(always).await.unwrap().member,
        first.start(mended(proto::RestartPolicy::OnFailure, "on-failure", &["sleep", "300"])).await.unwrap().member,
    ];
    leave(first).await;
    for member in &all {
        dies_alone(member).await;
    }
    reboot(&place);
    let second = place.open().await;
    assert!(member(&second, "on-failure").is_none());
    let now = reaches(&second, "always", WorkerState::Running).await;
    assert_eq!((now.spec.restarts, place.record("always").boot_id.as_str()), (1, second.boot_id()));
    let told = second.journal().after(0);
    let again = told.iter().find(|event| event.kind() == Restarted).unwrap();
    assert!(again.message.contains("the machine was started anew"), "{}", again.message);
    // With what it was started with, secrets included.
    let log = || fs::read_to_string(second.log_path(&id("always"))).unwrap();
    eventually("it has its environment", || log() == "hf_abcdefghijkl\nhf_abcdefghijkl\n").await;
}

#[tokio::test]
async fn l6_a_stop_that_a_killed_hive_began_is_finished_by_the_next() {
    let place = Place::new();
    let first = place.open().await;
    let ready = place.state.path().join("ready");
    let script = format!("trap '' TERM; echo > {}; while :; do sleep 0.05; done", ready.display());
    let stubborn = first.start(mended(proto::RestartPolicy::Always, "1", &["sh", "-c", &script])).await.unwrap().member;
    eventually("the trap is set", || ready.exists()).await;
    let stopping = tokio::spawn({
        let life = first.clone();
        async move { life.stop(&id("1"), Duration::from_millis(500), "ann").await }
    });
    let asked = || place.recorded("1").is_none_or(|record| record.asked.is_some());
    eventually("it is written down", asked).await;
    leave(first).await;
    assert!(matches!(stopping.await.unwrap(), Err(StopError::Stopping(_)) | Ok(Some(_))));
    let second = place.open().await;
    eventually("it is gone", || member(&second, "1").is_none()).await;
    assert!(!runs(&stubborn));
    let cause = last_exit(&second, "1").unwrap();
    assert_eq!((cause.reason(), cause.stopped_by.as_str()), (proto::ExitReason::Stopped, "ann"));
    assert!(Records::open(place.state.path()).unwrap().load().is_empty());
}

#[tokio::test]
async fn a_new_start_that_a_killed_hive_owes_is_made_by_the_next() {
    let place = Place::new();
    let first = place.open().await;
    let before = first.start(request("1", &["sleep", "300"])).await.unwrap().member;
    leave(first).await;
    // Killed after the end of the old run and before the start of the new one.
    dies_alone(&before).await;
    let mut record = place.record("1");
    let asked = crate::worker::record::Asked { by: "ann".to_owned(), grace_millis: 1_000, again: true };
    record.asked = Some(asked);
    Records::open(place.state.path()).unwrap().write(&record).unwrap();
    let second = place.open().await;
    let now = reaches(&second, "1", WorkerState::Running).await;
    assert!(runs(&now) && now.pid() != before.pid());
    assert_eq!((now.spec.restarts, place.record("1").asked), (0, None));
}

#[tokio::test]
async fn l2_twenty_workers_are_taken_over_within_three_seconds() {
    let place = Place::new();
    let first = place.open().await;
    let mut before = Vec::new();
    for number in 1..=20 {
        before.push(first.start(request(&number.to_string(), &["sleep", "300"])).await.unwrap().member);
    }
    drop(first);
    let began = std::time::Instant::now();
    let second = place.open().await;
    let took = began.elapsed();
    println!("20 workers taken over after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let after = second.roster().borrow().members.clone();
    assert_eq!(after.len(), 20);
    for member in before {
        let now = after.iter().find(|now| now.id == member.id).unwrap();
        assert_eq!((now.footing.clone(), now.spec.start_time), (member.footing.clone(), member.spec.start_time));
    }
    assert_eq!(kinds(&second).iter().filter(|kind| **kind == Adopted).count(), 20);
}
