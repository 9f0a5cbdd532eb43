//! `WorkerService` as a caller on this machine meets it: statuses, details, streams that end.

use super::*;
use crate::templates::Templates;
use crate::worker::{Life, LifeConfig};
use common::HiveId;
use hyper_util::rt::TokioIo;
use proto::worker_service_client::WorkerServiceClient;
use std::path::PathBuf;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic_types::StatusExt;

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);

struct Place {
    client: WorkerServiceClient<Channel>,
    life: Life,
    stopping: CancellationToken,
    state: tempfile::TempDir,
}

/// Templates are beside the state.
fn services(life: &Life, stopping: &CancellationToken) -> Services {
    let about = || proto::DescribeHiveResponse { pid: 7, ..Default::default() };
    let log = life.log_path(&WorkerId::new("a", "b").unwrap());
    let state = log.ancestors().nth(3).unwrap();
    let templates = Arc::new(Templates::new(Some(state.join("templates"))));
    Services { life: life.clone(), templates, about: Arc::new(about), stopping: stopping.clone() }
}

impl Place {
    async fn new() -> Self {
        Self::called_from(Caller::Local).await
    }

    async fn called_from(caller: Caller) -> Self {
        let state = tempfile::tempdir().unwrap();
        let stopping = CancellationToken::new();
        let config = LifeConfig {
            hive: HiveId::parse("box").unwrap(),
            advertise: "127.0.0.1".to_owned(),
            state_dir: state.path().to_owned(),
            slice: "rpc.slice".to_owned(),
            cgroup_root: Some(PathBuf::from("/nowhere")),
            proc_root: PathBuf::from("/proc"),
            gpu_lock_dir: state.path().to_owned(),
        };
        let life = Life::open(config, tokio::sync::watch::Sender::default().subscribe(), CancellationToken::new())
            .await
            .unwrap();
        let routes = services(&life, &stopping).routes(caller);
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(
            Server::builder()
                .add_routes(routes)
                .serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far)).chain(tokio_stream::pending())),
        );
        let mut near = Some(TokioIo::new(near));
        let channel = Endpoint::from_static("http://hive")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let end = near.take().ok_or_else(|| std::io::Error::other("dialled twice"));
                std::future::ready(end)
            }))
            .await
            .unwrap();
        Self { client: WorkerServiceClient::new(channel), life, stopping, state }
    }

    async fn start(&mut self, command: &[&str]) -> Result<proto::StartWorkerResponse, Status> {
        let command = command.iter().map(|text| (*text).to_owned()).collect();
        let request = proto::StartWorkerRequest { command, ..Default::default() };
        self.client.start_worker(request).await.map(Response::into_inner)
    }

    async fn stop(&mut self, name: &str) -> Result<proto::StopWorkerResponse, Status> {
        let request = proto::StopWorkerRequest { name: name.to_owned(), stopped_by: "test".to_owned(), grace: None };
        self.client.stop_worker(request).await.map(Response::into_inner)
    }
}

