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
