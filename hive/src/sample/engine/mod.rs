//! Engines, asked off the tick what they are doing. A slow or broken one costs its own numbers only. What is asked of
//! which engine, and why, is in `README.md`.

pub mod address;
mod asking;
mod board;
pub mod command_line;
mod deed;
pub mod detect;
pub mod exposition;
pub mod line;
pub mod llama_cpp;
pub mod ollama;
pub mod rate;
pub mod said;
pub mod sglang;
mod target;
#[cfg(test)]
mod testing;
pub mod tgi;
pub mod vllm;

use crate::roster::{Finding, Roster, Slot};
use asking::{Asking, Means, Told};
use board::Board;
use deed::Deed;
use line::Line;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use target::Target;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Engines that are asked at the same time; beyond, they wait for their turn.
const TURNS: usize = 256;
/// No engine is asked faster than this, whatever the configuration says…
const PERIOD_MIN: Duration = Duration::from_millis(100);
/// …nor more slowly: what an engine says is not believed for long.
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// The latest answer of every worker's engine, in ascending order of slots.
#[derive(Debug, Clone, Default)]
pub struct EngineView {
    /// A worker that was not asked is not in it.
    pub answers: Vec<(Slot, Answer)>,
}

/// What one engine last said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// When it was asked.
    pub asked: Instant,
    /// How that went.
    pub state: proto::EngineSampleState,
    /// Whether it can take requests.
    pub readiness: proto::Readiness,
    /// Requests that it works on.
    pub running: Option<u32>,
    /// Requests that wait.
    pub waiting: Option<u32>,
    /// Percent of its key-value cache.
    pub kv_cache_pct: Option<f64>,
    /// Tokens generated per second.
    pub tokens_per_second: Option<f64>,
}

impl EngineView {
    /// What the engine of one worker last said.
    pub fn of(&self, slot: Slot) -> Option<&Answer> {
        let at = self.answers.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        self.answers.get(at).map(|(_, answer)| answer)
    }
}

/// Reads bytes as every answer of every engine, and forgets what they say: for whoever looks for bytes that break a
/// reader.
pub fn read_as_everything(bytes: &[u8]) {
    let now = Instant::now();
    let _numbers = (
        llama_cpp::LlamaCpp::default().read(now, bytes),
        vllm::Vllm::default().read(now, bytes),
        sglang::read(bytes),
        tgi::Tgi::default().read(now, bytes),
    );
    let _words = (llama_cpp::Props::read(bytes), said::ModelList::read(bytes), ollama::read(bytes));
}

/// What asking is told from outside.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where procfs is mounted.
    pub proc_root: PathBuf,
    /// The host that endpoints of this hive's workers bear when nobody gave them another one.
    pub advertise: String,
    /// From one question to the next.
    pub period: Duration,
}

/// Asks the engines of all workers until `stopping`. What is learnt about a worker as such goes to `findings`.
pub fn ask(
    config: EngineConfig,
    roster: watch::Receiver<Arc<Roster>>,
    findings: mpsc::Sender<Finding>,
    stopping: CancellationToken,
) -> (watch::Receiver<Arc<EngineView>>, JoinHandle<()>) {
    let (views, views_out) = watch::channel(Arc::default());
    let means =
        Means { findings, turns: Arc::new(Semaphore::new(TURNS)), period: config.period.clamp(PERIOD_MIN, PERIOD_MAX) };
    let asked = Asked { config, means, board: Arc::default(), known: HashMap::new(), tasks: JoinSet::new() };
    (views_out, tokio::spawn(asked.run(roster, views, stopping)))
}

/// Everybody who is asked.
struct Asked {
    config: EngineConfig,
    means: Means,
    board: Arc<Board>,
    known: HashMap<Slot, Known>,
    tasks: JoinSet<()>,
}

/// What is remembered of a worker while it is on the roster.
struct Known {
    /// Its endpoint was there when it came: nobody has to find it.
    given: bool,
    conversation: Option<Conversation>,
}

struct Conversation {
    target: Target,
    told: Arc<Mutex<Told>>,
    task: AbortHandle,
}

impl Asked {
    async fn run(
        mut self,
        mut roster: watch::Receiver<Arc<Roster>>,
        views: watch::Sender<Arc<EngineView>>,
        stopping: CancellationToken,
    ) {
        self.tasks.spawn(Arc::clone(&self.board).publish(views));
        loop {
            let now = Arc::clone(&roster.borrow_and_update());
            self.settle(&now);
            // Those that were ended leave their results behind.
            while self.tasks.try_join_next().is_some() {}
            tokio::select! {
                () = stopping.cancelled() => break,
                changed = roster.changed() => if changed.is_err() {
                    stopping.cancelled().await;
                    break;
                },
            }
        }
        self.tasks.shutdown().await;
    }

    /// Begins and ends conversations as the roster wants it.
    fn settle(&mut self, roster: &Roster) {
        self.known.retain(|slot, known| {
            let stays = roster.members.binary_search_by_key(slot, |member| member.slot).is_ok();
            if let Some(conversation) = known.conversation.as_ref().filter(|_| !stays) {
                conversation.task.abort();
            }
            stays
        });
        for member in &roster.members {
            let known = self
                .known
                .entry(member.slot)
                .or_insert_with(|| Known { given: member.spec.endpoint.is_some(), conversation: None });
            let target = Target::of(member, &self.config);
            if known.conversation.as_ref().map(|conversation| &conversation.target) == target.as_ref() {
                continue;
            }
            let before = known.conversation.take();
            if let Some(before) = &before {
                before.task.abort();
            }
            let Some(target) = target else { continue };
            // The same process goes on as it was known; another one has everything told about it anew.
            let same = before.filter(|before| before.target.incarnation == target.incarnation);
            let told = same.map_or_else(Arc::default, |before| before.told);
            let line = target.place(&self.config).map(Line::new);
            let standing = (Arc::clone(&told), self.board.entry(member.slot));
            let who = (member.slot, member.id.clone());
            let deed = if known.given { target.claim(member, &self.config).map(Deed::new) } else { None };
            let asking = Asking::new(who, &target, (line, known.given, deed), standing, self.means.clone());
            let task = self.tasks.spawn(asking.run());
            known.conversation = Some(Conversation { target, told, task });
        }
    }
}

#[cfg(test)]
mod tests;
