//! Hives that may not begin: they touch nothing, and declare nobody dead.

use super::*;
use crate::worker::lock::LockError;

async fn refused(config: LifeConfig) -> OpenError {
    let gpus = tokio::sync::watch::Sender::default();
    Life::open(config, gpus.subscribe(), CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn l1_a_second_hive_on_one_state_directory_is_refused_and_touches_nothing() {
    let place = Place::new();
    let first = place.open().await;
    let started = first.start(request("1", &["sleep", "300"])).await.unwrap().member;
    let other = LifeConfig { slice: slice_name(), hive: HiveId::parse("other").unwrap(), ..place.config() };
    let error = refused(other.clone()).await;
    let OpenError::Lock(LockError::Owned { hive, pid, .. }) = &error else { panic!("{error}") };
    assert_eq!((hive.as_str(), *pid), ("box", i32::try_from(std::process::id()).ok()), "{error}");
    if let Some(root) = place.root() {
        assert!(!root.with_file_name(&other.slice).exists(), "it leaves a slice behind");
    }
    first.stop(&id("1"), LONG, "test").await.unwrap().unwrap();
    assert!(!runs(&started));
    let told = first.journal().last();
    leave(first).await;
    assert_eq!(place.open().await.journal().last(), told, "what was told since is on disk");
}

#[tokio::test]
async fn l2_a_hive_that_cannot_read_declares_nobody_dead() {
    let place = Place::without_cgroups();
    let first = place.open().await;
    let started = first.start(request("1", &["sleep", "300"])).await.unwrap().member;
    let told = first.journal().last();
    leave(first).await;
    // A directory in the place of a file cannot be read, and is not gone.
    let blind = tempfile::tempdir().unwrap();
    let pid = started.pid().unwrap();
    fs::create_dir_all(blind.path().join(format!("{pid}/stat"))).unwrap();
    fs::create_dir_all(blind.path().join("sys/kernel/random")).unwrap();
    fs::copy("/proc/sys/kernel/random/boot_id", blind.path().join("sys/kernel/random/boot_id")).unwrap();
    let error = refused(LifeConfig { proc_root: blind.path().to_owned(), ..place.config() }).await;
    assert!(error.to_string().contains("tell whether llm/1 still lives"), "{error}");
    assert!(place.recorded("1").is_some() && runs(&started));
    let second = place.open().await;
    assert_eq!(second.journal().after(told)[0].kind(), proto::LifeEventKind::Adopted);
    assert_eq!(member(&second, "1").unwrap().footing, started.footing);
}

#[tokio::test]
async fn l2_a_record_that_cannot_be_read_is_not_set_aside() {
    let place = Place::new();
    let file = place.state.path().join("workers/llm/1.json");
    fs::create_dir_all(&file).unwrap();
    let error = refused(place.config()).await;
    assert!(error.to_string().contains("workers/llm/1.json") && file.exists(), "{error}");
    if let Some(root) = place.config().cgroup_root {
        assert!(!root.join(&place.slice).exists());
    }
    fs::remove_dir(&file).unwrap();
    place.open().await;
}

#[tokio::test]
async fn l2_what_cannot_be_read_for_a_moment_is_read_a_moment_later() {
    let place = Place::new();
    let file = place.state.path().join("workers/llm/1.json");
    fs::create_dir_all(&file).unwrap();
    let opening = tokio::spawn({
        let config = place.config();
        async move { Life::open(config, tokio::sync::watch::Sender::default().subscribe(), CancellationToken::new()).await }
    });
    eventually("the hive is at it", || place.state.path().join("hive.lock").exists()).await;
    fs::remove_dir(&file).unwrap();
    opening.await.unwrap().unwrap();
}
