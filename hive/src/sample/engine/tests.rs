//! The asking as a whole, against servers of the test's own.

use super::testing::{Answers, Server, reply};
use super::*;
use crate::roster::Member;
use crate::sample::testing::{member, roster};
use proto::{EngineSampleState as State, Readiness};

const WITHIN: Duration = Duration::from_secs(10);
const METRICS: &str = include_str!("../../../../tests/engines/recorded/llama-server-metrics.txt");
const PROPS: &str = include_str!("../../../../tests/engines/recorded/llama-server-props.json");

/// A worker of this command line, whose port was given.
fn worker(slot: Slot, command: &str, port: u16) -> Member {
    let mut member = member(slot, "llm", &slot.to_string());
    member.spec.command = command.split(' ').map(str::to_owned).collect();
    member.spec.endpoint =
        Some(proto::Endpoint { scheme: "http".into(), host: "box.lan".into(), port: u32::from(port) });
    member
}

fn llama(metrics: Vec<u8>) -> Answers {
    Answers::of([("/health", reply(200, "{}")), ("/props", reply(200, PROPS)), ("/metrics", metrics)])
}

struct Asker {
    roster: watch::Sender<Arc<Roster>>,
    views: watch::Receiver<Arc<EngineView>>,
    findings: mpsc::Receiver<Finding>,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Asker {
    fn of<const N: usize>(members: [Member; N]) -> Self {
        let (roster, roster_out) = watch::channel(roster(members));
        let (send, findings) = mpsc::channel(256);
        let stopping = CancellationToken::new();
        let config =
            EngineConfig { proc_root: "/proc".into(), advertise: "box.lan".into(), period: Duration::from_millis(100) };
        let (views, task) = ask(config, roster_out, send, stopping.clone());
        Self { roster, views, findings, stopping, task }
    }

    async fn until(&mut self, slot: Slot, what: impl Fn(Option<&Answer>) -> bool) -> Option<Answer> {
        let seen = self.views.wait_for(|view| what(view.of(slot)));
        let view = tokio::time::timeout(WITHIN, seen).await.expect("in time").unwrap();
        view.of(slot).copied()
    }

    async fn next_finding(&mut self) -> Finding {
        tokio::time::timeout(WITHIN, self.findings.recv()).await.expect("in time").unwrap()
    }
}

async fn free_port() -> u16 {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn state(state: State) -> impl Fn(Option<&Answer>) -> bool {
    move |answer| answer.is_some_and(|answer| answer.state == state)
}

#[tokio::test]
async fn an_engine_is_asked_and_its_news_is_told_once() {
    let server = llama(reply(200, METRICS)).serve().await;
    let mut asker = Asker::of([worker(1, "llama-server -m x", server.port), member(2, "llm", "quiet")]);
    let answer = asker.until(1, state(State::Ok)).await.unwrap();
    assert_eq!((answer.running, answer.waiting, answer.readiness), (Some(2), Some(3), Readiness::Ready));
    let finding = asker.next_finding().await;
    let names = vec!["slow-random".to_owned(), "slow.gguf".to_owned()];
    let wanted = Finding {
        slot: 1,
        engine: Some(proto::Engine::LlamaCpp),
        model_names: Some(names),
        readiness: Some(Readiness::Ready),
        ..Finding::default()
    };
    assert_eq!(finding, wanted);
    asker.until(1, |answer| answer.is_some_and(|answer| answer.tokens_per_second == Some(0.0))).await;
    assert!(asker.findings.try_recv().is_err(), "nothing else is news");
    assert!(asker.views.borrow().of(2).is_none(), "nobody asks a worker without a port");
    let allowed = ["GET /health", "GET /props", "GET /metrics"];
    assert!(server.asked().iter().all(|asked| allowed.contains(&asked.as_str())), "{:?}", server.asked());
    asker.stopping.cancel();
    tokio::time::timeout(WITHIN, asker.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_leaves_takes_its_answer_along() {
    let server = llama(reply(200, METRICS)).serve().await;
    let mut asker = Asker::of([worker(1, "llama-server", server.port)]);
    asker.until(1, state(State::Ok)).await;
    asker.roster.send_replace(Arc::default());
    asker.until(1, |answer| answer.is_none()).await;
}

#[tokio::test]
async fn loading_is_not_ready_and_the_end_of_it_is_noticed() {
    let loading = || reply(503, r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#);
    let answers = ["/health", "/props", "/v1/models", "/metrics"].map(|path| (path, loading()));
    let server = Answers::of(answers).serve().await;
    // What it is, only its answers tell.
    let mut asker = Asker::of([worker(1, "wrapped", server.port)]);
    assert_eq!(asker.until(1, state(State::Loading)).await.unwrap().readiness, Readiness::NotReady);
    let finding = asker.next_finding().await;
    assert_eq!((finding.engine, finding.readiness), (Some(proto::Engine::LlamaCpp), Some(Readiness::NotReady)));
    server.answer(llama(reply(501, r#"{"error":{"code":501,"type":"not_supported_error"}}"#)));
    assert_eq!(asker.until(1, state(State::NoMetrics)).await.unwrap().readiness, Readiness::Ready);
    assert_eq!(asker.next_finding().await.readiness, Some(Readiness::Ready));
}

#[tokio::test]
async fn three_misses_in_a_row_make_it_not_ready() {
    let server = llama(reply(200, METRICS)).serve().await;
    let mut asker = Asker::of([worker(1, "llama-server", server.port)]);
    asker.until(1, state(State::Ok)).await;
    server.answer(llama(reply(500, "oh")));
    let well = |answer: Option<&Answer>| answer.is_some_and(|answer| answer.running.is_none());
    assert_eq!(asker.until(1, well).await.unwrap().readiness, Readiness::Ready, "its health is what counts");
    server.answer(Answers::of(["/health", "/props", "/metrics"].map(|path| (path, reply(500, "oh")))));
    let rounds = || server.asked().iter().filter(|asked| *asked == "GET /metrics").count();
    let (lost, before) = (|answer: &Answer| answer.readiness == Readiness::NotReady, rounds());
    asker.until(1, |answer| answer.is_some_and(lost)).await;
    assert!(rounds() >= before + 3, "not at once");
    server.answer(llama(reply(200, METRICS)));
    assert_eq!(asker.until(1, state(State::Ok)).await.unwrap().readiness, Readiness::Ready);
    let told = [asker.next_finding().await, asker.next_finding().await, asker.next_finding().await];
    let told = told.map(|finding| finding.readiness.unwrap());
    assert_eq!(told, [Readiness::Ready, Readiness::NotReady, Readiness::Ready]);
}

#[tokio::test]
async fn one_that_hangs_costs_nobody_else_anything() {
    let well = llama(reply(200, METRICS)).serve().await;
    let hangs = llama(Vec::new()).serve().await;
    let mut asker = Asker::of([worker(1, "llama-server", hangs.port), worker(2, "llama-server", well.port)]);
    let answer = asker.until(1, state(State::Timeout)).await.unwrap();
    assert_eq!((answer.running, answer.readiness), (None, Readiness::NotReady));
    let metrics = |server: &Server| server.asked().iter().filter(|asked| *asked == "GET /metrics").count();
    let (one, other) = (metrics(&well), metrics(&hangs));
    asker.until(2, |_| metrics(&well) >= one + 10).await;
    assert!(metrics(&hangs) <= other + 2, "the others were asked at their own pace");
}

#[tokio::test]
async fn a_sleeping_server_is_idle_and_left_alone() {
    let asleep = PROPS.replace("\"is_sleeping\":false", "\"is_sleeping\":true");
    let answers = |props: &str| {
        Answers::of([("/health", reply(200, "{}")), ("/props", reply(200, props)), ("/metrics", reply(200, METRICS))])
    };
    for command in ["llama-server --sleep-idle-seconds 60", "wrapped"] {
        let server = answers(&asleep).serve().await;
        let mut asker = Asker::of([worker(1, command, server.port)]);
        let answer = asker.until(1, state(State::Ok)).await.unwrap();
        assert_eq!((answer.running, answer.waiting, answer.readiness), (Some(0), Some(0), Readiness::Ready));
        asker.until(1, |_| server.asked().len() > 6).await;
        let harmless = ["GET /health", "GET /props"];
        assert!(server.asked().iter().all(|asked| harmless.contains(&asked.as_str())), "{:?}", server.asked());
        // An old one that is awake would not fall asleep any more if its metrics were asked for.
        server.answer(answers(PROPS));
        let awake = asker.until(1, |answer| answer.is_some_and(|answer| answer.running != Some(0))).await.unwrap();
        let seen = (awake.state, server.asked().iter().any(|asked| asked == "GET /metrics"));
        let wanted = if command == "wrapped" { (State::Ok, true) } else { (State::NoMetrics, false) };
        assert_eq!(seen, wanted, "{command}");
    }
}

#[tokio::test]
async fn a_port_without_an_engine_is_ready_when_it_accepts() {
    let port = free_port().await;
    let mut asker = Asker::of([worker(1, "python3 -m http.server", port)]);
    assert_eq!(asker.until(1, state(State::Unreachable)).await.unwrap().readiness, Readiness::NotReady);
    let server = Answers::of([]).serve().await;
    asker.roster.send_replace(roster([worker(1, "python3 -m http.server", server.port)]));
    assert_eq!(asker.until(1, state(State::NoEngine)).await.unwrap().readiness, Readiness::Ready);
    let looked = server.asked();
    assert_eq!(looked, ["GET /props", "GET /v1/models", "GET /metrics", "GET /api/version"]);
    assert_eq!(asker.next_finding().await.readiness, Some(Readiness::NotReady));
    assert_eq!(asker.next_finding().await.readiness, Some(Readiness::Ready));
}

#[tokio::test]
async fn a_port_that_accepts_and_stays_silent_is_no_engine() {
    let server = Answers::of([("/props", Vec::new())]).serve().await;
    let mut asker = Asker::of([worker(1, "some-database", server.port)]);
    assert_eq!(asker.until(1, state(State::Timeout)).await.unwrap().readiness, Readiness::NotReady);
    assert_eq!(asker.until(1, state(State::NoEngine)).await.unwrap().readiness, Readiness::Ready);
}

#[tokio::test]
async fn another_process_is_told_about_anew() {
    let server = llama(reply(200, METRICS)).serve().await;
    let mut asker = Asker::of([worker(1, "llama-server", server.port)]);
    let first = asker.next_finding().await;
    let mut again = worker(1, "llama-server", server.port);
    again.footing.as_mut().unwrap().start_ticks += 1;
    asker.roster.send_replace(roster([again]));
    assert_eq!(asker.next_finding().await, first);
}

#[tokio::test]
async fn an_engine_that_has_no_port_yet_is_not_ready() {
    let mut coming = member(1, "llm", "coming");
    coming.spec.command = vec!["llama-server".into()];
    let mut asker = Asker::of([coming]);
    let answer = asker.until(1, |answer| answer.is_some()).await.unwrap();
    assert_eq!((answer.state, answer.readiness), (State::Unspecified, Readiness::NotReady));
}

#[test]
fn no_bytes_break_a_reader() {
    for text in [METRICS, PROPS, "vllm:num_requests_running{a=\"\\", "{\"models\":[{\"name\":1}]}", "\u{0}"] {
        for cut in 0..text.len().min(600) {
            read_as_everything(&text.as_bytes()[..cut]);
            read_as_everything(&text.as_bytes()[cut..]);
        }
    }
}

#[tokio::test]
async fn a_server_that_was_there_before_the_worker_does_not_pass_for_it() {
    let server = llama(reply(200, METRICS)).serve().await;
    let mut late = worker(1, "llama-server -m x", server.port);
    // The server is this very process, which is older than that.
    late.footing.as_mut().unwrap().start_ticks = u64::MAX;
    let mut asker = Asker::of([late]);
    let answer = asker.until(1, state(State::Taken)).await.unwrap();
    assert_eq!((answer.readiness, answer.running), (Readiness::NotReady, None));
    assert_eq!(server.asked(), [""; 0], "what is not the worker is not asked");
    let finding = asker.next_finding().await;
    assert_eq!((finding.readiness, finding.model_names), (Some(Readiness::NotReady), None));
}
