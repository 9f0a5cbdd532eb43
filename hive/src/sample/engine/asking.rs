//! The conversation with one worker's engine: when it is asked, and what is concluded from what it says or does not say.

use super::board::Entry;
use super::deed::Deed;
use super::detect::{Found, detect};
use super::line::{Line, Silence};
use super::llama_cpp::LlamaCpp;
use super::said::Said;
use super::sglang::Sglang;
use super::target::Target;
use super::tgi::Tgi;
use super::vllm::Vllm;
use super::{Answer, ollama};
use crate::roster::{Finding, Slot};
use common::WorkerId;
use proto::{Engine, EngineSampleState, Readiness};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::{info, warn};

/// One round of questions takes no longer; what was not answered by then is a time-out.
const ASK_WITHIN: Duration = Duration::from_millis(800);
/// Until it is ready for the first time it is asked this often, so that whoever waits for it waits no longer…
const FIRST_EVERY: Duration = Duration::from_millis(250);
/// …for this long: large models load long. After that at the usual pace.
const FIRST_FOR: Duration = Duration::from_secs(600);
/// After so many rounds without an answer in a row it is not ready any more, and one that hangs is asked less often.
const LOST_AFTER: u32 = 3;
/// How often one that hangs is asked.
const HUNG_EVERY: Duration = Duration::from_secs(5);
/// How often somebody knocks at a port that was given and behind which is no engine.
const KNOCK_EVERY: Duration = Duration::from_secs(5);
/// When a server that is no engine is looked at again; twice as long after each look…
const SEARCH_AGAIN: Duration = Duration::from_secs(60);
/// …up to this.
const SEARCH_AGAIN_MOST: Duration = Duration::from_secs(960);
/// When a server that cannot serve yet is looked at again.
const NOT_YET_AGAIN: Duration = Duration::from_secs(1);

/// What has been told to the rest of the hive, so that only news is.
#[derive(Debug, Default)]
pub struct Told {
    engine: Option<Engine>,
    model_names: Option<Vec<String>>,
    readiness: Option<Readiness>,
}

/// What all conversations share.
#[derive(Debug, Clone)]
pub struct Means {
    /// Where news goes.
    pub findings: mpsc::Sender<Finding>,
    /// How many may be asked at the same time.
    pub turns: Arc<Semaphore>,
    /// From one round to the next.
    pub period: Duration,
}

/// One conversation.
#[derive(Debug)]
pub struct Asking {
    slot: Slot,
    id: WorkerId,
    /// Its port was given, not found.
    given: bool,
    sealed: bool,
    line: Option<Line>,
    /// Its claim to the port that it was given.
    deed: Option<Deed>,
    /// What it is taken for until its port tells.
    guessed: (Engine, bool, bool),
    asker: Asker,
    told: Arc<Mutex<Told>>,
    entry: Entry,
    means: Means,
    begun: Instant,
    ready: bool,
    was_ready: bool,
    /// Rounds in a row that brought no answer.
    failed: u32,
    /// Those of them that ended by time.
    hung: u32,
    state: EngineSampleState,
}

/// How it is asked.
#[derive(Debug)]
enum Asker {
    /// Which engine it is, is not known; it is looked at when `due`.
    Unknown {
        due: Instant,
        wait: Duration,
    },
    LlamaCpp(Box<LlamaCpp>),
    Vllm(Vllm),
    Sglang(Sglang),
    Tgi(Tgi),
    Ollama,
}

impl Asker {
    fn of(engine: Engine, sleeps: bool, flags_known: bool) -> Self {
        match engine {
            Engine::LlamaCpp => Self::LlamaCpp(Box::new(LlamaCpp::new(sleeps, flags_known))),
            Engine::Vllm => Self::Vllm(Vllm::default()),
            Engine::Sglang => Self::Sglang(Sglang::default()),
            Engine::Tgi => Self::Tgi(Tgi::default()),
            Engine::Ollama => Self::Ollama,
            Engine::Unspecified => Self::Unknown { due: Instant::now(), wait: SEARCH_AGAIN },
        }
    }

    fn engine(&self) -> Engine {
        match self {
            Self::Unknown { .. } => Engine::Unspecified,
            Self::LlamaCpp(_) => Engine::LlamaCpp,
            Self::Vllm(_) => Engine::Vllm,
            Self::Sglang(_) => Engine::Sglang,
            Self::Tgi(_) => Engine::Tgi,
            Self::Ollama => Engine::Ollama,
        }
    }
}

