//! First processes that others of their worker outlive.

use super::*;
use proto::LifeEventKind::{Adopted, FirstEnded, Restarted, Started};
use proto::WorkerState;

const SCRIPT: &str = "sleep 300 & while :; do sleep 0.05; done";

/// A worker of two processes at least: the first one, and its child that stays.
async fn pair(life: &Life, policy: proto::RestartPolicy) -> Arc<Member> {
    let asked = proto::StartWorkerRequest { restart: policy.into(), ..request("1", &["sh", "-c", SCRIPT]) };
    let member = life.start(asked).await.unwrap().member;
    eventually("the child is there", || others(&member).len() > 1).await;
    member
}

fn others(member: &Member) -> Vec<i32> {
    procfs::session(Path::new("/proc"), member.pid().unwrap())
}

fn told(life: &Life) -> Option<proto::LifeEvent> {
    life.journal().after(0).into_iter().rfind(|event| event.kind() == FirstEnded)
}

#[tokio::test]
async fn a_failed_first_process_is_told_and_without_a_policy_the_rest_lives_on() {
    for place in [Place::new(), Place::without_cgroups()] {
        let life = place.open().await;
        let first = pair(&life, proto::RestartPolicy::Never).await;
        kill(&first);
        eventually("it is told", || told(&life).is_some()).await;
        let event = told(&life).unwrap();
        assert!(event.message.contains("signal 9 SIGKILL; others of it live on"), "{}", event.message);
        assert_eq!(event.exit.unwrap().signal, Some(9));
        let now = member(&life, "1").unwrap();
        assert_eq!((now.state, now.spec.pid, others(&first).is_empty()), (WorkerState::Running, 0, false));
        leave(life).await;
        let next = place.open().await;
        eventually("the next hive sees it", || member(&next, "1").is_some_and(|now| now.spec.pid == 0)).await;
        assert_eq!(kinds(&next), [Started, FirstEnded, Adopted], "told once");
    }
}

#[tokio::test]
async fn what_a_failed_first_process_left_is_killed_and_the_policy_goes_on() {
    for place in [Place::new(), Place::without_cgroups()] {
        let life = place.open().await;
        let first = pair(&life, proto::RestartPolicy::OnFailure).await;
        kill(&first);
        eventually("it is told", || told(&life).is_some()).await;
        assert!(told(&life).unwrap().message.contains("killed in 10 s"), "{:?}", told(&life));
        assert_eq!(member(&life, "1").unwrap().state, WorkerState::Stopping);
        assert!(!others(&first).is_empty());
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let again = || member(&life, "1").filter(|now| now.spec.restarts == 1 && now.pid().is_some());
        eventually("it is started again", || again().is_some()).await;
        assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
        tokio::time::resume();
        let cause = again().unwrap().spec.last_exit.clone().unwrap();
        assert_eq!((cause.reason(), cause.signal), (proto::ExitReason::Signal, Some(9)));
        assert!(others(&first).is_empty() && kinds(&life).contains(&Restarted));
        life.stop(&id("1"), Duration::ZERO, "test").await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_kill_that_a_hive_owes_is_made_by_the_next() {
    let place = Place::new();
    let life = place.open().await;
    let first = pair(&life, proto::RestartPolicy::Always).await;
    kill(&first);
    let known = || place.recorded("1").is_some_and(|record| record.first_exit.is_some());
    eventually("it is written down", || told(&life).is_some() && known()).await;
    leave(life).await;
    let next = place.open().await;
    reaches(&next, "1", WorkerState::Stopping).await;
    tokio::time::pause();
    let again = || member(&next, "1").filter(|now| now.spec.restarts == 1 && now.pid().is_some());
    eventually("it is started again", || again().is_some()).await;
    tokio::time::resume();
    assert_eq!(again().unwrap().spec.last_exit.as_ref().unwrap().signal, Some(9));
    assert!(others(&first).is_empty());
    assert_eq!(kinds(&next).iter().filter(|kind| **kind == FirstEnded).count(), 1);
    next.stop(&id("1"), Duration::ZERO, "test").await.unwrap().unwrap();
}

#[tokio::test]
async fn who_has_gone_into_the_background_lives_on_in_any_policy() {
    for place in [Place::new(), Place::without_cgroups()] {
        let life = place.open().await;
        let asked = request("1", &["sh", "-c", "sleep 300 & exit 0"]);
        let asked = proto::StartWorkerRequest { restart: proto::RestartPolicy::Always.into(), ..asked };
        let first = life.start(asked).await.unwrap().member;
        eventually("that is known", || member(&life, "1").is_some_and(|now| now.spec.pid == 0)).await;
        tokio::time::pause();
        // Longer than what a failure leaves may live.
        tokio::time::sleep(Duration::from_secs(11)).await;
        tokio::time::resume();
        assert_eq!((member(&life, "1").unwrap().state, others(&first).len()), (WorkerState::Running, 1));
        assert_eq!(kinds(&life), [Started]);
        leave(life).await;
        let next = place.open().await;
        eventually("the next hive sees it", || member(&next, "1").is_some_and(|now| now.spec.pid == 0)).await;
        assert_eq!(kinds(&next), [Started, Adopted]);
        assert!(next.stop(&id("1"), Duration::ZERO, "test").await.unwrap().is_some());
    }
}
