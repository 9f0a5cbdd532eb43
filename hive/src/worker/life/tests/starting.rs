//! Beginnings: what starts, what is refused, and that nothing of it is left.

use super::*;

#[tokio::test]
async fn l8_a_second_start_of_a_live_name_is_refused() {
    let place = Place::new();
    let life = place.open().await;
    let first = life.start(request("1", &["sleep", "300"])).await.unwrap().member;
    let error = life.start(request("1", &["sleep", "300"])).await.unwrap_err();
    assert!(
        matches!(error, StartError::AlreadyExists { pid: Some(pid), .. } if pid == first.pid().unwrap()),
        "{error}"
    );
    let other = proto::StartWorkerRequest { take_over: true, ..request("1", &["sleep", "301"]) };
    assert!(matches!(life.start(other).await, Err(StartError::AlreadyExists { .. })));
    assert!(runs(&first));
    assert_eq!(life.roster().borrow().members, [first]);
}

#[tokio::test]
async fn l8_two_starts_at_the_same_time_make_one_worker() {
    let place = Place::new();
    let life = place.open().await;
    let starts = (0..4).map(|_| {
        let life = life.clone();
        tokio::spawn(async move { life.start(request("1", &["sleep", "300"])).await })
    });
    let mut made = 0;
    for start in starts.collect::<Vec<_>>() {
        made += u32::from(start.await.unwrap().is_ok());
    }
    assert_eq!((made, life.roster().borrow().members.len()), (1, 1));
}