#[tokio::test]
async fn a_worker_is_started_listed_followed_and_stopped() {
    let mut place = Place::new().await;
    let started = place.start(&["sh", "-c", "echo hello; exec sleep 300"]).await.unwrap();
    let spec = started.worker.unwrap().spec.unwrap();
    assert_eq!((spec.hive.as_str(), spec.group.as_str(), spec.instance.as_str()), ("box", "default", "1"));
    let listed =
        place.client.list_workers(proto::WorkerServiceListWorkersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.workers[0].spec.as_ref(), Some(&spec));
    let name = "box/default/1".to_owned();
    let got = place.client.get_worker(proto::WorkerServiceGetWorkerRequest { name: name.clone() }).await.unwrap();
    assert_eq!(got.into_inner().worker.unwrap().state(), proto::WorkerState::Running);

    let request = proto::StreamLogsRequest { name: name.clone(), follow: true, tail_lines: None, after: None };
    let mut logs = place.client.stream_logs(request).await.unwrap().into_inner();
    assert_eq!(logs.message().await.unwrap().unwrap().chunk, b"hello\n".as_slice());
    assert_eq!(place.stop(&name).await.unwrap().exit.unwrap().stopped_by, "test");
    assert_eq!(place.stop(&name).await.unwrap().exit, None);
    // The worker is gone and all has been read: the log ends.
    assert!(tokio::time::timeout(DEADLINE, logs.message()).await.unwrap().unwrap().is_none());
    let request = proto::StreamLogsRequest { name, follow: false, tail_lines: Some(1), after: None };
    let mut logs = place.client.stream_logs(request).await.unwrap().into_inner();
    assert_eq!(logs.message().await.unwrap().unwrap().chunk, b"hello\n".as_slice());
    assert!(logs.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_is_gone_on_with_after_the_hive_has_stopped() {
    let mut place = Place::new().await;
    place.start(&["sh", "-c", "echo one; echo two; exec sleep 300"]).await.unwrap();
    let name = "default/1".to_owned();
    let request = proto::StreamLogsRequest { name: name.clone(), follow: true, tail_lines: None, after: None };
    let mut logs = place.client.stream_logs(request.clone()).await.unwrap().into_inner();
    let mut read = Vec::new();
    let mut after = None;
    while read.len() < 8 {
        let answer = tokio::time::timeout(DEADLINE, logs.message()).await.unwrap().unwrap().unwrap();
        read.extend(answer.chunk);
        after = answer.position;
    }
    assert_eq!(read, b"one\ntwo\n");
    assert_eq!(after, Some(proto::LogPosition { file: 1, offset: 8 }));
    // The same as a new hive would be asked.
    let half = Some(proto::LogPosition { file: 1, offset: 4 });
    let request = proto::StreamLogsRequest { after: half, follow: false, ..request };
    let mut rest = place.client.stream_logs(request).await.unwrap().into_inner();
    assert_eq!(rest.message().await.unwrap().unwrap().chunk, b"two\n".as_slice());
    // Not an end without a word, which would mean that the worker has ended.
    place.stopping.cancel();
    let status = tokio::time::timeout(DEADLINE, logs.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    place.life.stop(&WorkerId::new("default", "1").unwrap(), Duration::ZERO, "test").await.unwrap();
}

#[tokio::test]
async fn a_restart_answers_with_the_new_process_and_refuses_what_it_cannot_do() {
    let mut place = Place::new().await;
    let before = place.start(&["sleep", "300"]).await.unwrap().worker.unwrap().spec.unwrap();
    let ask =
        |name: &str| proto::RestartWorkerRequest { name: name.to_owned(), grace: None, restarted_by: "ann".to_owned() };
    let after = place.client.restart_worker(ask("box/default/1")).await.unwrap().into_inner().worker.unwrap();
    let spec = after.spec.clone().unwrap();
    assert!(spec.pid != before.pid && spec.pid != 0 && after.state() == proto::WorkerState::Running);
    assert_eq!(spec.last_exit.unwrap().stopped_by, "ann");
    let unknown = place.client.restart_worker(ask("llm/9")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    std::fs::remove_file(place.state.path().join("workers/default/1.request")).unwrap();
    let status = place.client.restart_worker(ask("default/1")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("cannot be started again"), "{}", status.message());
    assert!(place.stop("default/1").await.unwrap().exit.is_some());
}

#[tokio::test]
async fn events_are_resumed_and_end_with_the_hive() {
    let mut place = Place::new().await;
    let _ = place.start(&["/nowhere/llm"]).await.unwrap_err();
    let _ = place.start(&["/nowhere/llm"]).await.unwrap_err();
    let request = proto::StreamEventsRequest { journal_id: String::new(), after: 1, ..Default::default() };
    let mut all = place.client.stream_events(request).await.unwrap().into_inner();
    let first = all.message().await.unwrap().unwrap();
    assert_eq!(first.event.unwrap().number, 1, "another journal begins at its beginning");

    let request =
        proto::StreamEventsRequest { journal_id: first.journal_id, after: 1, follow: true, ..Default::default() };
    let mut rest = place.client.stream_events(request).await.unwrap().into_inner();
    assert_eq!(rest.message().await.unwrap().unwrap().event.unwrap().number, 2);
    let _ = place.start(&["/nowhere/llm"]).await.unwrap_err();
    let third = tokio::time::timeout(DEADLINE, rest.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(third.event.unwrap().kind(), proto::LifeEventKind::StartFailed);
    place.stopping.cancel();
    assert!(tokio::time::timeout(DEADLINE, rest.message()).await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn refusals_have_their_code_and_name_the_field() {
    let mut place = Place::new().await;
    let named = |status: &Status| status.get_details_bad_request().unwrap().field_violations[0].field.clone();
    let status = place.start(&[]).await.unwrap_err();
    assert_eq!((status.code(), named(&status).as_str()), (Code::InvalidArgument, "command"));
    let request = proto::StartWorkerRequest {
        command: vec!["sleep".to_owned(), "300".to_owned()],
        instance: "../x".to_owned(),
        ..Default::default()
    };
    let status = place.client.start_worker(request).await.unwrap_err();
    assert_eq!((status.code(), named(&status).as_str()), (Code::InvalidArgument, "instance"));
    let status = place.start(&["/nowhere/llm"]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("exec /nowhere/llm: No such file"), "{}", status.message());
    let status = place.start(&["sh", "-c", "echo no port; exit 1"]).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("exit code 1") && status.message().contains("no port"), "{}", status.message());
    for (name, code) in [("x", Code::InvalidArgument), ("llm/1", Code::NotFound), ("other/llm/1", Code::NotFound)] {
        let request = proto::WorkerServiceGetWorkerRequest { name: name.to_owned() };
        assert_eq!(place.client.get_worker(request).await.unwrap_err().code(), code, "{name}");
    }
    let request = proto::StreamLogsRequest { name: "llm/1".to_owned(), ..Default::default() };
    assert_eq!(place.client.stream_logs(request).await.unwrap_err().code(), Code::NotFound);
    assert!(place.life.roster().borrow().members.is_empty());
    assert_eq!(place.client.describe_hive(proto::DescribeHiveRequest::default()).await.unwrap().into_inner().pid, 7);
}

#[tokio::test]
async fn required_limits_that_cannot_be_had_are_permission_denied() {
    let mut place = Place::new().await;
    let request = proto::StartWorkerRequest {
        command: vec!["sleep".to_owned(), "300".to_owned()],
        limits: Some(proto::Limits { cpu: "50%".to_owned(), ..Default::default() }),
        placement_policy: proto::PlacementPolicy::Required.into(),
        ..Default::default()
    };
    let status = place.client.start_worker(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("/nowhere/rpc.slice") && status.message().contains("os error 2"));
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_keep_a_hive_from_stopping() {
    let place = Place::new().await;
    let path = place.state.path().join("hive.sock");
    let listener = crate::rpc::socket::bind(&path).await.unwrap();
    let routes = services(&place.life, &place.stopping).routes(Caller::Local);
    let serving = tokio::spawn(crate::rpc::socket::serve(routes, listener, place.stopping.clone()));
    let _silent = tokio::net::UnixStream::connect(&path).await.unwrap();
    place.stopping.cancel();
    tokio::time::timeout(DEADLINE, serving).await.unwrap().unwrap();
}
