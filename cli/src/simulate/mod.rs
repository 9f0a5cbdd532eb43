//! `rbee simulate`: a fleet that does not exist, over real connections and by the hive's own uplink. Machines are made up
//! from a seed; at the end the queen must have everything, and the books must balance.

mod agent;
mod board;
mod heard;
mod ledger;
mod load;
mod machine;
mod plan;
mod random;
mod roll;

pub use ledger::Ledger;
pub use load::{GPUS, first, gpu_uuid, next, spec};
pub use plan::Plan;
pub use random::Random;

use crate::args::{Global, Simulate};
use crate::failure::Failure;
use crate::{connect, serve, terminal};
use board::Board;
use common::link::{Access, Channel};
use heard::Heard;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use proto::fleet_service_client::FleetServiceClient;
use roll::Roll;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often closed accounts are settled: before a hive can have a session of the same epoch at a queen that starts anew.
const SETTLE: Duration = Duration::from_millis(200);
/// How long after the end the queen may take until it has everything: reconnect, two rounds, and what a busy machine adds.
const AGREE: Duration = Duration::from_secs(60);
/// Between two looks at that.
const LOOK: Duration = Duration::from_secs(1);
/// How long all goodbyes may take, and then the transport until it has let go of all frames.
const GOODBYE: Duration = Duration::from_secs(30);
/// Frames of one session that may be under way: what a link that is dead without a sign takes until that is found, and
/// twice as many again for starts and exits, which are sent at once.
const UNDER_WAY: Duration = Duration::from_secs(10);
/// Larger answers are refused: some 60,000 workers in one.
const ANSWER_MAX: usize = 64 << 20;

/// Simulates until the time is over or a signal ends it.
pub async fn run(global: &Global, args: Simulate) -> Result<(), Failure> {
    let (url, access) = (connect::queen_url(global)?.to_owned(), global.reach.access()?);
    let target = Target { url, access, channel: connect::queen(global).await? };
    let plan = Plan {
        hives: args.hives,
        workers: args.workers,
        rate: args.rate.max(Duration::from_millis(1)),
        changed: args.changed,
        churn: args.churn,
        kill: args.kill,
        stall: args.stall,
        tunnels: args.tunnels,
        seed: args.seed,
        prefix: args.prefix,
    };
    let how = Course { report: args.report.max(LOOK), duration: args.duration, watch: args.watch };
    let ledger = simulate(plan, target, how, serve::stop_signal()?).await?;
    if ledger.faulty == 0 {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} faults:\n  {}", ledger.faulty, ledger.faults.join("\n  "))))
}

/// How a simulation goes.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// Time between two lines.
    pub report: Duration,
    /// How long it takes; without an end it goes on until stopped.
    pub duration: Option<Duration>,
    /// Whether somebody watches the queen.
    pub watch: bool,
}

/// The queen that is to bear it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where hives find her.
    pub url: String,
    /// What they show her.
    pub access: Access,
    /// To ask and to watch her.
    pub channel: Channel,
}

/// Simulates against a queen. Prints a line now and then, and the books.
pub async fn simulate(
    plan: Plan,
    target: Target,
    course: Course,
    stopped: CancellationToken,
) -> Result<Ledger, Failure> {
    serve::raise_open_files_for(plan.connections());
    let (board, plan) = (Arc::new(Board::new(plan.hives)), Arc::new(plan));
    let (stopping, mut agents) = (CancellationToken::new(), JoinSet::new());
    for index in 0..plan.hives {
        agents.spawn(agent::run(plan.clone(), index, target.clone(), board.clone(), stopping.clone()));
    }
    let heard = course.watch.then(Heard::default);
    let listening = heard.clone().map(|heard| tokio::spawn(heard.listen(target.channel.clone(), stopping.clone())));
    let mut show = Show {
        plan: &plan,
        board: &board,
        heard,
        ledger: Ledger::default(),
        last: Instant::now(),
        frames: 0,
        cpu: cpu(),
    };
    show.follow(course, &stopped).await?;
    if !stopped.is_cancelled() {
        board.calm_down();
        let mut client = FleetServiceClient::new(target.channel).max_decoding_message_size(ANSWER_MAX);
        show.agree(&mut client, &stopped).await;
    }
    stopping.cancel();
    if timeout(GOODBYE, async { while agents.join_next().await.is_some() {} }).await.is_err() {
        let late = agents.len();
        show.ledger.fault(format!("{late} hives had not said goodbye after {} s", GOODBYE.as_secs()));
        agents.shutdown().await;
    }
    if let Some(listening) = listening {
        let _ended = listening.await;
    }
    show.close().await;
    show.sum_up()?;
    Ok(show.ledger)
}

