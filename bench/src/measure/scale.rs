//! A whole fleet at once: hives with the real uplink, one connection each, in a process of their own; then the queen is
//! killed and must have all of them again. And what it answers meanwhile.

use crate::Pace;
use crate::child::Server;
use crate::drive::ours::stall;
use crate::table::{Table, median};
use cli::simulate::{Course, Plan, Target, simulate as run_fleet};
use common::link::Access;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::{FindIdleWorkersRequest, FindOptions, FindWorkersWithModelRequest};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

const WORKERS: u32 = 10;
/// How long all may take to be there.
const PATIENCE: Duration = Duration::from_secs(120);
/// Watchers that do not read. They are cut 30 s after they began: later than what is measured here.
const STALLED: usize = 100;
/// The most that the queen may take, in bytes.
const MEMORY: f64 = 768.0 * 1024.0 * 1024.0;

/// The child that simulates: `URL HIVES [tunnels]`.
pub async fn simulate(words: &[String]) {
    let [url, hives, how @ ..] = words else { panic!("simulate URL HIVES [tunnels]") };
    let tunnels = how == ["tunnels"];
    let access = Access::default();
    let channel = access.connect(url, |endpoint| endpoint).await.expect("a queen");
    let target = Target { url: url.clone(), access, channel };
    let plan = Plan {
        hives: hives.parse().expect("a number"),
        workers: WORKERS,
        rate: Duration::from_secs(1),
        changed: 1.0,
        churn: 0.0,
        kill: 0.0,
        stall: 0.0,
        tunnels,
        seed: 1,
        prefix: "sim".into(),
    };
    let course = Course { report: Duration::from_secs(3), duration: None, watch: false };
    // What it prints is for people; the parent ends it by a signal.
    let _ended = run_fleet(plan, target, course, CancellationToken::new()).await;
}

struct Simulated(Child);

impl Drop for Simulated {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

pub async fn run(pace: Pace, table: &mut Table) {
    fleet(pace, pace.hives, false, table).await;
    fleet(pace, pace.hives / 5 * 2, true, table).await;
}

async fn fleet(pace: Pace, hives: u32, tunnels: bool, table: &mut Table) {
    let mut server = Server::start("ours");
    let address = server.address.clone();
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["simulate", &format!("http://{address}"), &hives.to_string()]).args(tunnels.then_some("tunnels"));
    let fleet =
        Simulated(command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr())).spawn().expect("a fleet"));
    let with = if tunnels { "all fields, tunnels" } else { "all fields" };
    let what = |what: &str| format!("{hives} hives × {WORKERS} workers at 1 Hz, {with}: {what}");
    let took = registered(&address, hives).await;
    table.ours(&what("until all are registered"), took.as_secs_f64(), "s", None, false);
    if tunnels {
        attached(&address, hives).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let window = pace.window.max(Duration::from_secs(5)) * 2;
    let (queen, simulator) = cores(&server, &fleet, window).await;
    table.ours(&what("the queen's CPU"), queen, "cores", Some(1.0), false);
    table.ours(&what("the simulator's CPU"), simulator, "cores", None, false);
    table.ours(&what("the queen's memory"), server.memory() as f64, "bytes", Some(MEMORY), false);
    queries(&address, table, &what).await;
    if !tunnels {
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            stalled.push(stall(&address).await);
        }
        let (queen, _) = cores(&server, &fleet, window).await;
        table.ours(&what("with 100 watchers that do not read, the queen's CPU"), queen, "cores", None, false);
        let memory = server.memory() as f64;
        table.ours(&what("with 100 watchers that do not read, the queen's memory"), memory, "bytes", None, false);
    }
    server.kill();
    let mut again = Server::start_at("ours", &address);
    let took = registered(&address, hives).await;
    table.ours(&what("until all are back after the queen was killed"), took.as_secs_f64(), "s", None, false);
    again.kill();
}

/// CPU time of both over so long, in cores.
async fn cores(server: &Server, fleet: &Simulated, window: Duration) -> (f64, f64) {
    let spent = || (server.cpu(), crate::child::cpu_of(fleet.0.id()));
    let (before, begun) = (spent(), Instant::now());
    tokio::time::sleep(window).await;
    let (after, took) = (spent(), begun.elapsed().as_secs_f64());
    ((after.0 - before.0).as_secs_f64() / took, (after.1 - before.1).as_secs_f64() / took)
}

/// Waits until the queen says that so many hives can be called.
async fn attached(address: &str, hives: u32) {
    let begun = Instant::now();
    loop {
        let seen = tunnels(address).await.unwrap_or(0);
        if seen >= u64::from(hives) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "only {seen} hives are attached after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How many tunnels she has, by her own metrics.
async fn tunnels(address: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let asked = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let line = answer.lines().find(|line| line.contains("bound_current{bound=\"tunnels\"}"))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the queen says that so many hives are live.
async fn registered(address: &str, hives: u32) -> Duration {
    let begun = Instant::now();
    let mut client = SchedulerServiceClient::new(channel(address).await);
    loop {
        let request = FindIdleWorkersRequest { options: few(1), ..FindIdleWorkersRequest::default() };
        let coverage = client.find_idle_workers(request).await.ok().and_then(|answer| answer.into_inner().coverage);
        if coverage.is_some_and(|coverage| coverage.hives_live >= hives) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "not all hives are registered after {PATIENCE:?}: {coverage:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn few(limit: u32) -> Option<FindOptions> {
    Some(FindOptions { limit, ..FindOptions::default() })
}

async fn queries(address: &str, table: &mut Table, what: &impl Fn(&str) -> String) {
    let mut client = SchedulerServiceClient::new(channel(address).await).max_decoding_message_size(64 << 20);
    let (mut idle, mut model) = (Vec::new(), Vec::new());
    for _ in 0..21 {
        let begun = Instant::now();
        let request = FindIdleWorkersRequest { options: few(10), ..FindIdleWorkersRequest::default() };
        client.find_idle_workers(request).await.expect("an answer");
        idle.push(begun.elapsed().as_secs_f64() * 1_000.0);
        let begun = Instant::now();
        let request =
            FindWorkersWithModelRequest { model: "gemma-2-27b-it".into(), options: few(10), ..Default::default() };
        client.find_workers_with_model(request).await.expect("an answer");
        model.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    table.ours(&what("ten idle workers, asked over gRPC"), median(idle), "ms", None, false);
    table.ours(&what("ten workers with a model, asked over gRPC"), median(model), "ms", None, false);
}
