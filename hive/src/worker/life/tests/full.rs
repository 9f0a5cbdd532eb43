//! A full disk: what runs goes on and can be stopped, what is new is refused.

use super::*;

/// From here on the disk takes no more of this file.
fn fill(place: &Place, file: &str) {
    let path = place.state.path().join(file);
    let _ = fs::remove_file(&path);
    std::os::unix::fs::symlink("/dev/full", path).unwrap();
}

#[tokio::test]
async fn q6_on_a_full_disk_a_hive_begins_adopts_and_stops_and_refuses_starts() {
    let place = Place::new();
    let first = place.open().await;
    let started = first.start(request("1", &["sleep", "300"])).await.unwrap().member;
    leave(first).await;
    fill(&place, "journal.new");
    let second = place.open().await;
    fill(&place, "workers/llm/.2.request");
    assert_eq!(member(&second, "1").unwrap().footing, started.footing);
    let refused = second.start(request("2", &["sleep", "300"])).await.unwrap_err();
    let words = refused.to_string();
    assert!(
        words.contains("write the record of llm/2: No space left") && words.ends_with("; make room on its disk"),
        "{words}"
    );
    assert!(place.recorded("2").is_none());
    fill(&place, "workers/llm/.1.json");
    let cause = second.stop(&id("1"), LONG, "ann").await.unwrap().unwrap();
    assert_eq!((cause.reason(), runs(&started)), (proto::ExitReason::Stopped, false));
    assert!(place.recorded("1").is_none());
    // The draft that the disk did not take is gone, and with it what filled it.
    second.start(request("2", &["sleep", "300"])).await.unwrap();
}