/// What is printed, and what it is made from.
struct Show<'a> {
    plan: &'a Plan,
    board: &'a Board,
    heard: Option<Heard>,
    ledger: Ledger,
    last: Instant,
    frames: u64,
    cpu: Duration,
}

impl Show<'_> {
    /// Until the time is over, or stopped.
    async fn follow(&mut self, course: Course, stopped: &CancellationToken) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut ticks = interval(SETTLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while course.duration.is_none_or(|duration| begun.elapsed() < duration) {
            tokio::select! {
                () = stopped.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            self.settle();
            if self.last.elapsed() >= course.report {
                terminal::put(self.line())?;
            }
        }
        Ok(())
    }

    /// Settles the last accounts, when the transport has let go of all frames.
    async fn close(&mut self) {
        let mut open = self.board.books.open();
        if timeout(GOODBYE, open.wait_for(|open| *open == 0)).await.is_err() {
            self.ledger.fault(format!("{} accounts are not closed after {} s", *open.borrow(), GOODBYE.as_secs()));
        }
        self.settle();
    }

    fn settle(&mut self) {
        let rounds = UNDER_WAY.as_secs_f64() / self.plan.rate.as_secs_f64();
        for account in self.board.books.take_closed() {
            let heard = self.heard.as_ref().map(|heard| heard.take(&account.session));
            self.ledger.settle(&account, heard, 3 * rounds.ceil() as u64);
        }
    }

    fn line(&mut self) -> String {
        let (seconds, frames, cpu) = (self.last.elapsed().as_secs_f64(), self.board.books.frames(), cpu());
        let rate = (frames - self.frames) as f64 / seconds;
        let busy = 100.0 * cpu.saturating_sub(self.cpu).as_secs_f64() / seconds;
        (self.last, self.frames, self.cpu) = (Instant::now(), frames, cpu);
        let again = self.board.books.sessions().saturating_sub(u64::from(self.plan.hives));
        let trouble = self.board.trouble().map(|why| format!("  ({why})")).unwrap_or_default();
        format!(
            "registered {}/{}  frames {rate:.0}/s  refused {}  reconnects {again}  cpu {busy:.0}%{trouble}\n",
            self.board.connected(),
            self.plan.hives,
            self.ledger.refused
        )
    }

    /// Waits until the queen has what there is.
    async fn agree(&mut self, client: &mut FleetServiceClient<Channel>, stopped: &CancellationToken) {
        let begun = Instant::now();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                _ = looks.tick() => {}
            }
            self.settle();
            let there: BTreeMap<String, String> = self.board.workers().into_iter().collect();
            let faults = match Roll::call(client, &format!("{}-", self.plan.prefix)).await {
                Ok(roll) => roll.faults(self.plan.hives as usize, &there),
                Err(status) => vec![format!("the queen does not say what it has: {}", connect::told(&status))],
            };
            if faults.is_empty() {
                return;
            }
            if begun.elapsed() > AGREE {
                faults.into_iter().for_each(|fault| self.ledger.fault(fault));
                return;
            }
        }
    }

    fn sum_up(&mut self) -> Result<(), Failure> {
        let missed = self.board.books.missed();
        if missed > 0 {
            self.ledger.fault(format!("{missed} accounts were not settled in time"));
        }
        let books = &self.ledger;
        let cut = match &self.heard {
            Some(_) => format!("{} heard of, {} in flight when cut", books.heard, books.in_flight),
            None => "what was in flight is not known: nobody watched".to_owned(),
        };
        let verdict = if books.faulty == 0 { "the books balance" } else { "THE BOOKS DO NOT BALANCE" };
        terminal::put(format!(
            "sessions {} summed, {} cut  frames {} handed over: {} accepted, {} refused; of cut sessions {cut}\n{verdict}\n",
            books.summed, books.cut, books.handed, books.accepted, books.refused
        ))
    }
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let spent = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(spent).unwrap_or(0))
}
