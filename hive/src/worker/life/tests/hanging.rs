//! Starts that hang: in a frozen cgroup, nothing of a worker ever runs.

use super::*;
use crate::worker::record::Asked;

/// A hive whose slice is frozen; `None` where there is no such thing.
async fn frozen(place: &Place) -> Option<(Life, PathBuf)> {
    let life = place.open().await;
    let freezer = place.root()?.join("cgroup.freeze");
    let there = freezer.exists();
    there.then_some((life, freezer))
}

fn thaw(freezer: &Path) {
    fs::write(freezer, "0").unwrap();
}

fn starts(life: &Life, instance: &str) -> tokio::task::JoinHandle<Result<Started, StartError>> {
    let (life, asked) = (life.clone(), request(instance, &["sleep", "300"]));
    tokio::spawn(async move { life.start(asked).await })
}

#[tokio::test]
async fn l6_a_start_that_hangs_is_shown_and_can_be_stopped() {
    let place = Place::new();
    let Some((life, freezer)) = frozen(&place).await else { return };
    fs::write(&freezer, "1").unwrap();
    let started = starts(&life, "1");
    let shown = reaches(&life, "1", proto::WorkerState::Starting).await;
    assert_eq!((shown.footing.clone(), shown.spec.command.join(" ")), (None, "sleep 300".to_owned()));
    let began = std::time::Instant::now();
    let cause = life.stop(&id("1"), LONG, "ann").await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((cause.reason(), cause.stopped_by.as_str()), (proto::ExitReason::Stopped, "ann"));
    let error = started.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("given up before it began"), "{error}");
    assert!(life.roster().borrow().members.is_empty() && !life.inner().table().knows(&id("1")));
    assert!(place.recorded("1").is_none() && !place.root().unwrap().join("llm").exists());
    thaw(&freezer);
    let slot = life.start(request("1", &["sleep", "300"])).await.unwrap().member.slot;
    assert!(slot > shown.slot);
}

#[tokio::test]
async fn a_start_that_took_long_keeps_the_slot_that_it_was_shown_under() {
    let place = Place::new();
    let Some((life, freezer)) = frozen(&place).await else { return };
    fs::write(&freezer, "1").unwrap();
    let started = starts(&life, "1");
    let shown = reaches(&life, "1", proto::WorkerState::Starting).await;
    thaw(&freezer);
    let member = started.await.unwrap().unwrap().member;
    assert_eq!((member.slot, life.roster().borrow().members.len()), (shown.slot, 1));
}

#[tokio::test]
async fn l6_a_worker_whose_next_start_hangs_can_be_stopped() {
    let place = Place::new();
    let Some((life, freezer)) = frozen(&place).await else { return };
    let asked = request("1", &["sleep", "300"]);
    let asked = proto::StartWorkerRequest { restart: proto::RestartPolicy::Always.into(), ..asked };
    let first = life.start(asked).await.unwrap().member;
    fs::write(&freezer, "1").unwrap();
    kill(&first);
    reaches(&life, "1", proto::WorkerState::Starting).await;
    let began = std::time::Instant::now();
    let cause = life.stop(&id("1"), LONG, "ann").await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(cause.reason(), proto::ExitReason::Stopped);
    assert!(life.roster().borrow().members.is_empty());
    thaw(&freezer);
}

#[tokio::test]
async fn a_stop_between_the_word_of_a_start_and_the_start_itself_gives_it_up() {
    let place = Place::new();
    let life = place.open().await;
    life.start(request("1", &["sleep", "300"])).await.unwrap();
    for (again, given_up) in [(true, false), (false, true)] {
        let asked = Asked { by: "ann".to_owned(), grace_millis: 0, again };
        assert!(stop::mark(life.inner(), &id("1"), &asked).is_some());
        life.inner().set_launching(&id("1"));
        assert_eq!(life.inner().patience(&id("1")).given_up.is_cancelled(), given_up);
    }
}

#[tokio::test]
async fn a_hive_with_a_start_that_hangs_still_ends_and_the_next_one_owes_it() {
    let place = Place::new();
    let Some((life, freezer)) = frozen(&place).await else { return };
    let asked = request("1", &["sleep", "300"]);
    let asked = proto::StartWorkerRequest { restart: proto::RestartPolicy::Always.into(), ..asked };
    let first = life.start(asked).await.unwrap().member;
    fs::write(&freezer, "1").unwrap();
    let second = starts(&life, "2");
    kill(&first);
    reaches(&life, "1", proto::WorkerState::Starting).await;
    reaches(&life, "2", proto::WorkerState::Starting).await;
    let began = std::time::Instant::now();
    leave(life).await;
    assert!(began.elapsed() < CLOSING, "{:?}", began.elapsed());
    assert!(second.await.unwrap().is_err() && place.recorded("2").is_none());
    if freezer.exists() {
        thaw(&freezer);
    }
    let next = place.open().await;
    let again = reaches(&next, "1", proto::WorkerState::Running).await;
    assert!(runs(&again));
}
