//! Watchers that sleep among many that read: they end in the right state, cost no memory and delay nobody.

use crate::harness::{PATIENCE, Running, Session, hive, row};
use crate::histories::{ordered, unique};
use crate::recorded::Recorded;
use hyper_util::rt::TokioIo;
use proto::fleet_service_client::FleetServiceClient;
use proto::watch_response::Event;
use proto::{WatchRequest, WorkerRow};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

const READERS: usize = 100;
const HIVES: u32 = 4;
const WORKERS: u32 = 25;
const PERIOD: Duration = Duration::from_millis(100);
/// What the sleeper's socket and stream hold of what it has not read.
const SMALL: u32 = 4 * 1024;
/// What one sleeper may cost at most: its one message ahead, what the transport buffers for it, and what this test
/// writes down about it.
const MEMORY: u64 = 32 << 20;

/// How long the sleeper sleeps, then reads, and how often.
struct Naps {
    sleep: Duration,
    read: Duration,
    times: u32,
    /// The others' p99 may be twice what it was, and so much: other tests run beside the short form.
    slack: Duration,
}

fn naps() -> Naps {
    let seconds = Duration::from_secs_f64;
    match std::env::var_os("LONG") {
        Some(_) => Naps { sleep: seconds(20.0), read: seconds(5.0), times: 4, slack: seconds(0.005) },
        None => Naps { sleep: seconds(2.0), read: seconds(0.5), times: 2, slack: seconds(0.05) },
    }
}

/// Every number changes with every round.
fn rows(id: &str, round: u32) -> Vec<WorkerRow> {
    (1..=WORKERS).map(|slot| row(id, slot, f64::from(round))).collect()
}

/// Reports until it is stopped; the number of its last round.
fn report(mut session: Session, id: String, stopping: CancellationToken) -> JoinHandle<(Session, u32)> {
    tokio::spawn(async move {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return (session, round),
                _ = ticks.tick() => {}
            }
            round += 1;
            session.snapshot(rows(&id, round)).await;
        }
    })
}

/// How late each report was when a reader had it.
type Delays = Arc<Mutex<Vec<Duration>>>;

async fn reader(channel: Channel, delays: Delays) {
    let mut stream = FleetServiceClient::new(channel).watch(WatchRequest::default()).await.unwrap().into_inner();
    while let Ok(Some(message)) = stream.message().await {
        let Some(Event::Update(update)) = message.event else { continue };
        let late = |beat: &proto::HiveBeat| {
            let sampled = common::from_timestamp(beat.sampled_at.as_ref()?)?;
            SystemTime::now().duration_since(sampled).ok()
        };
        delays.lock().unwrap().extend(update.beats.iter().filter_map(late));
    }
}

/// Takes what was measured so far; its 99th percentile.
fn p99(delays: &Delays) -> Duration {
    let mut all = std::mem::take(&mut *delays.lock().unwrap());
    all.sort_unstable();
    assert!(all.len() > READERS, "{} reports were received", all.len());
    all[all.len() * 99 / 100]
}

/// A connection on which little can be sent ahead.
async fn narrow(address: SocketAddr) -> Channel {
    let connect = service_fn(move |_: Uri| async move {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SMALL)?;
        socket.connect(address).await.map(TokioIo::new)
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.initial_stream_window_size(SMALL).connect_with_connector(connect).await.unwrap()
}

/// Resident memory of this process, which is queen, hives and watchers in one.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w6_a_sleeper_among_100_ends_in_the_right_state_and_delays_nobody() {
    let _alone = crate::MEASURING.lock().await;
    let Naps { sleep, read, times, slack } = naps();
    let (queen, stopping) = (Running::start(|_| {}).await, CancellationToken::new());
    let mut reports = Vec::new();
    for number in 0..HIVES {
        let id = format!("h{number}");
        let session = Session::open(&queen, hive(&id)).await.unwrap();
        reports.push(report(session, id, stopping.clone()));
    }
    let delays = Delays::default();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(tokio::spawn(reader(queen.channel().await, Arc::clone(&delays))));
    }
    // Once to warm up, once to compare with.
    let span = (sleep + read) * times;
    tokio::time::sleep(span / 2).await;
    let _warm = p99(&delays);
    tokio::time::sleep(span).await;
    let (without, before) = (p99(&delays), resident_bytes());

    let mut sleeper = Recorded::new(WatchRequest { columns: true, ..WatchRequest::default() });
    sleeper.open(narrow(queen.address).await).await;
    for _ in 0..times {
        sleeper.read_for(read).await;
        ordered(&sleeper.history).unwrap();
        unique(&sleeper.history).unwrap();
        // What it wrote down is this test's, and no cost of a sleeper.
        sleeper.turn_the_page();
        tokio::time::sleep(sleep).await;
    }
    let (with, after) = (p99(&delays), resident_bytes());
    let grown = after.saturating_sub(before);
    println!("p99 of {READERS} readers: {without:?} without the sleeper, {with:?} with it; {} KiB more", grown >> 10);

    stopping.cancel();
    let mut last = Vec::new();
    for report in reports {
        last.push(timeout(PATIENCE, report).await.unwrap().unwrap());
    }
    let all = (HIVES * WORKERS + HIVES) as usize;
    let right = |client: &crate::histories::Client| {
        let is = |object: &crate::histories::Object| match object {
            crate::histories::Object::Hive(_) => true,
            crate::histories::Object::Worker(worker) => {
                let number = worker.spec.as_ref().unwrap().hive[1..].parse::<usize>().unwrap();
                worker.stats.as_ref().unwrap().cpu_pct == Some(f64::from(last[number].1))
            }
        };
        client.objects.len() == all && client.objects.values().all(is)
    };
    sleeper.until("the last round of every hive", right).await;
    ordered(&sleeper.history).unwrap();
    unique(&sleeper.history).unwrap();
    readers.iter().for_each(JoinHandle::abort);
    assert!(with < without * 2 + slack, "{without:?} without the sleeper, {with:?} with it");
    assert!(grown < MEMORY, "{grown} bytes more with one sleeper");
}
