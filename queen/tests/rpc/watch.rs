//! Watch, from the snapshot to the end.

use crate::harness::{Running, Session, Watching, eventually, hive, row};
use proto::fleet_service_client::FleetServiceClient;
use proto::{Filter, Freshness, SnapshotReason, WatchRequest};
use std::time::Duration;
use tonic::Code;

fn everything() -> WatchRequest {
    WatchRequest::default()
}

#[tokio::test]
async fn stream_sends_queen_heartbeat() {
    let queen = Running::start(|config| config.bookmark = Duration::from_millis(50)).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0), row("box", 2, 2.0)]).await;
    let mut watching = Watching::open(&queen, everything()).await.unwrap();
    let counted = |mirror: &crate::mirror::Mirror| mirror.bookmark.as_ref().is_some_and(|b| b.workers_online == 2);
    watching.until("a bookmark that counts both workers", counted).await;
    let bookmark = watching.mirror.bookmark.take().unwrap();
    assert_eq!((bookmark.workers_available, bookmark.hives_online, bookmark.hives_available), (0, 1, 1));
    assert_eq!(bookmark.worker_ids, ["box/llm/1", "box/llm/2"]);
    assert_eq!((bookmark.hive_ids, bookmark.ids_truncated), (vec!["box".to_owned()], false));
    assert!(bookmark.time.is_some() && !bookmark.revision.is_empty());
}

#[tokio::test]
async fn w4_bookmarks_keep_coming_although_nothing_changes() {
    let queen = Running::start(|config| config.bookmark = Duration::from_millis(20)).await;
    let mut watching = Watching::open(&queen, everything()).await.unwrap();
    watching.until("five bookmarks", |mirror| mirror.bookmarks >= 5).await;
    assert_eq!((watching.mirror.snapshots, watching.mirror.updates), (1, 0));
}

#[tokio::test]
async fn stream_forwards_hive_telemetry() {
    let queen = Running::start(|_| {}).await;
    for min_interval in [None, Some(common::duration(Duration::from_millis(50)))] {
        let id = if min_interval.is_some() { "den" } else { "box" };
        let mut watching = Watching::open(&queen, WatchRequest { min_interval, ..everything() }).await.unwrap();
        watching.until("the snapshot", |mirror| mirror.snapshots == 1).await;
        let mut session = Session::open(&queen, hive(id)).await.unwrap();
        session.snapshot(vec![row(id, 1, 12.5)]).await;
        let name = format!("{id}/llm/1");
        watching.until("the worker", |mirror| mirror.workers.contains_key(&name)).await;
        watching.until("a beat", |mirror| mirror.beats.contains_key(id)).await;
        let worker = &watching.mirror.workers[&name];
        assert_eq!(worker.stats.as_ref().unwrap().cpu_pct, Some(12.5));
        assert_eq!((worker.freshness(), worker.age), (Freshness::Live, None));
        session.snapshot(vec![row(id, 1, 99.0)]).await;
        let moved =
            |mirror: &crate::mirror::Mirror| mirror.workers[&name].stats.as_ref().unwrap().cpu_pct == Some(99.0);
        watching.until("the new number", moved).await;
        session.snapshot(vec![]).await;
        watching.until("the removal", |mirror| !mirror.workers.contains_key(&name)).await;
        session.goodbye().await.unwrap();
    }
}

#[tokio::test]
async fn stream_handles_broadcast_lag() {
    const WORKERS: u32 = 300;
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot((1..=WORKERS).map(|slot| row("box", slot, 0.0)).collect()).await;
    // A reader with a small window that does not read while everything changes hundreds of times.
    let channel = queen.endpoint().initial_stream_window_size(1_024).connect().await.unwrap();
    let stream = FleetServiceClient::new(channel).watch(everything()).await.unwrap().into_inner();
    let mut slow = Watching { mirror: Default::default(), stream };
    let mut fast = Watching::open(&queen, everything()).await.unwrap();
    for round in 1..=200 {
        let gone = round / 2;
        session.snapshot((1 + gone..=WORKERS).map(|slot| row("box", slot, f64::from(round))).collect()).await;
    }
    let settled = |mirror: &crate::mirror::Mirror| {
        let last = |worker: &proto::Worker| worker.stats.as_ref().unwrap().cpu_pct == Some(200.0);
        mirror.workers.len() == 200 && mirror.workers.values().all(last)
    };
    fast.until("the last state, read at once", settled).await;
    slow.until("the last state, read late", settled).await;
    assert_eq!(slow.mirror.workers, fast.mirror.workers);
    assert!(slow.mirror.updates < 100, "{} updates for 200 rounds of a watcher that did not read", slow.mirror.updates);
}

