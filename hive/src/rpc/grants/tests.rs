//! `GrantService` as a queen meets it: statuses and answers.

use super::*;
use crate::worker::LifeConfig;
use common::HiveId;
use proto::hold_wish::What;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic_types::StatusExt;

struct Place {
    grants: Grants,
    draining: Arc<AtomicBool>,
    _state: tempfile::TempDir,
}

async fn place() -> Place {
    let state = tempfile::tempdir().unwrap();
    let config = LifeConfig {
        hive: HiveId::parse("box").unwrap(),
        advertise: "127.0.0.1".to_owned(),
        state_dir: state.path().to_owned(),
        slice: "grants.slice".to_owned(),
        cgroup_root: Some(PathBuf::from("/nowhere")),
        proc_root: PathBuf::from("/proc"),
        gpu_lock_dir: state.path().to_owned(),
    };
    let gpus = tokio::sync::watch::Sender::new(Arc::new(crate::gpus::GpuView {
        round: Arc::new(crate::gpus::GpuRound { outcome: crate::gpus::Outcome::NoGpu, ..Default::default() }),
        answered: None,
    }));
    let life = Life::open(config, gpus.subscribe(), CancellationToken::new()).await.unwrap();
    let draining = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&draining);
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    let grants = Grants { life, draining: Box::new(move || told.load(Ordering::Relaxed)), calls };
    Place { grants, draining, _state: state }
}

fn request(reservation: &str, what: What) -> Request<proto::HoldRequest> {
    Request::new(proto::HoldRequest {
        reservation: reservation.to_owned(),
        wishes: vec![proto::HoldWish { what: Some(what) }],
        ttl: Some(common::duration(Duration::from_secs(60))),
        ..Default::default()
    })
}

fn llm(instance: &str) -> What {
    What::Worker(format!("llm/{instance}"))
}

impl Place {
    async fn code(&self, request: Request<proto::HoldRequest>) -> Code {
        self.grants.hold(request).await.unwrap_err().code()
    }
}

#[tokio::test]
async fn a_worker_is_held_renewed_listed_and_given_back() {
    let place = place().await;
    let command = vec!["sleep".to_owned(), "300".to_owned()];
    let start = proto::StartWorkerRequest { group: "llm".into(), instance: "1".into(), command, ..Default::default() };
    place.grants.life.start(start).await.unwrap();
    let held = place.grants.hold(request("r", llm("1"))).await.unwrap().into_inner().holds;
    assert!(held[0].tentative && held[0].fencing_token == 1 && held[0].expire_time.is_some());
    assert_eq!(place.code(request("r2", llm("1"))).await, Code::FailedPrecondition);
    let renew = |reservation: &str| {
        let ttl = Some(common::duration(Duration::from_secs(600)));
        Request::new(proto::RenewHoldRequest { reservation: reservation.to_owned(), ttl, confirm: true })
    };
    assert!(!place.grants.renew_hold(renew("r")).await.unwrap().into_inner().holds[0].tentative);
    assert_eq!(place.grants.renew_hold(renew("r2")).await.unwrap_err().code(), Code::NotFound);
    let list = place.grants.list_holds(Request::new(proto::ListHoldsRequest {})).await.unwrap().into_inner();
    assert_eq!((list.holds.len(), list.holds[0].worker.as_str()), (1, "llm/1"));
    for released in [1, 0] {
        let release = Request::new(proto::ReleaseHoldRequest { reservation: "r".to_owned(), aborting: false });
        assert_eq!(place.grants.release_hold(release).await.unwrap().into_inner().released, released);
    }
    let id = common::WorkerId::new("llm", "1").unwrap();
    place.grants.life.stop(&id, Duration::ZERO, "a test").await.unwrap();
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let place = place().await;
    let vram = |bytes| What::Vram(proto::VramWish { bytes, ..Default::default() });
    assert_eq!(place.code(request("r", llm("1"))).await, Code::NotFound);
    assert_eq!(place.code(request("r", vram(1))).await, Code::ResourceExhausted);
    let wrong = place.grants.hold(request("r", vram(0))).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert_eq!(wrong.get_details_bad_request().unwrap().field_violations[0].field, "vram");
    assert_eq!(place.code(request("", vram(1))).await, Code::InvalidArgument);
    place.draining.store(true, Ordering::Relaxed);
    let refused = place.grants.hold(request("r", llm("1"))).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("draining"), "{refused}");
    let turns = place.grants.calls.try_acquire_many(64).unwrap();
    let full = place.grants.list_holds(Request::new(proto::ListHoldsRequest {})).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    drop(turns);
    let full = Refusal::Disk { path: "/s/ledger".into(), source: io::Error::from_raw_os_error(libc::ENOSPC) };
    let told = status(&full);
    assert!(told.code() == Code::ResourceExhausted && told.message().contains("No space left"), "{told}");
}
