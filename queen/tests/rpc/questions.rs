//! Lists and finds over the wire: pages, refusals, what each answer carries.

use crate::harness::{Running, Session, eventually, hive, row};
use proto::fleet_service_client::FleetServiceClient;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::{
    ExplainRequest, Filter, FindCapacityRequest, FindCapacityResponse, FindIdleWorkersRequest, FindOptions,
    FindWorkersWithModelRequest, ForgetHiveRequest, GetHiveRequest, GetWorkerRequest, IdleBasis, ListHivesRequest,
    ListWorkersRequest, ListWorkersResponse, Worker, explain_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn names(workers: &[Worker]) -> Vec<String> {
    workers
        .iter()
        .filter_map(|worker| worker.spec.as_ref())
        .map(|spec| format!("{}/{}", spec.hive, spec.instance))
        .collect()
}

async fn three_workers() -> (Running, Session, FleetServiceClient<Channel>) {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot((1..=3).map(|slot| row("box", slot, 1.0)).collect()).await;
    let mut fleet = FleetServiceClient::new(queen.channel().await);
    eventually("three workers", async || (list(&mut fleet, 0, "").await.workers.len() == 3).then_some(())).await;
    (queen, session, fleet)
}

async fn list(fleet: &mut FleetServiceClient<Channel>, page_size: i32, token: &str) -> ListWorkersResponse {
    let request = ListWorkersRequest { filter: None, page_size, page_token: token.into() };
    fleet.list_workers(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn pages_follow_one_another_in_the_order_of_names() {
    let (_queen, _session, mut fleet) = three_workers().await;
    let first = list(&mut fleet, 2, "").await;
    assert_eq!(names(&first.workers), ["box/1", "box/2"]);
    let second = list(&mut fleet, 2, &first.next_page_token).await;
    assert_eq!((names(&second.workers), second.next_page_token.as_str()), (vec!["box/3".to_owned()], ""));
    assert!(second.revision.contains(':'));
    let coverage = second.coverage.unwrap();
    assert_eq!((coverage.hives_known, coverage.hives_live), (1, 1));
    assert!(coverage.queen_uptime.is_some() && second.workers[0].age.is_some());
    let hives = fleet.list_hives(ListHivesRequest::default()).await.unwrap().into_inner();
    assert_eq!((hives.hives.len(), hives.hives[0].worker_count, hives.next_page_token.as_str()), (1, 3, ""));
}

#[tokio::test]
async fn one_worker_or_hive_is_found_by_its_name() {
    let (_queen, _session, mut fleet) = three_workers().await;
    let worker = fleet.get_worker(GetWorkerRequest { name: "box/llm/2".into() }).await.unwrap().into_inner().worker;
    assert_eq!(names(worker.as_slice()), ["box/2"]);
    assert!(fleet.get_hive(GetHiveRequest { id: "box".into() }).await.is_ok());
    let code = |answer: Result<(), Status>| answer.unwrap_err().code();
    let worker = |name: &str| GetWorkerRequest { name: name.into() };
    assert_eq!(code(fleet.get_worker(worker("box/llm/9")).await.map(drop)), Code::NotFound);
    assert_eq!(code(fleet.get_worker(worker("llm/1")).await.map(drop)), Code::InvalidArgument);
    assert_eq!(code(fleet.get_hive(GetHiveRequest { id: "den".into() }).await.map(drop)), Code::NotFound);
}

#[tokio::test]
async fn a_bad_field_is_named() {
    let (queen, _session, mut fleet) = three_workers().await;
    let mut scheduler = SchedulerServiceClient::new(queen.channel().await);
    let named = |status: Status| {
        assert_eq!(status.code(), Code::InvalidArgument);
        status.get_details_bad_request().unwrap().field_violations.remove(0).field
    };
    let request = ListWorkersRequest { page_size: -1, ..ListWorkersRequest::default() };
    assert_eq!(named(fleet.list_workers(request).await.unwrap_err()), "page_size");
    let filter = Some(Filter { hive: "No Such".into(), ..Filter::default() });
    let request = ListWorkersRequest { filter, ..ListWorkersRequest::default() };
    assert_eq!(named(fleet.list_workers(request).await.unwrap_err()), "filter.hive");
    let max_age = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let options = Some(FindOptions { max_age, ..FindOptions::default() });
    let request = FindIdleWorkersRequest { options, basis: 0 };
    assert_eq!(named(scheduler.find_idle_workers(request).await.unwrap_err()), "options.max_age");
    let request = FindIdleWorkersRequest { options: None, basis: 9 };
    assert_eq!(named(scheduler.find_idle_workers(request).await.unwrap_err()), "basis");
    let request = FindWorkersWithModelRequest::default();
    assert_eq!(named(scheduler.find_workers_with_model(request).await.unwrap_err()), "model");
}

#[tokio::test]
async fn finds_answer_over_the_wire() {
    let (queen, _session, _fleet) = three_workers().await;
    let mut scheduler = SchedulerServiceClient::new(queen.channel().await);
    let request = FindIdleWorkersRequest { options: None, basis: IdleBasis::Gpu.into() };
    let idle = scheduler.find_idle_workers(request).await.unwrap().into_inner();
    assert_eq!((names(&idle.workers).len(), idle.coverage.unwrap().hives_live), (3, 1));
    let auto = scheduler.find_idle_workers(FindIdleWorkersRequest::default()).await.unwrap().into_inner();
    assert!(auto.workers.is_empty(), "nobody said that they are idle");
    let request = FindWorkersWithModelRequest { model: "model-2".into(), ..Default::default() };
    let found = scheduler.find_workers_with_model(request).await.unwrap().into_inner();
    assert_eq!(names(&found.workers), ["box/2"]);
}

#[tokio::test]
async fn capacity_and_why_not_are_answered_over_the_wire() {
    let queen = Running::start(|_| {}).await;
    let gpu = |uuid: &str, used| proto::Gpu {
        uuid: uuid.into(),
        memory_total_bytes: Some(24),
        memory_used_bytes: Some(used),
        held_bytes: 2,
        ..Default::default()
    };
    let record = proto::Hive { gpus: vec![gpu("A", 20), gpu("B", 4), gpu("C", 10)], ..hive("box") };
    let _session = Session::open(&queen, record).await.unwrap();
    let mut scheduler = SchedulerServiceClient::new(queen.channel().await);
    let ask = |page_token: &str| FindCapacityRequest {
        options: Some(FindOptions { page_size: 1, page_token: page_token.into(), ..FindOptions::default() }),
        required_vram_bytes: 10,
        headroom_bytes: 2,
        ..FindCapacityRequest::default()
    };
    let first = scheduler.find_capacity(ask("")).await.unwrap().into_inner();
    let found = |answer: &FindCapacityResponse| answer.gpus.iter().map(|gpu| gpu.free_bytes).collect::<Vec<_>>();
    assert_eq!((found(&first), first.gpus[0].hive.as_str()), (vec![10], "box"), "24 - 10 - 2 - 2");
    let second = scheduler.find_capacity(ask(&first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((found(&second), second.next_page_token.as_str()), (vec![16], ""));
    let question = Some(explain_request::Question::Capacity(ask("")));
    let request = ExplainRequest { question, ..ExplainRequest::default() };
    let explained = scheduler.explain(request).await.unwrap().into_inner();
    let told: Vec<(&str, bool)> = explained.verdicts.iter().map(|v| (v.name.as_str(), v.chosen)).collect();
    assert_eq!(told, [("box/A", false), ("box/B", true), ("box/C", true)]);
    assert!(explained.verdicts[0].objections[0].sentence.starts_with("A: 2 B free of 24 B: 20 B in use, 2 B held"));
    let bad = scheduler.find_capacity(ask("nonsense")).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert_eq!(scheduler.explain(ExplainRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_hive_that_is_heard_from_is_not_forgotten_and_a_lost_one_is() {
    let queen = Running::start(|config| config.lost = std::time::Duration::from_millis(200)).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![row("box", 1, 1.0)]).await;
    let mut fleet = FleetServiceClient::new(queen.channel().await);
    let forget = |id: &str| ForgetHiveRequest { id: id.into() };
    assert_eq!(fleet.forget_hive(forget("den")).await.unwrap_err().code(), Code::NotFound);
    let early = fleet.forget_hive(forget("box")).await;
    assert_eq!(early.unwrap_err().code(), Code::FailedPrecondition);
    let forgotten = async || fleet.forget_hive(forget("box")).await.ok();
    let answer = eventually("the hive is lost, and forgotten", forgotten).await.into_inner();
    assert_eq!(answer.workers, 1);
    let mut fleet = FleetServiceClient::new(queen.channel().await);
    assert!(list(&mut fleet, 0, "").await.workers.is_empty());
}

#[tokio::test]
async fn pages_of_workers_are_in_order_and_leave_none_out() {
    let queen = Running::start(|_| {}).await;
    let mut sessions = Vec::new();
    for (name, workers) in [("c", 3), ("a", 2), ("b", 0), ("d", 12)] {
        let mut session = Session::open(&queen, hive(name)).await.unwrap();
        session.snapshot((1..=workers).rev().map(|slot| row(name, slot, 1.0)).collect()).await;
        sessions.push(session);
    }
    let client = FleetServiceClient::new(queen.channel().await);
    let read = async |hive: &str, page_size: i32| {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let filter = Some(Filter { hive: hive.into(), ..Filter::default() });
            let request = ListWorkersRequest { filter, page_size, page_token: token };
            let answer = client.clone().list_workers(request).await.unwrap().into_inner();
            let specs = answer.workers.into_iter().filter_map(|worker| worker.spec);
            names.extend(specs.map(|spec| format!("{}/{}", spec.hive, spec.instance)));
            token = answer.next_page_token;
            if token.is_empty() {
                return names;
            }
        }
    };
    eventually("all workers", async || (read("", 0).await.len() == 17).then_some(())).await;
    // By name, not by number.
    let of_d = [1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9].map(|slot| format!("d/{slot}"));
    let all = ["a/1", "a/2", "c/1", "c/2", "c/3"].map(str::to_owned).into_iter().chain(of_d.clone());
    let all: Vec<String> = all.collect();
    for page_size in [0, 1, 2, 3, 5, 16, 17, 18] {
        assert_eq!(read("", page_size).await, all, "{page_size}");
        assert_eq!(read("d", page_size).await, of_d, "{page_size}");
    }
}