/// How one round ended without an answer.
enum Failure {
    Silent(Silence),
    Hung,
}

impl Asking {
    /// A conversation that has not begun. `given`: its port was given at its start, not found, and `deed` says whether it
    /// may be believed.
    pub fn new(
        (slot, id): (Slot, WorkerId),
        target: &Target,
        (line, given, deed): (Option<Line>, bool, Option<Deed>),
        (told, entry): (Arc<Mutex<Told>>, Entry),
        means: Means,
    ) -> Self {
        let guessed = target
            .guess
            .map_or((Engine::Unspecified, false, false), |guess| (guess.engine, guess.sleeps, guess.direct));
        let ready = told.lock().unwrap_or_else(PoisonError::into_inner).readiness == Some(Readiness::Ready);
        Self {
            slot,
            id,
            given,
            sealed: target.sealed,
            line,
            deed,
            guessed,
            asker: Asker::of(guessed.0, guessed.1, guessed.2),
            told,
            entry,
            means,
            begun: Instant::now(),
            ready,
            was_ready: ready,
            failed: 0,
            hung: 0,
            state: EngineSampleState::Unspecified,
        }
    }

    /// Goes on until it is aborted, or nobody takes news any more.
    pub async fn run(mut self) {
        loop {
            let Some(turn) = Arc::clone(&self.means.turns).acquire_owned().await.ok() else { return };
            let (asked, begun) = (std::time::Instant::now(), Instant::now());
            let outcome = match timeout(ASK_WITHIN, self.round()).await {
                Ok(outcome) => outcome.map_err(Failure::Silent),
                Err(_) => Err(Failure::Hung),
            };
            drop(turn);
            self.line.iter_mut().for_each(Line::give_back);
            let outcome = self.endure(outcome);
            if let Some((answer, model_names)) = self.conclude(asked, outcome) {
                self.entry.post(answer);
                if self.tell(answer.readiness, model_names).await.is_err() {
                    return;
                }
            }
            sleep_until(self.next(begun)).await;
        }
    }

    /// One round of questions; `None` when nothing was due.
    async fn round(&mut self) -> Result<Option<Said>, Silence> {
        let Some(line) = &mut self.line else {
            return Ok(Some(Said::only(EngineSampleState::Unspecified, false)));
        };
        if let Some(deed) = &mut self.deed {
            if deed.is_due() {
                // Who listens matters as soon as somebody does.
                line.knock().await?;
                deed.look().await;
            }
            if let Some(pid) = deed.taken_by() {
                if self.state != EngineSampleState::Taken {
                    warn!(worker = %self.id, port = deed.port(), pid, "another process has its port");
                }
                self.asker = Asker::of(self.guessed.0, self.guessed.1, self.guessed.2);
                return Ok(Some(Said::only(EngineSampleState::Taken, false)));
            }
        }
        if self.sealed {
            line.knock().await?;
            return Ok(Some(Said::only(EngineSampleState::Unspecified, true)));
        }
        if let Asker::Unknown { due, wait } = &mut self.asker {
            if Instant::now() < *due {
                if !self.given && self.ready {
                    return Ok(None);
                }
                line.knock().await?;
                return Ok(Some(Said::only(self.state, true)));
            }
            match detect(line).await? {
                Found::Engine(engine) => self.asker = Asker::of(engine, false, false),
                Found::NotYet => {
                    *due = Instant::now() + NOT_YET_AGAIN;
                    return Ok(Some(Said::loading()));
                }
                Found::Nothing => {
                    search_later(due, wait);
                    return Ok(Some(Said::only(EngineSampleState::NoEngine, true)));
                }
            }
        }
        let said = match &mut self.asker {
            Asker::Unknown { .. } => return Ok(None),
            Asker::LlamaCpp(server) => server.ask(line, self.ready).await,
            Asker::Vllm(server) => server.ask(line).await,
            Asker::Sglang(server) => server.ask(line).await,
            Asker::Tgi(server) => server.ask(line).await,
            Asker::Ollama => ollama::ask(line).await,
        };
        said.map(Some)
    }

