//! Beginnings of a whole hive.

use super::*;
use common::HiveId;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn config(state: &Path, socket: PathBuf) -> Config {
    Config {
        id: HiveId::parse("box").unwrap(),
        hostname: "box".to_owned(),
        advertise: "box.lan".to_owned(),
        queens: Vec::new(),
        state_dir: state.to_owned(),
        socket,
        slice: "rbee.slice".to_owned(),
        cgroup_root: Some(state.join("cgroup")),
        proc_root: "/proc".into(),
        sys_root: "/sys".into(),
        period: Duration::from_secs(1),
        nvml_library: None,
        nvidia_smi: "nvidia-smi".into(),
        program: "rbee".into(),
        labels: Default::default(),
        observe: Default::default(),
        template_dir: None,
        gpu_lock_dir: state.join("gpus"),
        access: Default::default(),
    }
}

#[tokio::test]
async fn l1_a_hive_whose_socket_is_taken_touches_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("cgroup")).unwrap();
    let taken = state.path().join("taken.sock");
    let _other = socket::bind(&taken).await.unwrap();
    let refused = Hive::open(config(state.path(), taken), CancellationToken::new()).await;
    assert!(matches!(refused.err(), Some(HiveError::Socket(SocketError::InUse(_)))));
    for untouched in ["journal", "journal.id", "workers", "cgroup/rbee.slice"] {
        assert!(!state.path().join(untouched).exists(), "{untouched}");
    }
}

#[tokio::test]
async fn l1_a_hive_that_is_refused_leaves_no_socket_behind() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("cgroup")).unwrap();
    let free = state.path().join("free.sock");
    // A journal that cannot be read.
    fs::create_dir(state.path().join("journal")).unwrap();
    let refused = Hive::open(config(state.path(), free.clone()), CancellationToken::new()).await;
    assert!(matches!(refused.err(), Some(HiveError::Open(OpenError::State { .. }))));
    assert!(!free.exists() && !state.path().join("cgroup/rbee.slice").exists());
    fs::remove_dir(state.path().join("journal")).unwrap();
    assert!(Hive::open(config(state.path(), free), CancellationToken::new()).await.is_ok());
}

#[tokio::test]
async fn g3_what_was_granted_before_is_in_the_first_record() {
    let state = tempfile::tempdir().unwrap();
    let place = || config(state.path(), state.path().join("hive.sock"));
    let stopping = CancellationToken::new();
    let first = Hive::open(place(), stopping.clone()).await.unwrap();
    let command = ["sleep", "600"].map(str::to_owned).to_vec();
    let start = proto::StartWorkerRequest { group: "llm".into(), instance: "1".into(), command, ..Default::default() };
    first.life().start(start).await.unwrap();
    let wish = proto::HoldWish { what: Some(proto::hold_wish::What::Worker("llm/1".into())) };
    let ttl = Some(common::duration(Duration::from_secs(60)));
    let request = proto::HoldRequest { reservation: "r1".into(), wishes: vec![wish], ttl, ..Default::default() };
    let held = first.life().hold(request).await.unwrap();
    stopping.cancel();
    first.life().closed().await;
    drop(first);

    let again = Hive::open(place(), CancellationToken::new()).await.unwrap();
    let about = About::new(&place(), again.life(), Arc::new(Templates::new(None)));
    let record = about.subscribe().borrow().clone();
    let name = common::WorkerId::new("llm", "1").unwrap();
    again.life().stop(&name, Duration::ZERO, "this test").await.unwrap();
    assert_eq!(record.holds, held);
    assert_eq!(record.last_fencing_token, held[0].fencing_token);
}
