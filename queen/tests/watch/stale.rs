//! Silence: what becomes of hives that say nothing, alone and together, and of clocks that say nonsense.

use crate::harness::{PATIENCE, Running, Session, Watching, eventually, hive, row};
use crate::heart::Heart;
use proto::fleet_service_client::FleetServiceClient;
use proto::push_telemetry_request::Frame;
use proto::{Batch, Coverage, Freshness, ListWorkersRequest, WatchRequest};
use queen::Config;
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_millis(100);
/// Ten years, in seconds.
const TEN_YEARS: i64 = 315_576_000;

/// The defaults of 3 s, 10 s and 90 s, much shorter.
fn short(config: &mut Config) {
    config.stale = Duration::from_millis(600);
    config.lost = Duration::from_millis(1_500);
    config.remove = Duration::from_millis(3_000);
}

async fn coverage(queen: &Running) -> Coverage {
    let mut client = FleetServiceClient::new(queen.channel().await);
    client.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner().coverage.unwrap()
}

async fn hearts(queen: &Running, count: usize) -> Vec<Heart> {
    let mut hearts = Vec::new();
    for number in 0..count {
        hearts.push(Heart::start(queen, &format!("h{number:02}"), BEAT).await);
    }
    hearts
}

#[tokio::test]
async fn removal_is_frozen_while_a_third_of_a_large_fleet_is_silent_and_thaws_when_it_is_back() {
    let queen = Running::start(short).await;
    let hearts = hearts(&queen, 12).await;
    let mut watching = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    watching.until("all hives", |mirror| mirror.hives.len() == 12).await;
    hearts.iter().take(4).for_each(|heart| heart.talk(false));
    let silent = Instant::now();
    watching.until("LOST", |mirror| mirror.hives["h00"].freshness() == Freshness::Lost).await;
    let frozen = async || Some(coverage(&queen).await).filter(|coverage| coverage.removal_frozen);
    eventually("the freeze", frozen).await;
    // Far beyond the limit at which a single one is removed.
    let late = async || Some(()).filter(|()| silent.elapsed() > Duration::from_secs(5));
    eventually("the limit to pass", late).await;
    let coverage_now = coverage(&queen).await;
    assert_eq!((coverage_now.hives_known, coverage_now.hives_live), (12, 8));
    hearts.iter().take(4).for_each(|heart| heart.talk(true));
    let thawed = async || Some(coverage(&queen).await).filter(|c| !c.removal_frozen && c.hives_live == 12);
    eventually("the thaw", thawed).await;
    assert!(watching.mirror.removed.is_empty(), "{:?}", watching.mirror.removed);
    // From now on a single one is removed again.
    hearts[0].talk(false);
    watching.until("its removal", |mirror| !mirror.hives.contains_key("h00")).await;
    assert_eq!(watching.mirror.removed, ["h00/llm/1", "h00"]);
}

#[tokio::test]
async fn s4_one_of_nine_hives_is_removed_on_time() {
    let queen = Running::start(short).await;
    let hearts = hearts(&queen, 9).await;
    let mut watching = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    watching.until("all hives", |mirror| mirror.hives.len() == 9).await;
    hearts[3].talk(false);
    let silent = Instant::now();
    watching.until("its removal", |mirror| mirror.hives.len() == 8).await;
    let took = silent.elapsed();
    // The limit, the beat before, the second between two looks, and a machine that is busy.
    let (least, most) = (Duration::from_millis(2_900), Duration::from_millis(4_900));
    assert!(took > least && took < most, "{took:?}");
    assert_eq!(watching.mirror.removed, ["h03/llm/1", "h03"]);
}

#[tokio::test]
async fn s3_ten_years_on_the_wall_clock_change_nothing() {
    let queen = Running::start(short).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    let mut watching = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    watching.until("the worker", |mirror| mirror.workers.len() == 1).await;
    let now = common::timestamp(std::time::SystemTime::now());
    for (step, seconds) in [(2, TEN_YEARS), (3, -TEN_YEARS), (4, 0), (5, 3 * TEN_YEARS)] {
        let sampled_at = prost_types::Timestamp { seconds: now.seconds + seconds, ..now };
        session.send_at(Frame::Batch(Batch::default()), sampled_at).await;
        watching.until("the beat", |mirror| mirror.beats["box"].sequence == step).await;
        assert_eq!(watching.mirror.beats["box"].sampled_at, Some(sampled_at), "it is shown as it came");
        let mut client = FleetServiceClient::new(queen.channel().await);
        let answer = client.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner();
        let worker = &answer.workers[0];
        assert_eq!(worker.freshness(), Freshness::Live, "step {step}");
        assert!(common::from_duration(worker.age.as_ref().unwrap()).unwrap() < PATIENCE);
    }
    assert!(watching.mirror.removed.is_empty() && watching.mirror.reasons.len() == 1);
    // A clock from the future does not keep a silent hive alive.
    watching.until("its removal all the same", |mirror| mirror.hives.is_empty()).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_is_no_goodbye_and_counts_as_silence() {
    let queen = Running::start(short).await;
    let mut sessions = Vec::new();
    for number in 0..12 {
        let mut session = Session::open(&queen, hive(&format!("h{number:02}"))).await.unwrap();
        session.snapshot(vec![]).await;
        sessions.push(session);
    }
    let all = async || Some(coverage(&queen).await).filter(|coverage| coverage.hives_known == 12);
    eventually("all hives", all).await;
    // Their calls are dropped, as a process does that gives a link up: none of them said goodbye.
    sessions.into_iter().for_each(Session::cut);
    let frozen = async || Some(coverage(&queen).await).filter(|coverage| coverage.removal_frozen);
    eventually("the freeze", frozen).await;
    assert_eq!(coverage(&queen).await.hives_known, 12);
}

#[tokio::test]
async fn hives_that_say_goodbye_together_are_removed_on_time() {
    let queen = Running::start(short).await;
    for number in 0..12 {
        let mut session = Session::open(&queen, hive(&format!("h{number:02}"))).await.unwrap();
        session.snapshot(vec![]).await;
        session.goodbye().await.unwrap();
    }
    let gone = async || Some(coverage(&queen).await).filter(|coverage| coverage.hives_known == 0);
    eventually("their removal", gone).await;
}
