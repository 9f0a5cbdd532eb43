//! Several queens, one after the other and side by side: a watch moves, and is told why it starts over.

use crate::harness::{Running, Session, eventually, hive, row};
use crate::histories::{Client, Object, bookmarks, ordered, reached, unique};
use crate::recorded::Recorded;
use proto::fleet_service_client::FleetServiceClient;
use proto::watch_response::Event;
use proto::{ListHivesRequest, ListWorkersRequest, SnapshotReason, WatchRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a queen lists, which is asked another way than the watch goes.
async fn listed(queen: &Running) -> BTreeMap<String, Object> {
    let mut client = FleetServiceClient::new(queen.channel().await);
    let workers = client.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner().workers;
    let hives = client.list_hives(ListHivesRequest::default()).await.unwrap().into_inner().hives;
    // What is derived where it is shown is no part of what is watched.
    let workers = workers.into_iter().map(|mut worker| {
        (worker.age, worker.slot) = (None, 0);
        if let Some(stats) = &mut worker.stats {
            stats.uptime = None;
        }
        Object::Worker(Box::new(worker))
    });
    let hives = hives.into_iter().map(|mut hive| {
        hive.age = None;
        Object::Hive(Box::new(hive))
    });
    workers.chain(hives).map(|object| (object.name(), object)).collect()
}

fn reasons(watch: &Recorded) -> Vec<SnapshotReason> {
    let reason = |moment: &crate::histories::Moment| match moment {
        crate::histories::Moment::Heard(message) => match &message.event {
            Some(Event::SnapshotBegin(begin)) => Some(begin.reason()),
            _ => None,
        },
        _ => None,
    };
    watch.history.moments().filter_map(|(_, _, moment)| reason(moment)).collect()
}

/// Reads until the client holds what this queen lists.
async fn settle(watch: &mut Recorded, queen: &Running, workers: usize) {
    let all =
        eventually("all workers", async || Some(listed(queen).await).filter(|all| all.len() == workers + 1)).await;
    watch.until("what the queen lists", |client: &Client| client.whole && client.objects == all).await;
    ordered(&watch.history).unwrap();
    unique(&watch.history).unwrap();
    reached(&watch.history, &all).unwrap();
}

#[tokio::test]
async fn w3_a_watch_that_moves_to_another_queen_gets_a_snapshot_with_its_reason() {
    let (one, two) = (Running::start(|_| {}).await, Running::start(|_| {}).await);
    // One hive streams to both; the second queen has heard of one more worker.
    let mut to_one = Session::open(&one, hive("box")).await.unwrap();
    let mut to_two = Session::open(&two, hive("box")).await.unwrap();
    to_one.snapshot(vec![row("box", 1, 1.0), row("box", 2, 1.0)]).await;
    to_two.snapshot(vec![row("box", 2, 1.0), row("box", 3, 1.0), row("box", 4, 1.0)]).await;
    let mut watch = Recorded::new(WatchRequest::default());
    watch.open_at(&one).await;
    settle(&mut watch, &one, 2).await;
    watch.open_at(&two).await;
    settle(&mut watch, &two, 3).await;
    watch.open_at(&one).await;
    settle(&mut watch, &one, 2).await;
    let (first, moved) = (SnapshotReason::Initial, SnapshotReason::QueenRestarted);
    assert_eq!(reasons(&watch), [first, moved, moved]);
}

#[tokio::test]
async fn q1_a_restarted_queen_says_so_to_those_who_come_back() {
    let fast = |config: &mut queen::Config| config.bookmark = Duration::from_millis(100);
    let queen = Running::start(fast).await;
    let address = queen.address;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0), row("box", 2, 1.0)]).await;
    let mut watch = Recorded::new(WatchRequest::default());
    watch.open_at(&queen).await;
    settle(&mut watch, &queen, 2).await;
    queen.stop().await;
    while watch.read().await.is_some() {}
    let again = Running::start(|config| {
        fast(config);
        config.listen = address;
    })
    .await;
    watch.open_at(&again).await;
    let mut session = Session::open(&again, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 2, 7.0)]).await;
    settle(&mut watch, &again, 1).await;
    assert_eq!(reasons(&watch), [SnapshotReason::Initial, SnapshotReason::QueenRestarted]);
    watch.read_for(Duration::from_millis(500)).await;
    bookmarks(&watch.history, Duration::from_secs(2)).unwrap();
}
