//! Masks: what they keep, and what they refuse.

use super::*;
use crate::fleet::object;
use prost::Message;
use proto::{Freshness, Hive, HiveBeat, ProcessStats, Update, Worker, WorkerSpec};

fn mask(paths: &[&str]) -> Mask {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    Mask::compile(&paths).unwrap().unwrap()
}

fn spec() -> WorkerSpec {
    WorkerSpec {
        hive: "box".into(),
        group: "llm".into(),
        instance: "1".into(),
        pid: 77,
        model: Some("m".into()),
        command: vec!["x".repeat(300)],
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        ..WorkerSpec::default()
    }
}

fn names() -> WorkerSpec {
    WorkerSpec { hive: "box".into(), group: "llm".into(), instance: "1".into(), ..WorkerSpec::default() }
}

fn worker(stats: Option<&ProcessStats>) -> Bytes {
    object::worker(&spec().encode_to_vec(), stats, 2, Freshness::Live, "", 3)
}

fn update(part: Bytes) -> Update {
    Update::decode(part).unwrap()
}

#[test]
fn names_always_come_and_nothing_else_unasked() {
    let bare = update(mask(&["hives"]).cut(&worker(Some(&ProcessStats::default()))));
    assert_eq!(bare.workers, [Worker { spec: Some(names()), slot: 3, ..Worker::default() }]);
    let hive = Hive { id: "box".into(), hostname: "h".into(), ..Hive::default() };
    let bare = update(mask(&["workers"]).cut(&object::hive(&hive)));
    assert_eq!(bare.hives, [Hive { id: "box".into(), ..Hive::default() }]);
    assert_eq!(update(mask(&["hives"]).cut(&object::hive(&hive))).hives, [hive]);
}

#[test]
fn fields_that_are_named_come_as_they_are() {
    let stats = ProcessStats { cpu_pct: Some(0.0), rss_bytes: Some(9), ..ProcessStats::default() };
    let paths = ["workers.spec.model", "workers.spec.labels", "workers.stats.cpu_pct", "workers.state"];
    let told = update(mask(&paths).cut(&worker(Some(&stats)))).workers.remove(0);
    let spec = WorkerSpec { model: Some("m".into()), labels: spec().labels, ..names() };
    assert_eq!(told.spec, Some(spec));
    assert_eq!(told.stats, Some(ProcessStats { cpu_pct: Some(0.0), ..ProcessStats::default() }), "zero means zero");
    assert_eq!((told.state, told.freshness), (2, 0));
    assert_eq!(update(mask(&paths).cut(&worker(None))).workers[0].stats, None, "absent stays absent");
}

#[test]
fn a_path_that_ends_at_a_message_keeps_all_of_it() {
    let stats = ProcessStats { cpu_pct: Some(1.0), rss_bytes: Some(9), ..ProcessStats::default() };
    for paths in [&["workers.stats", "workers.stats.cpu_pct"][..], &["workers.stats.cpu_pct", "workers.stats"]] {
        let told = update(mask(paths).cut(&worker(Some(&stats)))).workers.remove(0);
        assert_eq!((told.spec, told.stats), (Some(names()), Some(stats.clone())));
    }
    let whole = worker(Some(&stats));
    assert_eq!(mask(&["workers"]).cut(&whole), whole);
    let long = update(mask(&["workers.spec.command"]).cut(&whole)).workers.remove(0);
    assert_eq!(long.spec.unwrap().command, spec().command, "a length of two bytes");
}

#[test]
fn fields_of_repeated_messages_are_cut_one_by_one() {
    let gpu = |uuid: &str| proto::Gpu { uuid: uuid.into(), name: "n".into(), ..proto::Gpu::default() };
    let hive = Hive { id: "box".into(), gpus: vec![gpu("a"), gpu("b")], ..Hive::default() };
    let told = update(mask(&["hives.gpus.uuid"]).cut(&object::hive(&hive))).hives.remove(0);
    let bare = |uuid: &str| proto::Gpu { uuid: uuid.into(), ..proto::Gpu::default() };
    assert_eq!(told.gpus, [bare("a"), bare("b")]);
}

#[test]
fn beats_come_to_those_who_ask() {
    let beat = HiveBeat { hive: "box".into(), sequence: 3, epoch: 2, sampled_at: None };
    assert!(!mask(&["workers", "revision", "removed_workers"]).has_beats());
    let told = update(mask(&["beats.sampled_at"]).cut(&object::beat(&beat))).beats.remove(0);
    assert_eq!(told, HiveBeat { hive: "box".into(), ..HiveBeat::default() });
    assert_eq!(update(mask(&["beats"]).cut(&object::beat(&beat))).beats, [beat]);
}

#[test]
fn removals_are_told_as_they_are() {
    let removal = object::removal("box/llm/1", true);
    assert_eq!(mask(&["hives"]).cut(&removal), removal);
}

#[test]
fn an_unknown_path_names_the_nearest_known_one() {
    for (path, near) in [
        ("workers.stats.cpu", "workers.stats.cpu_pct"),
        ("worker", "workers"),
        ("workers.spec.labels.tier", "workers.spec.labels"),
        ("workers.spec.model.name", "workers.spec.model_names"),
        ("hive.gpus", "hives.gpus"),
    ] {
        match Mask::compile(&[path.to_owned()]) {
            Err(MaskError::Unknown { nearest, .. }) => assert_eq!(nearest, near, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    assert_eq!(Mask::compile(&["x".repeat(60_000)]), Err(MaskError::Long(60_000)));
    assert_eq!(Mask::compile(&[]), Ok(None));
}

#[test]
fn numbers_are_those_that_are_told_whole() {
    let numbers = |paths: &[&str]| mask(paths).numbers().map(|numbers| (numbers.fields, numbers.gpus));
    let all = Some((Numbers::ALL.fields, true));
    assert_eq!((numbers(&["workers"]), numbers(&["workers.stats"])), (all, all));
    assert_eq!(numbers(&["workers.stats.cpu_pct", "workers.stats.readiness"]), Some((1 | 1 << 28, false)));
    assert_eq!(numbers(&["workers.stats.gpus"]), Some((0, true)));
    for none in ["workers.state", "hives", "workers.stats.gpus.uuid", "workers.stats.idle_since.seconds"] {
        assert_eq!(numbers(&[none, "workers.spec.model"]), None, "{none}");
    }
}