    /// A port that accepts and never says a word of HTTP belongs to no engine.
    fn endure(&mut self, outcome: Result<Option<Said>, Failure>) -> Result<Option<Said>, Failure> {
        let accepted = self.line.as_mut().is_some_and(Line::take_accepted);
        match (&mut self.asker, &outcome) {
            (Asker::Unknown { due, wait }, Err(Failure::Hung)) if accepted && self.hung + 1 >= LOST_AFTER => {
                search_later(due, wait);
                Ok(Some(Said::only(EngineSampleState::NoEngine, true)))
            }
            _ => outcome,
        }
    }

    /// What a round means; `None` when nothing was asked in it.
    fn conclude(
        &mut self,
        asked: std::time::Instant,
        outcome: Result<Option<Said>, Failure>,
    ) -> Option<(Answer, Option<Vec<String>>)> {
        let said = match outcome {
            Ok(None) => return None,
            Ok(Some(said)) => {
                self.hear(&said);
                said
            }
            Err(failure) => Said::only(self.miss(&failure), false),
        };
        self.state = said.state;
        let readiness = if self.ready { Readiness::Ready } else { Readiness::NotReady };
        let answer = Answer {
            asked,
            state: said.state,
            readiness,
            running: said.running,
            waiting: said.waiting,
            kv_cache_pct: said.kv_cache_pct,
            tokens_per_second: said.tokens_per_second,
        };
        Some((answer, said.model_names))
    }

    fn hear(&mut self, said: &Said) {
        self.hung = 0;
        if said.ready {
            (self.ready, self.was_ready, self.failed) = (true, true, 0);
        } else if said.state == EngineSampleState::Error {
            self.fail("an error");
        } else {
            (self.ready, self.failed) = (false, 0);
        }
    }

    fn miss(&mut self, failure: &Failure) -> EngineSampleState {
        match failure {
            Failure::Hung => {
                self.hung = self.hung.saturating_add(1);
                self.fail("nothing in time");
                EngineSampleState::Timeout
            }
            Failure::Silent(silence) => {
                self.hung = 0;
                self.fail(&silence.to_string());
                match silence {
                    Silence::Unreachable(_) => EngineSampleState::Unreachable,
                    Silence::Broken(_) | Silence::TooLong | Silence::Request(..) => EngineSampleState::Error,
                }
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        self.failed = self.failed.saturating_add(1);
        if self.ready && self.failed >= LOST_AFTER {
            warn!(worker = %self.id, reason, "not ready any more");
            self.ready = false;
        }
    }

    /// Tells what is news. Fails when nobody listens any more.
    async fn tell(
        &self,
        readiness: Readiness,
        model_names: Option<Vec<String>>,
    ) -> Result<(), mpsc::error::SendError<Finding>> {
        let finding = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let engine = Some(self.asker.engine()).filter(|engine| *engine != Engine::Unspecified);
            let news = Finding {
                slot: self.slot,
                engine: engine.filter(|engine| told.engine != Some(*engine)),
                model_names: model_names.filter(|names| told.model_names.as_ref() != Some(names)),
                readiness: Some(readiness).filter(|readiness| told.readiness != Some(*readiness)),
                ..Finding::default()
            };
            if news == (Finding { slot: self.slot, ..Finding::default() }) {
                return Ok(());
            }
            told.engine = engine.or(told.engine);
            told.readiness = Some(readiness);
            if news.model_names.is_some() {
                told.model_names.clone_from(&news.model_names);
            }
            news
        };
        if let Some(engine) = finding.engine {
            info!(worker = %self.id, engine = engine.as_str_name(), "engine found");
        }
        self.means.findings.send(finding).await
    }

    /// When the next round is due.
    fn next(&self, begun: Instant) -> Instant {
        let period = self.means.period;
        let every = match &self.asker {
            _ if !self.was_ready && begun < self.begun + FIRST_FOR => FIRST_EVERY.min(period),
            _ if self.hung >= LOST_AFTER => HUNG_EVERY.max(period),
            Asker::Unknown { due, .. } if self.failed == 0 && self.ready => {
                let knock = begun + KNOCK_EVERY.max(period);
                return if self.given || self.sealed { knock } else { *due };
            }
            _ => period,
        };
        (begun + every).max(Instant::now())
    }
}

fn search_later(due: &mut Instant, wait: &mut Duration) {
    *due = Instant::now() + *wait;
    *wait = (*wait * 2).min(SEARCH_AGAIN_MOST);
}
