//! What workers are given: GPUs, room on them, an environment, a user.

use super::*;
use crate::gpus::{Device, GpuRound, Outcome, Process};
use std::time::Instant;
use tokio::sync::watch::Sender;

pub const G: u64 = 1 << 30;

pub fn gpus(devices: &[(&str, u64, u64)], processes: Vec<Process>) -> Arc<GpuView> {
    let device = |(uuid, total, used): &(&str, u64, u64)| Device {
        uuid: (*uuid).to_owned(),
        name: "NVIDIA H100".to_owned(),
        memory_total_bytes: Some(*total),
        memory_used_bytes: Some(*used),
        ..Device::default()
    };
    let devices = devices.iter().map(device).collect();
    let round = GpuRound { outcome: Outcome::Answered, devices, processes, ..GpuRound::default() };
    Arc::new(GpuView { round: Arc::new(round), answered: Some(Instant::now()) })
}

pub fn with_vram(instance: &str, vram: &str) -> proto::StartWorkerRequest {
    let limits = Some(proto::Limits { vram: vram.to_owned(), ..Default::default() });
    proto::StartWorkerRequest { limits, ..request(instance, &["sleep", "300"]) }
}

/// What procfs says of the environment that the worker was executed with.
pub fn environment(member: &Member) -> HashMap<String, String> {
    let all = procfs::environment(Path::new("/proc"), member.pid().unwrap());
    let texts = all.into_iter().filter_map(|variable| String::from_utf8(variable).ok());
    texts.filter_map(|text| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_starts_at_the_same_time_never_get_the_same_room() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0), ("GPU-b", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let starts = (0..6).map(|at| {
        let life = life.clone();
        tokio::spawn(async move { life.start(with_vram(&at.to_string(), "10G")).await })
    });
    let (mut given, mut refused) = (HashMap::new(), Vec::new());
    for start in starts.collect::<Vec<_>>() {
        match start.await.unwrap() {
            Ok(started) => *given.entry(started.member.spec.gpu_uuids[0].clone()).or_insert(0) += 1,
            Err(error) => refused.push(error),
        }
    }
    assert_eq!(given, HashMap::from([("GPU-a".to_owned(), 2), ("GPU-b".to_owned(), 2)]));
    assert_eq!(refused.len(), 2);
    for error in refused {
        let words = error.to_string();
        assert!(matches!(error, StartError::NoRoom { .. }), "{words}");
        assert!(words.contains("GPU 1 (NVIDIA H100): 4.0 GiB free of 24.0 GiB"), "{words}");
        assert!(words.contains("promised 20.0 GiB"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promised_room_is_kept_over_a_restart_of_the_hive_and_free_after_the_end() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let first = life.start(with_vram("1", "20G")).await.unwrap().member;
    let shown = environment(&first);
    assert_eq!((shown["CUDA_VISIBLE_DEVICES"].as_str(), shown["CUDA_DEVICE_ORDER"].as_str()), ("0", "PCI_BUS_ID"));
    assert_eq!(first.spec.gpu_uuids, ["GPU-a"]);
    leave(life).await;
    let life = place.open_with(&views).await;
    views.send_replace(gpus(&[("GPU-a", 24 * G, 0)], vec![]));
    assert!(matches!(life.start(with_vram("2", "5G")).await, Err(StartError::NoRoom { .. })));
    // What it uses is no longer due: 24 - 18 in use - 2 due.
    let pid = u32::try_from(first.pid().unwrap()).unwrap();
    let held = Process { pid, device: 0, vram_bytes: Some(18 * G), ..Process::default() };
    views.send_replace(gpus(&[("GPU-a", 24 * G, 18 * G)], vec![held]));
    assert!(matches!(life.start(with_vram("2", "5G")).await, Err(StartError::NoRoom { .. })));
    life.start(with_vram("2", "4G")).await.unwrap();
    let stopping = tokio::spawn({
        let life = life.clone();
        async move { life.stop(&id("1"), LONG, "a test").await }
    });
    eventually("it has stopped, as soon as the driver tells that its memory is free", || {
        views.send_replace(gpus(&[("GPU-a", 24 * G, 0)], vec![]));
        stopping.is_finished()
    })
    .await;
    stopping.await.unwrap().unwrap();
    life.start(with_vram("3", "20G")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_keeps_no_room() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", 24 * G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let failing = proto::StartWorkerRequest { command: vec!["/nowhere/llm".to_owned()], ..with_vram("1", "20G") };
    assert!(matches!(life.start(failing).await, Err(StartError::Failed { step: "exec", .. })));
    life.start(with_vram("2", "20G")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_are_known_by_number_and_uuid_and_others_refused() {
    let (place, views) = (Place::new(), Sender::new(gpus(&[("GPU-a", G, 0), ("GPU-b", G, 0)], vec![])));
    let life = place.open_with(&views).await;
    let with = |instance: &str, gpus: &[&str]| proto::StartWorkerRequest {
        gpus: gpus.iter().map(|name| (*name).to_owned()).collect(),
        ..request(instance, &["sleep", "300"])
    };
    let first = life.start(with("1", &["1"])).await.unwrap().member;
    assert_eq!(
        (environment(&first)["CUDA_VISIBLE_DEVICES"].as_str(), first.spec.gpu_uuids.as_slice()),
        ("1", ["GPU-b".to_owned()].as_slice())
    );
    let error = life.start(with("2", &["2"])).await.unwrap_err();
    let StartError::Field { field: "gpus", message } = &error else { panic!("{error}") };
    assert!(message.contains("GPU 0 (NVIDIA H100) is GPU-a; GPU 1 (NVIDIA H100) is GPU-b"), "{message}");
    assert_eq!(life.roster().borrow().members.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_of_the_driver_is_waited_for() {
    let (place, views) = (Place::new(), Sender::new(Arc::default()));
    let life = place.open_with(&views).await;
    let before = views.receiver_count();
    let starting = tokio::spawn({
        let life = life.clone();
        async move { life.start(with_vram("1", "1G")).await }
    });
    eventually("the start waits", || views.receiver_count() > before).await;
    views.send_replace(gpus(&[("GPU-a", 2 * G, 0)], vec![]));
    starting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cleared_environment_is_what_the_program_sees() {
    let place = Place::new();
    let life = place.open().await;
    let asked = proto::StartWorkerRequest {
        clear_env: true,
        env: HashMap::from([("A".to_owned(), "b".to_owned())]),
        ..request("1", &["sleep", "300"])
    };
    let member = life.start(asked).await.unwrap().member;
    let seen = environment(&member);
    assert_eq!((seen["A"].as_str(), seen["RBEE_WORKER"].as_str()), ("b", "box/llm/1"));
    let known = ["A", "RBEE_WORKER", "PATH", "HOME", "LANG", "TZ"];
    assert!(seen.keys().all(|key| known.contains(&key.as_str())), "{:?}", seen.keys());
    let all = life.start(request("2", &["sleep", "300"])).await.unwrap().member;
    assert!(environment(&all).contains_key("CARGO_MANIFEST_DIR"), "cargo sets it for this test");
}

#[tokio::test]
async fn a_worker_of_another_user_says_so_and_sees_that_users_home() {
    let place = Place::new();
    let life = place.open().await;
    let of = |user: &str| proto::StartWorkerRequest {
        user: user.to_owned(),
        working_directory: "/".to_owned(),
        ..request("1", &["sleep", "300"])
    };
    let error = life.start(of("no-such-user-here")).await.unwrap_err();
    assert!(matches!(&error, StartError::Field { field: "user", .. }), "{error}");
    match life.start(of("nobody")).await {
        Ok(started) => {
            let seen = environment(&started.member);
            let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
            assert_eq!((seen["USER"].as_str(), seen["LOGNAME"].as_str()), ("nobody", "nobody"));
            assert_eq!(Path::new(&seen["HOME"]), user.dir);
            assert_eq!(started.member.spec.user, "nobody");
        }
        Err(error) => {
            assert!(!nix::unistd::geteuid().is_root() && matches!(error, StartError::Unprivileged { .. }), "{error}");
        }
    }
}
