//! Processes that leave their worker's cgroup, as root can.

use super::*;

/// A worker whose child, which runs `script`, has left its cgroup; the child's pid. `None` where there are no cgroups.
async fn escaped(place: &Place, life: &Life, script: &str, then: &str) -> Option<(Arc<Member>, i32)> {
    let outside = place.root()?.parent()?.join("cgroup.procs");
    let ready = place.state.path().join("ready");
    let there = place.state.path().join("there");
    let script = format!(
        "sh -c '{script}' & echo $! > {} || exit 6; until test -e {there}; do sleep 0.01; done; echo $! > {}; {then}",
        outside.display(),
        ready.display(),
        there = there.display(),
    );
    let script = script.replace("THERE", &there.display().to_string());
    let member = life.start(request("1", &["sh", "-c", &script])).await.unwrap().member;
    let pid = || fs::read_to_string(&ready).ok().and_then(|text| text.trim().parse().ok());
    eventually("it has left", || pid().is_some()).await;
    let pid: i32 = pid().unwrap();
    let home = member.footing.as_ref().unwrap().cgroup.clone().unwrap();
    assert!(!fs::read_to_string(home.join("cgroup.procs")).unwrap().lines().any(|line| line == pid.to_string()));
    Some((member, pid))
}

fn lives(pid: i32) -> bool {
    procfs::stat(Path::new("/proc"), pid).is_ok_and(|found| !found.is_dead())
}

fn last_words(life: &Life) -> String {
    let events = life.journal().after(0);
    events.into_iter().rfind(|event| event.kind() == proto::LifeEventKind::Exited).unwrap().message
}

#[tokio::test]
#[cfg_attr(any(not(target_os = "linux"), rbee_plain), ignore = "a plain start enters no cgroup")]
async fn l6_a_stop_reaches_who_has_left_the_cgroup() {
    for (trap, grace) in [("", LONG), ("trap \"\" TERM;", Duration::from_millis(300))] {
        let place = Place::new();
        let life = place.open().await;
        let script = format!("{trap} echo > THERE; while :; do sleep 0.05; done");
        let Some((_, pid)) = escaped(&place, &life, &script, "exec sleep 300").await else { return };
        let name = id("1");
        let stop = tokio::time::timeout(DEADLINE, life.stop(&name, grace, "test"));
        let cause = stop.await.expect("it ends in time").unwrap().unwrap();
        assert_eq!((cause.reason(), cause.signal), (proto::ExitReason::Stopped, Some(15)));
        assert!(!lives(pid), "{trap}");
        assert!(!last_words(&life).contains("live on"), "{}", last_words(&life));
    }
}

#[tokio::test]
#[cfg_attr(any(not(target_os = "linux"), rbee_plain), ignore = "a plain start enters no cgroup")]
async fn l9_who_has_left_the_cgroup_and_outlives_its_worker_is_told_and_not_touched() {
    let place = Place::new();
    let life = place.open().await;
    let gate = place.state.path().join("gate");
    let then = format!("until test -e {}; do sleep 0.01; done; exit 3", gate.display());
    let Some((_, pid)) = escaped(&place, &life, "echo > THERE; exec sleep 300", &then).await else { return };
    let pidfd = sys::open(pid).unwrap();
    fs::write(&gate, "").unwrap();
    assert_eq!(ended(&life, "1").await.code, Some(3));
    assert!(last_words(&life).ends_with(&format!("left its cgroup live on: {pid}")), "{}", last_words(&life));
    assert!(lives(pid));
    sys::send(pidfd.as_fd(), Signal::SIGKILL).unwrap();
}
