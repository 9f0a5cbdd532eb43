//! Reservations over the wire: statuses with their details, pages, and holds as records show them.

use crate::harness::{Running, Session, eventually, hive, row};
use proto::claim::What;
use proto::fleet_service_client::FleetServiceClient;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::{
    Claim, Hold, ListReservationsRequest, ListWorkersRequest, ReleaseRequest, RenewRequest, ReserveRequest, VramClaim,
};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn hold(reservation: &str, part: u32) -> Hold {
    let worker = format!("llm/{}", part + 1);
    Hold { reservation: reservation.into(), part, worker, fencing_token: 7, ..Hold::default() }
}

/// A queen without a way to her only hive, who says that two of its three workers are held, and a third thing tentatively.
async fn held(grace: Duration) -> (Running, Session, SchedulerServiceClient<Channel>) {
    let queen = Running::start(|config| config.grace = grace).await;
    let gpu = Hold { worker: String::new(), gpu_uuid: "GPU-1".into(), tentative: true, ..hold("r3", 0) };
    let record = proto::Hive { holds: vec![hold("r2", 0), hold("r1", 1), gpu], ..hive("box") };
    let mut session = Session::open(&queen, record).await.unwrap();
    session.snapshot((1..=3).map(|slot| row("box", slot, 1.0)).collect()).await;
    let mut fleet = FleetServiceClient::new(queen.channel().await);
    eventually("three workers", async || {
        let answer = fleet.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner();
        (answer.workers.len() == 3).then_some(())
    })
    .await;
    let scheduler = SchedulerServiceClient::new(queen.channel().await);
    (queen, session, scheduler)
}

fn request(what: What) -> ReserveRequest {
    ReserveRequest { claims: vec![Claim { what: Some(what) }], ..ReserveRequest::default() }
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let (_queen, _session, mut scheduler) = held(Duration::ZERO).await;
    let mut refused = async |what: What| scheduler.reserve(request(what)).await.unwrap_err();
    let named = |name: &str| What::Worker(name.to_owned());
    let status = refused(named("llm/1")).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "claims[0].worker");
    assert_eq!(refused(named("box/llm/9")).await.code(), Code::NotFound);
    let status = refused(named("box/llm/1")).await;
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "box/llm/1 is held by r2"));
    let status = refused(What::Vram(VramClaim { bytes: 1, ..VramClaim::default() })).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some(), "{status:?}");
    let status = refused(named("box/llm/3")).await;
    assert_eq!(status.code(), Code::Unavailable, "nobody dialled: {status:?}");
    assert!(status.get_details_retry_info().is_some());
    let code = |answer: Result<(), Status>| answer.unwrap_err().code();
    let renew = |id: &str| RenewRequest { id: id.into(), ttl: None };
    assert_eq!(code(scheduler.renew(renew("r9")).await.map(drop)), Code::NotFound);
    assert_eq!(code(scheduler.renew(renew("r 9")).await.map(drop)), Code::InvalidArgument);
    assert_eq!(code(scheduler.renew(renew("r1")).await.map(drop)), Code::Unavailable);
    let release = |id: &str| ReleaseRequest { id: id.into() };
    assert_eq!(scheduler.release(release("r9")).await.unwrap().into_inner().released, 0);
    assert_eq!(code(scheduler.release(release("")).await.map(drop)), Code::InvalidArgument);
}

#[tokio::test]
async fn shortly_after_a_start_what_is_not_known_is_not_called_unknown() {
    let (_queen, _session, mut scheduler) = held(Duration::from_secs(3_600)).await;
    let code = |answer: Result<(), Status>| answer.unwrap_err().code();
    assert_eq!(code(scheduler.renew(RenewRequest { id: "r9".into(), ttl: None }).await.map(drop)), Code::Unavailable);
    assert_eq!(code(scheduler.release(ReleaseRequest { id: "r9".into() }).await.map(drop)), Code::Unavailable);
    let elsewhere = request(What::Worker("den/llm/1".into()));
    assert_eq!(code(scheduler.reserve(elsewhere).await.map(drop)), Code::Unavailable);
}

#[tokio::test]
async fn reservations_are_listed_in_pages_without_tentative_ones() {
    let (queen, _session, mut scheduler) = held(Duration::ZERO).await;
    let mut page = async |token: &str| {
        let request = ListReservationsRequest { page_size: 1, page_token: token.into() };
        scheduler.list_reservations(request).await.unwrap().into_inner()
    };
    let first = page("").await;
    assert_eq!((first.reservations[0].id.as_str(), first.reservations.len()), ("r1", 1));
    assert_eq!(first.coverage.unwrap().hives_known, 1);
    let second = page(&first.next_page_token).await;
    assert_eq!((second.reservations[0].id.as_str(), second.next_page_token.as_str()), ("r2", ""));
    let held = &second.reservations[0].holds[0];
    assert_eq!((held.hive.as_str(), held.hold.as_ref().unwrap().fencing_token), ("box", 7));
    let mut fleet = FleetServiceClient::new(queen.channel().await);
    let workers = fleet.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner().workers;
    let holders: Vec<&str> = workers.iter().map(|worker| worker.reservation.as_str()).collect();
    assert_eq!(holders, ["r2", "r1", ""]);
}
