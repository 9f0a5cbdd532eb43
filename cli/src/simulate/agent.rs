//! One simulated hive: the machine is made up, the uplink is the real one.

use super::Target;
use super::board::Board;
use super::machine::{Happening, Machine};
use super::plan::Plan;
use hive::roster::Roster;
use hive::round::Round;
use hive::rpc::tunnel::{IDLE, Served, Tunnel};
use hive::rpc::uplink::{Sources, Uplink};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// How long a machine that was cut off takes to boot.
const BOOTING: Duration = Duration::from_secs(2);

/// Why a life of a hive ended.
#[derive(PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

/// Lives, again and again, until stopped.
pub async fn run(plan: Arc<Plan>, index: u32, target: Target, board: Arc<Board>, stopping: CancellationToken) {
    let waited = tokio::select! {
        () = sleep(plan.begins(index)) => true,
        () = stopping.cancelled() => false,
    };
    let mut machine = Machine::new(&plan, index, SystemTime::now());
    while waited && !stopping.is_cancelled() {
        if live(&plan, index, &target, &board, &mut machine, &stopping).await == End::Stopped {
            return;
        }
        tokio::select! {
            () = sleep(BOOTING) => {}
            () = stopping.cancelled() => return,
        }
        machine.boot(&plan, SystemTime::now());
    }
}

async fn live(
    plan: &Plan,
    index: u32,
    target: &Target,
    board: &Board,
    machine: &mut Machine,
    stopping: &CancellationToken,
) -> End {
    let told = Told::new(machine);
    board.has(index, machine.workers());
    let uplink = Uplink::new(target.url.clone(), target.access.clone(), format!("journal-{index}"), told.sources());
    let uplink = uplink.counted(Arc::clone(&board.books));
    board.linked(index, uplink.state());
    let mut tunnel = tunnel(plan, target, &uplink, stopping);
    let uplink = tokio::spawn(uplink.run(stopping.clone()));

    let mut ticks = interval_at(tokio::time::Instant::now() + plan.rate, plan.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stopping.cancelled() => {
                // It says goodbye and waits for the queen's summary; a panic in it would be a session without books.
                let _ended = uplink.await;
                while tunnel.join_next().await.is_some() {}
                return End::Stopped;
            }
            _ = ticks.tick() => {}
        }
        let happened = machine.advance(plan, board.is_calm(), SystemTime::now());
        match happened {
            Happening::Stalled => continue,
            Happening::Killed => {
                uplink.abort();
                let _cut = uplink.await;
                return End::Killed;
            }
            Happening::Roster => {
                told.roster.send_replace(machine.roster());
                board.has(index, machine.workers());
            }
            Happening::Nothing => {}
        }
        told.renew(machine);
    }
}

/// The tunnel, if hives are to keep one. Nothing is served in it: whoever calls such a hive is told so.
fn tunnel(plan: &Plan, target: &Target, uplink: &Uplink, stopping: &CancellationToken) -> JoinSet<()> {
    let mut tunnel = JoinSet::new();
    if plan.tunnels {
        let served: Served = Arc::new(Routes::default);
        let kept = Tunnel::new(target.url.clone(), target.access.clone(), uplink.opened(), served, IDLE);
        tunnel.spawn(kept.run(stopping.clone()));
    }
    tunnel
}

/// What the uplink is told of a machine.
struct Told {
    roster: watch::Sender<Arc<Roster>>,
    rounds: watch::Sender<Arc<Round>>,
    record: watch::Sender<Arc<proto::Hive>>,
}

impl Told {
    fn new(machine: &Machine) -> Self {
        Self {
            roster: watch::Sender::new(machine.roster()),
            rounds: watch::Sender::new(machine.round(Instant::now(), SystemTime::now())),
            record: watch::Sender::new(Arc::new(machine.told().clone())),
        }
    }

    fn sources(&self) -> Sources {
        Sources { roster: self.roster.subscribe(), rounds: self.rounds.subscribe(), hive: self.record.subscribe() }
    }

    /// A round, and the record if it is another one.
    fn renew(&self, machine: &Machine) {
        self.record.send_if_modified(|told| {
            let news = **told != *machine.told();
            if news {
                *told = Arc::new(machine.told().clone());
            }
            news
        });
        self.rounds.send_replace(machine.round(Instant::now(), SystemTime::now()));
    }
}
