//! One hive, two queens; and one queen that dies.

use harness::histories::{Client, History, Moment, Object, ordered, reached, unique};
use harness::{Process, Scene, eventually, fleet, within};
use proto::watch_response::Event;
use proto::{Coverage, ListWorkersRequest, SnapshotReason, WatchRequest, Worker, WorkerSpec};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// Guarantee Q1: reconnecting (at most 2 s after the last try) and two ticks of a second, and a busy machine.
const WHOLE: Duration = Duration::from_secs(5);

/// What does not move, so that list and watch can be compared.
fn still() -> WatchRequest {
    let paths = vec!["workers.spec".to_owned()];
    WatchRequest { fields: Some(prost_types::FieldMask { paths }), ..WatchRequest::default() }
}

async fn list(url: &str) -> Option<(Vec<Worker>, Coverage)> {
    let mut client = proto::fleet_service_client::FleetServiceClient::connect(url.to_owned()).await.ok()?;
    let answer = client.list_workers(ListWorkersRequest::default()).await.ok()?.into_inner();
    Some((answer.workers, answer.coverage?))
}

/// Opens a watch after what was read before, and reads until it holds `count` workers and what this queen lists.
async fn follow(url: &str, history: &mut History, count: usize) {
    let began = Instant::now();
    let mut client: Client = history.client();
    let request = WatchRequest { resume_after: client.revision.clone(), ..still() };
    let mut note = |client: &mut Client, moment: Moment| {
        client.take(&moment);
        history.note(began.elapsed(), moment);
    };
    note(&mut client, Moment::Opened(request.resume_after.clone()));
    let mut stream = fleet(url).await.watch(request).await.expect("a watch").into_inner();
    let mut heard = 0;
    while heard == 0 || !client.whole || client.objects.len() != count + 1 {
        heard += 1;
        let message = within("a message", SOON, stream.message()).await.expect("the watch goes on").expect("one");
        note(&mut client, Moment::Heard(Box::new(message)));
    }
    note(&mut client, Moment::Ended);
    ordered(history).unwrap();
    unique(history).unwrap();
    let (workers, _) = list(url).await.unwrap();
    let bare = |worker: Worker| Object::Worker(Box::new(Worker { spec: worker.spec, ..Worker::default() }));
    let hive = Object::Hive(Box::new(proto::Hive { id: "box".into(), ..proto::Hive::default() }));
    let all = workers.into_iter().map(bare).chain([hive]).map(|object| (object.name(), object));
    reached(history, &all.collect::<BTreeMap<_, _>>()).unwrap();
}

fn reasons(history: &History) -> Vec<SnapshotReason> {
    let begun = history.moments().filter_map(|(_, _, moment)| match moment {
        Moment::Heard(message) => match &message.event {
            Some(Event::SnapshotBegin(begin)) => Some(begin.reason()),
            _ => None,
        },
        _ => None,
    });
    begun.collect()
}

#[tokio::test]
async fn w3_one_hive_reports_to_two_queens_and_a_watch_may_move_between_them() {
    let scene = Scene::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other_url = format!("http://{other}");
    let _one = scene.queen(&[]).await;
    let mut command = scene.command();
    command.args(["queen", "--listen", &other.to_string()]);
    let mut two = Process::start(command, &scene.dir().join("queen-2.log"));
    let _hive = scene.hive(&["--queen", &other_url]).await;
    for name in ["1", "2"] {
        let output = scene.run(&["--group", "llm", "--name", name, "--", "sleep", "1000"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    let both = |url: String| async move { list(&url).await.filter(|(workers, _)| workers.len() == 2) };
    let (one, _) = eventually("the first queen knows both", SOON, || both(scene.url())).await;
    let (other, _) = eventually("the second one too", SOON, || both(other_url.clone())).await;
    let specs =
        |workers: Vec<Worker>| workers.into_iter().filter_map(|worker| worker.spec).collect::<Vec<WorkerSpec>>();
    assert_eq!(specs(one.0), specs(other.0));

    let mut history = History::default();
    follow(&scene.url(), &mut history, 2).await;
    follow(&other_url, &mut history, 2).await;
    two.kill();
    follow(&scene.url(), &mut history, 2).await;
    let (first, moved) = (SnapshotReason::Initial, SnapshotReason::QueenRestarted);
    assert_eq!(reasons(&history), [first, moved, moved]);
}

#[tokio::test]
async fn q1_after_a_restart_coverage_tells_what_is_missing_until_the_fleet_is_whole() {
    let scene = Scene::new();
    let mut queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let output = scene.run(&["--group", "llm", "--name", "1", "--", "sleep", "1000"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let whole = || async { list(&scene.url()).await.filter(|(workers, _)| workers.len() == 1) };
    eventually("the fleet is whole", SOON, whole).await;
    let mut history = History::default();
    follow(&scene.url(), &mut history, 1).await;

    queen.kill();
    let _again = scene.queen(&[]).await;
    let (_, coverage) = list(&scene.url()).await.expect("an answer");
    let uptime = coverage.queen_uptime.as_ref().and_then(common::from_duration).unwrap();
    assert!(uptime < Duration::from_secs(5), "an answer says how young its queen is: {uptime:?}");
    let ((_, coverage), took) = eventually("the fleet is whole again", SOON, whole).await;
    println!("whole {took:?} after the new queen listened");
    assert!(took < WHOLE, "{took:?}");
    assert_eq!((coverage.hives_known, coverage.hives_live, coverage.removal_frozen), (1, 1, false));
    follow(&scene.url(), &mut history, 1).await;
    assert_eq!(reasons(&history), [SnapshotReason::Initial, SnapshotReason::QueenRestarted]);
}
