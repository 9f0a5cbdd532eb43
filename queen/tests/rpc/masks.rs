//! Watches with field masks, over the wire.

use crate::harness::{Running, Session, Watching, eventually, hive, row};
use proto::{Filter, ProcessStats, WatchRequest, WorkerSpec};
use tonic::Code;
use tonic_types::StatusExt;

fn masked(paths: &[&str]) -> WatchRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    WatchRequest { fields: Some(prost_types::FieldMask { paths }), ..WatchRequest::default() }
}

#[tokio::test]
async fn a_masked_watcher_is_told_what_it_asked_for_and_of_nothing_else() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0), row("box", 2, 1.0)]).await;
    let mut models = Watching::open(&queen, masked(&["workers.spec.model"])).await.unwrap();
    let mut numbers = Watching::open(&queen, masked(&["workers.stats.cpu_pct", "beats"])).await.unwrap();
    models.until("both workers", |mirror| mirror.workers.len() == 2).await;
    numbers.until("both workers", |mirror| mirror.workers.len() == 2).await;
    let told = models.mirror.workers["box/llm/1"].clone();
    let spec = WorkerSpec {
        hive: "box".into(),
        group: "llm".into(),
        instance: "1".into(),
        model: Some("model-1".into()),
        ..WorkerSpec::default()
    };
    assert_eq!((told.spec, told.stats, told.state), (Some(spec), None, 0));
    let told = numbers.mirror.workers["box/llm/1"].clone();
    assert_eq!(told.stats, Some(ProcessStats { cpu_pct: Some(1.0), ..ProcessStats::default() }));
    assert_eq!(told.spec.unwrap().model, None);
    assert_eq!(numbers.mirror.hives["box"], proto::Hive { id: "box".into(), ..proto::Hive::default() });

    let before = models.mirror.updates;
    for percent in 2..=20 {
        session.snapshot(vec![row("box", 1, f64::from(percent)), row("box", 2, 1.0)]).await;
    }
    let moved = |mirror: &crate::mirror::Mirror| {
        mirror.workers["box/llm/1"].stats.as_ref().is_some_and(|stats| stats.cpu_pct == Some(20.0))
    };
    numbers.until("the last number", moved).await;
    numbers.until("its beat", |mirror| mirror.beats["box"].sequence == 20).await;
    session.snapshot(vec![row("box", 2, 1.0)]).await;
    models.until("the removal", |mirror| mirror.names() == ["box/llm/2"]).await;
    assert_eq!(models.mirror.updates, before + 1, "numbers are no news to who asked for models");
    assert!(models.mirror.beats.is_empty(), "nor is a beat");
}

#[tokio::test]
async fn an_unknown_path_is_refused_and_the_nearest_one_named() {
    let queen = Running::start(|_| {}).await;
    let refusal = Watching::open(&queen, masked(&["workers.spec.modle"])).await.err().unwrap();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("\"workers.spec.model\""), "{refusal}");
    let violation = refusal.get_details_bad_request().unwrap().field_violations.remove(0);
    assert_eq!(violation.field, "fields");
}

#[tokio::test]
async fn more_classes_than_allowed_are_told_when_to_come_again() {
    let queen = Running::start(|config| config.max_watch_classes = 1).await;
    let only = |model: &str| {
        let filter = Some(Filter { model: model.into(), ..Filter::default() });
        WatchRequest { filter, ..WatchRequest::default() }
    };
    let mut first = Watching::open(&queen, only("a")).await.unwrap();
    first.until("the snapshot", |mirror| mirror.snapshots == 1).await;
    let refusal = Watching::open(&queen, only("b")).await.err().unwrap();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.get_details_retry_info().unwrap().retry_delay.is_some());
    let mut same = Watching::open(&queen, only("a")).await.unwrap();
    same.until("the snapshot", |mirror| mirror.snapshots == 1).await;
    let mut all = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    all.until("the snapshot", |mirror| mirror.snapshots == 1).await;
    // The dashboard asks for columns; it is served all the same.
    let columns = WatchRequest { columns: true, ..WatchRequest::default() };
    let mut dashboard = Watching::open(&queen, columns).await.unwrap();
    dashboard.until("the snapshot", |mirror| mirror.snapshots == 1).await;
    drop((first, same));
    eventually("the class to end with its last watcher", async || Watching::open(&queen, only("b")).await.ok()).await;
}
