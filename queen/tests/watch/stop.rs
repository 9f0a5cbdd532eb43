//! The end of a queen that many are connected to.

use crate::harness::{Running, Session, Watching, hive, row};
use proto::WatchRequest;
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Code;

/// Connections, each with one watch or one push.
const STREAMS: u32 = 1_000;
/// Guarantee Q7.
const LIMIT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q7_shutdown_with_1000_open_streams_takes_less_than_a_second() {
    let queen = Running::start(|_| {}).await;
    let (mut pushes, mut watches) = (Vec::new(), Vec::new());
    for number in 0..STREAMS / 2 {
        let id = format!("h{number}");
        let mut session = Session::open(&queen, hive(&id)).await.unwrap();
        session.snapshot(vec![row(&id, 1, 1.0)]).await;
        pushes.push(session);
        watches.push(Watching::open(&queen, WatchRequest::default()).await.unwrap());
    }
    for watch in &mut watches {
        watch.until("a snapshot", |mirror| mirror.snapshots == 1).await;
    }
    let took = queen.stop().await;
    println!("stopped with {STREAMS} open streams in {took:?}");
    assert!(took < LIMIT, "{took:?}");
    let mut ended = JoinSet::new();
    pushes.into_iter().for_each(|push| drop(ended.spawn(async { push.ended().await.map(drop).unwrap_err() })));
    for mut watch in watches {
        ended.spawn(async move {
            loop {
                match watch.stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a watch ended without a reason"),
                    Err(status) => return status,
                }
            }
        });
    }
    let mut told = 0;
    while let Some(status) = ended.join_next().await {
        told += u32::from(status.unwrap().code() == Code::Unavailable);
    }
    assert_eq!(told, STREAMS, "each was told why");
}
