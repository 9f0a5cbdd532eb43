//! Calls through the tunnel, as any gRPC client makes them.

use crate::place::{Place, SOON};
use harness::{Scene, eventually, within};
use proto::{
    DescribeHiveRequest, DrainHiveRequest, ListTemplatesRequest, ObserveWorkerRequest, StartWorkerRequest,
    StopWorkerRequest, StreamEventsRequest, StreamLogsRequest, WorkerServiceGetWorkerRequest,
    WorkerServiceListWorkersRequest,
};
use std::time::{Duration, Instant};
use tonic::{Code, Request};
use tonic_types::StatusExt;

/// So many readers of it do not read.
const UNREAD: usize = 40;
/// Half of the calls that a tunnel carries.
const FOLLOWERS: usize = common::tunnel::STREAMS as usize / 2;
/// Lines of the log that is read while a stop goes through.
const LINES: u32 = 100_000;

fn logs(name: &str, follow: bool) -> StreamLogsRequest {
    StreamLogsRequest { name: name.to_owned(), follow, ..StreamLogsRequest::default() }
}

fn stop(name: &str, grace: u64) -> StopWorkerRequest {
    let grace = Some(common::duration(Duration::from_secs(grace)));
    StopWorkerRequest { name: name.to_owned(), grace, stopped_by: "ann".to_owned() }
}

