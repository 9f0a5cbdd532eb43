//! Records on disk: whole or not at all, private, and readable for later versions.

use super::*;
use std::os::unix::fs::PermissionsExt;

pub fn record(instance: &str) -> Record {
    Record {
        group: "llm".into(),
        instance: instance.into(),
        boot_id: "boot".into(),
        process: Some(Process { pid: 12, start_ticks: 34, started_unix_nanos: 56 }),
        cgroup: Some(Home { path: "/x/llm/1".into(), inode: 7 }),
        command: vec!["sleep".into()],
        command_digest: "0".into(),
        model_names: vec!["m".into()],
        model_given: true,
        endpoint: Some(("http".into(), "h".into(), 1)),
        gpus: vec!["0".into()],
        labels: BTreeMap::from([("a".into(), "b".into())]),
        limits: proto::Limits { cpu: "200%".into(), nice: Some(-5), ..Default::default() },
        level: 2,
        applied: BTreeMap::new(),
        not_applied: vec!["memory".into()],
        restart: 3,
        probe: 2,
        user: "nobody".into(),
        health_timeout_millis: Some(5),
        was_ready: true,
        first_exit: None,
        oom_told: 4,
        past: Past {
            runs: 2,
            restarts: 1,
            quick_ends: 1,
            last_exit: Some(proto::ExitCause { reason: 1, code: Some(7), ..Default::default() }),
            next_start_unix_nanos: Some(9),
        },
        asked: Some(Asked { by: "ann".into(), grace_millis: 30_000, again: true }),
    }
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let state = tempfile::tempdir().unwrap();
    let records = Records::open(state.path()).unwrap();
    records.write(&record("1")).unwrap();
    records.write(&record("2")).unwrap();
    let loaded = records.load();
    assert_eq!(loaded.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(), ["llm/1", "llm/2"]);
    assert_eq!(loaded[0].1, record("1"));
    let mode = fs::metadata(state.path().join("workers/llm/1.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (id, _) in &loaded {
        records.remove(id).unwrap();
        records.remove(id).unwrap();
    }
    assert!(records.load().is_empty());
}

#[test]
fn a_record_of_an_earlier_version_is_still_read() {
    let state = tempfile::tempdir().unwrap();
    let records = Records::open(state.path()).unwrap();
    records.write(&record("1")).unwrap();
    let path = state.path().join("workers/llm/1.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let fields = value.as_object_mut().unwrap();
    for new in
        ["restart", "probe", "user", "health_timeout_millis", "was_ready", "first_exit", "oom_told", "past", "asked"]
    {
        fields.remove(new).unwrap();
    }
    fields.insert("limits".into(), serde_json::json!(["200%", "4G"]));
    fs::write(&path, value.to_string()).unwrap();
    let (_, old) = records.load().remove(0);
    assert_eq!((old.limits.cpu.as_str(), old.limits.memory.as_str()), ("200%", "4G"));
    assert_eq!((old.past, old.asked, old.process), (Past::default(), None, record("1").process));
}

#[test]
fn what_a_worker_was_started_with_is_for_its_owner_only_and_goes_with_the_record() {
    let state = tempfile::tempdir().unwrap();
    let records = Records::open(state.path()).unwrap();
    let id = WorkerId::new("llm", "1.5").unwrap();
    let asked = proto::StartWorkerRequest {
        env: std::collections::HashMap::from([("TOKEN".to_owned(), "hf_secret".to_owned())]),
        ..Default::default()
    };
    assert_eq!(records.request(&id).unwrap(), None);
    records.write_request(&id, &asked).unwrap();
    let path = state.path().join("workers/llm/1.5.request");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(records.load().is_empty());
    assert!(!path.exists(), "a request without a record is dropped");
    records.write_request(&id, &asked).unwrap();
    records.write(&record("1.5")).unwrap();
    assert_eq!(records.load().len(), 1);
    assert_eq!(records.request(&id).unwrap(), Some(asked));
    records.remove(&id).unwrap();
    assert!(!path.exists());
}

#[test]
fn an_unreadable_record_hides_no_other() {
    let state = tempfile::tempdir().unwrap();
    let records = Records::open(state.path()).unwrap();
    records.write(&record("1")).unwrap();
    fs::write(state.path().join("workers/llm/2.json"), "{").unwrap();
    fs::write(state.path().join("workers/llm/.3.json"), "{").unwrap();
    fs::copy(state.path().join("workers/llm/1.json"), state.path().join("workers/llm/4.json")).unwrap();
    assert_eq!(records.load().len(), 1);
    assert!(state.path().join("workers/llm/2.unreadable").exists());
    assert!(!state.path().join("workers/llm/.3.json").exists());
}