#[tokio::test]
async fn l7_a_failed_start_leaves_nothing_behind() {
    let place = Place::new();
    let life = place.open().await;
    let error = life.start(request("1", &["/nowhere/llm"])).await.unwrap_err();
    let StartError::Failed { step: "exec", path, source } = &error else { panic!("{error}") };
    assert_eq!((path.as_str(), source.raw_os_error()), ("/nowhere/llm", Some(libc::ENOENT)));
    let error = life.start(request("1", &["no-such-program-anywhere"])).await.unwrap_err();
    assert!(error.to_string().starts_with("exec no-such-program-anywhere: No such file"), "{error}");
    assert!(life.roster().borrow().members.is_empty());
    assert!(Records::open(place.state.path()).unwrap().load().is_empty());
    if let Some(root) = place.root() {
        assert!(!root.join("llm").exists());
    }
    let failed = proto::LifeEventKind::StartFailed;
    assert_eq!(kinds(&life), [failed, failed]);
    // The name is free again.
    life.start(request("1", &["sleep", "300"])).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_ends_at_once_is_reported_with_its_last_words() {
    let place = Place::new();
    let life = place.open().await;
    for words in ["first", "cannot bind port 8080"] {
        let script = format!("echo {words} >&2; exit 3");
        let error = life.start(request("1", &["sh", "-c", &script])).await.unwrap_err();
        let StartError::EndedAtOnce { cause, log, .. } = &error else { panic!("{error}") };
        assert_eq!((cause.code, log.as_str()), (Some(3), words));
        assert!(error.to_string().contains("exit code 3"), "{error}");
    }
    assert_eq!(last_exit(&life, "1").unwrap().reason(), proto::ExitReason::Code);
    assert!(life.roster().borrow().members.is_empty());
    let log = life.log_path(&id("1"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "cannot bind port 8080\n", "each start begins with an empty log");
    assert_eq!(fs::read_to_string(log.with_extension("log.1")).unwrap(), "first\n");
}

#[tokio::test]
async fn the_spec_tells_what_was_asked_and_what_was_given() {
    let place = Place::new();
    let life = place.open().await;
    let asked = proto::StartWorkerRequest {
        env: HashMap::from([("SECRET".to_owned(), "hf_abcdefghijkl".to_owned())]),
        working_directory: place.state.path().display().to_string(),
        limits: Some(proto::Limits { cpu: "50%".to_owned(), memory: "256M".to_owned(), ..Default::default() }),
        endpoint: Some(proto::Endpoint { port: 8080, ..Default::default() }),
        gpus: vec!["0".to_owned(), "GPU-1".to_owned()],
        ..request(
            "",
            &["sh", "-c", "echo $CUDA_VISIBLE_DEVICES $SECRET $(pwd); exec sleep 300", "--model", "m", "--token", "t"],
        )
    };
    let first = life.start(asked.clone()).await.unwrap().member;
    let second = life.start(asked).await.unwrap().member;
    assert_eq!((first.id.instance(), second.id.instance(), first.slot, second.slot), ("1", "2", 1, 2));
    let spec = &first.spec;
    assert_eq!((spec.model.as_deref(), spec.command.last().map(String::as_str)), (Some("m"), Some("***")));
    let endpoint = proto::Endpoint { scheme: "http".to_owned(), host: "box.lan".to_owned(), port: 8080 };
    assert_eq!(spec.endpoint, Some(endpoint));
    assert_eq!(spec.gpu_uuids, ["0", "GPU-1"]);
    let placement = spec.placement.clone().unwrap();
    assert_eq!(placement.applied.len().min(2) + placement.not_applied.len(), 2, "{placement:?}");
    assert!(first.footing.as_ref().unwrap().cgroup.is_some() == (placement.level() != proto::PlacementLevel::Process));
    let said = format!("0,GPU-1 hf_abcdefghijkl {}\n", place.state.path().canonicalize().unwrap().display());
    let log = || fs::read_to_string(life.log_path(&first.id)).unwrap();
    eventually("it has said where it is", || log() == said).await;
    let record = fs::read_to_string(place.state.path().join("workers/llm/1.json")).unwrap();
    assert!(!record.contains("hf_abcdef"), "{record}");
}

#[tokio::test]
async fn bad_requests_name_their_field_and_start_nothing() {
    let place = Place::new();
    let life = place.open().await;
    let good = || request("1", &["sleep", "300"]);
    let limits = |cpu: &str, memory: &str| {
        Some(proto::Limits { cpu: cpu.to_owned(), memory: memory.to_owned(), ..Default::default() })
    };
    let endpoint = |port| Some(proto::Endpoint { port, ..Default::default() });
    let table = [
        ("command", proto::StartWorkerRequest { command: Vec::new(), ..good() }),
        ("command", proto::StartWorkerRequest { command: vec!["a\0b".to_owned()], ..good() }),
        ("limits", proto::StartWorkerRequest { limits: limits("2 cores", ""), ..good() }),
        ("limits", proto::StartWorkerRequest { limits: limits("", "-4G"), ..good() }),
        ("endpoint.port", proto::StartWorkerRequest { endpoint: endpoint(0), ..good() }),
        ("endpoint.port", proto::StartWorkerRequest { endpoint: endpoint(70_000), ..good() }),
        ("env", proto::StartWorkerRequest { env: HashMap::from([("A=B".to_owned(), String::new())]), ..good() }),
        ("gpus", proto::StartWorkerRequest { gpus: vec!["a,b".to_owned()], ..good() }),
    ];
    for (wanted, bad) in table {
        let error = life.start(bad).await.unwrap_err();
        assert!(matches!(&error, StartError::Field { field, .. } if *field == wanted), "{wanted}: {error}");
    }
    for name in ["../x", "a/b", "A", &"x".repeat(65)] {
        assert!(matches!(life.start(request(name, &["sleep", "300"])).await, Err(StartError::Name(_))), "{name}");
    }
    let required = proto::StartWorkerRequest {
        limits: limits("50%", "256M"),
        placement_policy: proto::PlacementPolicy::Required.into(),
        ..good()
    };
    match life.start(required).await {
        Ok(_) => assert_eq!(life.placement_level(), proto::PlacementLevel::Full),
        Err(error) => assert!(matches!(error, StartError::Denied { .. }), "{error}"),
    }
    if life.placement_level() != proto::PlacementLevel::Full {
        assert!(life.roster().borrow().members.is_empty());
        assert!(!life.placement_reasons().is_empty());
    }
}