#[tokio::test]
async fn a_worker_is_started_from_a_template_followed_and_stopped_from_elsewhere() {
    let place = Place::new().await;
    let worker = place.talker("1", 2).await.unwrap().worker.unwrap();
    let spec = worker.spec.unwrap();
    assert_eq!((spec.hive.as_str(), spec.template.as_str()), ("box", "talker"));
    let mut client = place.client().await;
    let name = "box/default/1".to_owned();
    let got = client.get_worker(WorkerServiceGetWorkerRequest { name: name.clone() }).await.unwrap().into_inner();
    assert_eq!(got.worker.unwrap().spec.unwrap().pid, spec.pid);
    let listed = client.list_workers(WorkerServiceListWorkersRequest { hive: "box".into() }).await.unwrap();
    assert_eq!(listed.into_inner().workers.len(), 1);
    let mut following = client.stream_logs(logs(&name, true)).await.unwrap().into_inner();
    let mut read = Vec::new();
    while read.iter().filter(|byte| **byte == b'\n').count() < 2 {
        read.extend(within("the log", SOON, following.message()).await.unwrap().unwrap().chunk);
    }
    let restarted = client
        .restart_worker(proto::RestartWorkerRequest { name: name.clone(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let again = restarted.worker.unwrap().spec.unwrap();
    assert!(again.pid != spec.pid && again.template == "talker", "{again:?}");
    let exit = client.stop_worker(stop(&name, 5)).await.unwrap().into_inner().exit.unwrap();
    assert_eq!(exit.stopped_by, "ann");
    within("the end of the log", SOON, async { while following.message().await.unwrap().is_some() {} }).await;
    let mut events = client
        .stream_events(StreamEventsRequest { hive: "box".into(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let mut kinds = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        kinds.push(event.event.unwrap().kind());
    }
    assert_eq!(kinds.last(), Some(&proto::LifeEventKind::Exited), "{kinds:?}");
}

#[tokio::test]
async fn an_unread_log_of_a_hundred_thousand_lines_blocks_no_stop() {
    let place = Place::new().await;
    place.talker("1", LINES).await.unwrap();
    place.talker("2", 0).await.unwrap();
    let whole = place.scene.state_dir("box").join("logs/default/1.log");
    let written =
        || async { std::fs::metadata(&whole).ok().filter(|file| file.len() > u64::from(LINES) * 20).map(drop) };
    eventually("the log is long", SOON, written).await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        // Each on a connection of its own: what this test leaves unread, it leaves unread inside the tunnel too.
        let mut client = place.client().await;
        let opening = within("the stream begins", SOON, client.stream_logs(logs("box/default/1", true)));
        let mut stream = opening.await.unwrap().into_inner();
        assert!(within("its first message", SOON, stream.message()).await.unwrap().is_some());
        unread.push((client, stream));
    }
    let mut client = place.client().await;
    let began = Instant::now();
    within("the stop", SOON, place.client().await.stop_worker(stop("box/default/2", 5))).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // And one of them is read after all, whole and in order.
    let mut stream = client.stream_logs(logs("box/default/1", false)).await.unwrap().into_inner();
    let mut text = Vec::new();
    let began = Instant::now();
    while let Some(answer) = within("the log", SOON, stream.message()).await.unwrap() {
        text.extend(answer.chunk);
    }
    let text = String::from_utf8(text).unwrap();
    println!("{} bytes of log in {:?}", text.len(), began.elapsed());
    assert_eq!(text.lines().count(), LINES as usize);
    let right = |(at, line): (usize, &str)| line.starts_with(&format!("line {} of", at + 1));
    assert!(text.lines().enumerate().all(right));
}

#[tokio::test]
async fn followers_take_half_of_a_tunnel_and_a_stop_never_waits_behind_them() {
    let place = Place::new().await;
    for instance in ["1", "2"] {
        place.talker(instance, 1).await.unwrap();
    }
    let mut client = place.client().await;
    let mut following = Vec::new();
    let refused = loop {
        let opening = within("an answer", SOON, client.stream_logs(logs("box/default/1", true)));
        match opening.await {
            Ok(stream) => following.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!((following.len(), refused.code()), (FOLLOWERS, Code::ResourceExhausted), "{refused:?}");
    assert!(refused.message().contains("box"), "{refused:?}");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    let began = Instant::now();
    within("the stop", SOON, client.stop_worker(stop("box/default/2", 5))).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let told = place.scene.metrics().await;
    assert!(told.contains("rbee_queen_bound_refused_total{bound=\"hive_streams\"} 1"), "{told}");
    // Whoever leaves makes room.
    following.pop();
    let again = || async { place.client().await.stream_logs(logs("box/default/1", true)).await.ok() };
    eventually("one more follows", SOON, again).await;
}

#[tokio::test]
async fn a_deadline_holds_on_the_way_and_a_status_keeps_its_details() {
    let place = Place::new().await;
    let mut client = place.client().await;
    let request = StartWorkerRequest { hive: "box".into(), template: "stubborn".into(), ..Default::default() };
    client.start_worker(request).await.unwrap();
    let deaf = || async {
        let mut client = place.client().await;
        let mut stream = client.stream_logs(logs("box/default/1", false)).await.ok()?.into_inner();
        let said = stream.message().await.ok()??;
        said.chunk.starts_with(b"deaf").then_some(())
    };
    eventually("it ignores the polite signal", SOON, deaf).await;
    let mut request = Request::new(stop("box/default/1", 60));
    request.set_timeout(Duration::from_millis(500));
    let began = Instant::now();
    let status = client.stop_worker(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut request = Request::new(logs("box/default/1", true));
    request.set_timeout(Duration::from_millis(700));
    let mut stream = client.stream_logs(request).await.unwrap().into_inner();
    let ended = within("the stream's deadline", SOON, async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    });
    assert_eq!(ended.await.unwrap_err().code(), Code::DeadlineExceeded);

    let status = place.talker("../x", 1).await.unwrap_err();
    let field = &status.get_details_bad_request().unwrap().field_violations[0].field;
    assert_eq!((status.code(), field.as_str()), (Code::InvalidArgument, "instance"));
    let request = StartWorkerRequest {
        hive: "box".into(),
        template: "talker".into(),
        parameters: [("lines".into(), "1; reboot".into())].into(),
        ..Default::default()
    };
    let status = client.start_worker(request).await.unwrap_err();
    let field = &status.get_details_bad_request().unwrap().field_violations[0].field;
    assert_eq!((status.code(), field.as_str()), (Code::InvalidArgument, "parameters.lines"));
    assert!(status.message().contains("from 0 to 1000000"), "{status}");
}

#[tokio::test]
async fn over_the_network_only_templates_are_started_and_nothing_is_observed() {
    let place = Place::new().await;
    let mut client = place.client().await;
    let request = StartWorkerRequest { hive: "box".into(), command: vec!["reboot".into()], ..Default::default() };
    let status = client.start_worker(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("template"), "{status}");
    let both = StartWorkerRequest { template: "talker".into(), ..request };
    let status = client.start_worker(both).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let status =
        client.observe_worker(ObserveWorkerRequest { target: "1".into(), ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    for (template, code) in [("nobody", Code::NotFound), ("broken", Code::FailedPrecondition), ("../x", Code::NotFound)]
    {
        let request = StartWorkerRequest { hive: "box".into(), template: template.into(), ..Default::default() };
        let status = client.start_worker(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    let listed = client.list_templates(ListTemplatesRequest { hive: "box".into() }).await.unwrap().into_inner();
    let told: Vec<_> = listed.templates.iter().map(|known| (known.name.as_str(), known.error.is_empty())).collect();
    assert_eq!(told, [("broken", false), ("stubborn", true), ("talker", true)]);
    for (request, code) in [("", Code::InvalidArgument), ("nobody", Code::NotFound), ("No", Code::InvalidArgument)] {
        let status = client.describe_hive(DescribeHiveRequest { hive: request.into() }).await.unwrap_err();
        assert_eq!(status.code(), code, "{request:?}: {status}");
    }
    assert_eq!(client.stop_worker(stop("default/1", 1)).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_a_directory_of_templates_remote_start_is_off() {
    let scene = Scene::new();
    let queen = scene.queen(&[]).await;
    let absent = scene.dir().join("absent");
    let hive = scene.hive(&["--template-dir", absent.to_str().unwrap()]).await;
    let place = Place { scene, queen, hive };
    place.attached().await;
    let status = place.talker("1", 1).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("is off"), "{status}");
    let remote_start = async || {
        let mut fleet = harness::fleet(&place.scene.url()).await;
        let request = proto::GetHiveRequest { id: "box".into() };
        fleet.get_hive(request).await.ok()?.into_inner().hive.map(|hive| hive.remote_start)
    };
    assert_eq!(remote_start().await, Some(false));
    std::fs::create_dir(&absent).unwrap();
    eventually("it is on as soon as there is one", SOON, || async { remote_start().await.filter(|on| *on) }).await;
}

#[tokio::test]
async fn a_draining_hive_takes_no_starts_even_after_a_restart() {
    let mut place = Place::new().await;
    place.talker("1", 1).await.unwrap();
    let drain = |drain| DrainHiveRequest { hive: "box".into(), drain, drained_by: "ann".into() };
    let answer = place.client().await.drain_hive(drain(true)).await.unwrap().into_inner();
    assert_eq!((answer.changed, answer.workers), (true, 1));
    let status = place.talker("2", 1).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("draining"), "{status}");
    place.hive.kill();
    place.hive = place.scene.hive(&["--template-dir", place.scene.dir().join("templates").to_str().unwrap()]).await;
    place.attached().await;
    assert_eq!(place.talker("2", 1).await.unwrap_err().code(), Code::FailedPrecondition);
    let shown = || async {
        let mut fleet = harness::fleet(&place.scene.url()).await;
        let hive = fleet.get_hive(proto::GetHiveRequest { id: "box".into() }).await.ok()?.into_inner().hive?;
        (hive.operational_status() == proto::OperationalStatus::Draining && hive.worker_count == 1).then_some(())
    };
    eventually("the queen knows it, and the worker goes on", SOON, shown).await;
    assert!(!place.client().await.drain_hive(drain(true)).await.unwrap().into_inner().changed);
    assert!(place.client().await.drain_hive(drain(false)).await.unwrap().into_inner().changed);
    place.talker("2", 1).await.unwrap();
    let events = place.scene.rbee(&["events"]).stdout;
    assert!(events.contains("draining") && events.contains("undrained") && events.contains("ann"), "{events}");
}

#[tokio::test]
async fn s2_the_tunnel_is_back_within_seconds_after_a_kill_of_either_end() {
    let mut place = Place::new().await;
    place.talker("1", 1).await.unwrap();
    let mut client = place.client().await;
    let mut stream = client.stream_logs(logs("box/default/1", true)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    place.queen.process.kill();
    assert!(within("the stream ends with its queen", SOON, stream.message()).await.is_err());
    place.queen = place.scene.queen(&[]).await;
    let took = place.attached().await;
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut client = place.client().await;
    let mut stream = client.stream_logs(logs("box/default/1", true)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    place.hive.kill();
    let status = within("the stream ends with its hive", SOON, stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let gone = || async {
        let answer = place.client().await.describe_hive(DescribeHiveRequest { hive: "box".into() }).await;
        answer.err().filter(|status| status.code() == Code::Unavailable && status.message().contains("not attached"))
    };
    eventually("the tunnel is gone", Duration::from_secs(5), gone).await;
    place.hive = place.scene.hive(&["--template-dir", place.scene.dir().join("templates").to_str().unwrap()]).await;
    let took = place.attached().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    let name = "box/default/1".to_owned();
    let worker = place.client().await.get_worker(WorkerServiceGetWorkerRequest { name }).await.unwrap().into_inner();
    assert_eq!(worker.worker.unwrap().spec.unwrap().template, "talker", "it is known after the restart too");
}

#[tokio::test]
async fn a_unary_call_through_the_tunnel_is_quick() {
    let place = Place::new().await;
    let mut client = place.client().await;
    let count: u32 = if std::env::var_os("LONG").is_some() { 20_000 } else { 500 };
    let request = || ListTemplatesRequest { hive: "box".into() };
    let name = || WorkerServiceListWorkersRequest { hive: "box".into() };
    client.list_templates(request()).await.unwrap();
    let began = Instant::now();
    for _ in 0..count {
        client.list_workers(name()).await.unwrap();
    }
    let each = began.elapsed() / count;
    println!("a unary call through the tunnel takes {each:?}");
    // A second of Nagle or of dialling would show; a busy machine does not.
    assert!(each < Duration::from_millis(20), "{each:?}");
}