#[tokio::test]
async fn stream_handles_client_disconnect() {
    let queen = Running::start(|config| config.max_watchers = 1).await;
    let mut first = Watching::open(&queen, everything()).await.unwrap();
    first.until("the snapshot", |mirror| mirror.snapshots == 1).await;
    let refused = Watching::open(&queen, everything()).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    let mut second = eventually("its place to be free", async || Watching::open(&queen, everything()).await.ok()).await;
    second.until("the snapshot", |mirror| mirror.snapshots == 1).await;
}

#[tokio::test]
async fn w3_a_resume_of_another_queen_gets_a_snapshot_with_the_reason() {
    let queen = Running::start(|_| {}).await;
    let request = WatchRequest { resume_after: "0123456789abcdef:7".into(), ..everything() };
    let mut watching = Watching::open(&queen, request).await.unwrap();
    watching.until("the snapshot", |mirror| mirror.snapshots == 1).await;
    assert_eq!(watching.mirror.reasons, [i32::from(SnapshotReason::QueenRestarted)]);
    let bad = WatchRequest { resume_after: "nonsense".into(), ..everything() };
    assert_eq!(Watching::open(&queen, bad).await.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn w3_a_resume_goes_on_where_the_stream_broke() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0), row("box", 2, 1.0)]).await;
    let mut first = Watching::open(&queen, everything()).await.unwrap();
    first.until("both workers", |mirror| mirror.workers.len() == 2).await;
    let mirror = std::mem::take(&mut first.mirror);
    drop(first);
    session.snapshot(vec![row("box", 2, 5.0), row("box", 3, 1.0)]).await;
    let request = WatchRequest { resume_after: mirror.revision.clone(), ..everything() };
    let mut second = Watching::open(&queen, request).await.unwrap();
    second.mirror = mirror;
    second.until("what happened meanwhile", |mirror| mirror.names() == ["box/llm/2", "box/llm/3"]).await;
    assert_eq!(second.mirror.reasons, [i32::from(SnapshotReason::Initial)], "only the first one's");
}

#[tokio::test]
async fn w7_a_filtered_watcher_sees_a_worker_leave_its_filter() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0), row("box", 2, 1.0)]).await;
    let filter = Some(Filter { model: "model-1".into(), ..Filter::default() });
    let mut watching = Watching::open(&queen, WatchRequest { filter, ..everything() }).await.unwrap();
    watching.until("the one worker", |mirror| mirror.names() == ["box/llm/1"]).await;
    let mut other = row("box", 1, 1.0);
    other.spec.as_mut().unwrap().model = Some("another".into());
    session.snapshot(vec![other, row("box", 2, 9.0)]).await;
    watching.until("its removal", |mirror| mirror.removed == ["box/llm/1"]).await;
    assert!(watching.mirror.names().is_empty());
}

#[tokio::test]
async fn a_broken_telemetry_stream_shows_in_watch_at_once() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    let mut watching = Watching::open(&queen, everything()).await.unwrap();
    watching.until("the worker", |mirror| mirror.workers.len() == 1).await;
    session.cut();
    watching.until("STALE", |mirror| mirror.workers["box/llm/1"].freshness() == Freshness::Stale).await;
    assert_eq!(watching.mirror.hives["box"].freshness(), Freshness::Stale);
}

#[tokio::test]
async fn a_silent_hive_goes_stale_lost_and_away_by_itself() {
    let queen = Running::start(|config| {
        config.stale = Duration::from_millis(200);
        config.lost = Duration::from_millis(1_200);
        config.remove = Duration::from_millis(2_200);
    })
    .await;
    let mut watching = Watching::open(&queen, everything()).await.unwrap();
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    for freshness in [Freshness::Live, Freshness::Stale, Freshness::Lost] {
        let there = |m: &crate::mirror::Mirror| m.workers.get("box/llm/1").is_some_and(|w| w.freshness() == freshness);
        watching.until(freshness.as_str_name(), there).await;
    }
    watching.until("its removal", |mirror| mirror.workers.is_empty() && mirror.hives.is_empty()).await;
}
