//! `rbee up`: queen, hive and dashboard in one process, with demo workers if wanted.

use super::{agent, demo_fleet, queen, stop_signal};
use crate::args::{DEFAULT_QUEEN, Global, Up};
use crate::failure::{Failure, causes};
use crate::terminal;
use ::hive::worker::Life;
use common::WorkerId;
use common::link::TokenSource;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Demo workers have nothing to save.
const DEMO_GRACE: Duration = Duration::from_secs(3);
/// Who stopped them, for their story.
const STOPPED_BY: &str = "rbee up";

/// Runs everything until a signal ends it. Ends the demo workers; workers of people live on.
pub async fn run(global: &Global, args: Up) -> Result<(), Failure> {
    let stopping = stop_signal()?;
    let file = agent::file(&args.agent)?;
    let queen = queen::bind(&args.queen, &file.queen).await?;
    let url = queen::url(&queen);
    let mut config = agent::config(global, args.agent, file, Some(url.clone()))?;
    if let (Some(dir), TokenSource::None) = (queen.token_dir(), &config.access.token) {
        // The queen's own copy of the hive's token.
        config.access.token = TokenSource::File(dir.join(format!("hive.{}", config.id)));
    }
    let place = Place {
        hive: config.id.to_string(),
        slice: config.slice.clone(),
        lock: config.state_dir.join(format!("{}.lock", config.slice)),
        program: config.program.display().to_string(),
    };
    let halting = CancellationToken::new();
    let hive = ::hive::Hive::open(config, halting.clone())
        .await
        .map_err(|error| Failure::failed(&format!("failed to start a hive on slice {}", place.slice), &error))?;
    let life = hive.life().clone();

    let mut parts: JoinSet<Result<(), Failure>> = JoinSet::new();
    let queen_halting = halting.clone();
    parts.spawn(
        async move { queen.run(queen_halting).await.map_err(|error| Failure::failed("the queen ended", &error)) },
    );
    parts.spawn(async move { hive.run().await.map_err(|error| Failure::failed("the hive ended", &error)) });

    // A script reads the address from stdout; a person has it from the welcome.
    if global.quiet || !std::io::stdout().is_terminal() {
        terminal::put(format!("{url}/\n"))?;
    }
    let started = place.start_demo(&life, args.demo, &stopping).await;
    if !global.quiet {
        welcome(&url, started, args.demo);
    }
    if args.open {
        open_browser(&url);
    }
    let mut outcome = tokio::select! {
        () = stopping.cancelled() => Ok(()),
        ended = parts.join_next() => verdict(ended),
    };
    place.end_demo(&life).await;
    if !global.quiet {
        place.farewell(&life);
    }
    halting.cancel();
    while let Some(ended) = parts.join_next().await {
        outcome = outcome.and(verdict(Some(ended)));
    }
    outcome
}

fn verdict(ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    match ended {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(Failure::failed("a part of rbee broke down", &error)),
        None => Ok(()),
    }
}

/// Where this `up` works.
struct Place {
    hive: String,
    slice: String,
    lock: PathBuf,
    program: String,
}

impl Place {
    /// Starts the demo workers, or takes over those that an earlier `up` left. How many there are.
    async fn start_demo(&self, life: &Life, wanted: u32, stopping: &CancellationToken) -> u32 {
        let mut started = 0;
        for index in 0..wanted {
            if stopping.is_cancelled() {
                break;
            }
            match life.start(demo_fleet::request(index, &self.program, &self.lock)).await {
                Ok(_) => started += 1,
                Err(error) => {
                    let name = index + 1;
                    terminal::say(format_args!("rbee: failed to start demo worker {name}: {}", causes(&error)));
                }
            }
        }
        started
    }

    /// Ends every demo worker of this slice, whoever started it.
    async fn end_demo(&self, life: &Life) {
        let all = members(life);
        for (id, _) in all.iter().filter(|(id, spec)| demo_fleet::is_demo(id, spec)) {
            if let Err(error) = life.stop(id, DEMO_GRACE, STOPPED_BY).await {
                terminal::say(format_args!("rbee: failed to stop {}/{id}: {}", self.hive, causes(&error)));
            }
        }
    }

    /// Names the workers that keep running.
    fn farewell(&self, life: &Life) {
        let all = members(life);
        let own: Vec<String> = all
            .iter()
            .filter(|(id, spec)| !demo_fleet::is_demo(id, spec))
            .map(|(id, _)| format!("{}/{id}", self.hive))
            .collect();
        if !own.is_empty() {
            let slice = &self.slice;
            terminal::say(format_args!(
                "these workers keep running, and the next `rbee up` or `rbee hive` on {slice} has them again: {}",
                own.join(", ")
            ));
        }
    }
}

fn members(life: &Life) -> Vec<(WorkerId, proto::WorkerSpec)> {
    life.roster().borrow().members.iter().map(|member| (member.id.clone(), member.spec.clone())).collect()
}

fn welcome(url: &str, started: u32, wanted: u32) {
    terminal::say(format_args!("dashboard  {url}/"));
    if wanted > 0 {
        terminal::say(format_args!("demo       {started} workers in group {}", demo_fleet::GROUP));
    }
    if url != DEFAULT_QUEEN {
        terminal::say(format_args!("first      export RBEE_QUEEN={url}"));
    }
    terminal::say("next       rbee ps      rbee watch      rbee run --model M -- COMMAND");
    terminal::say("Ctrl-C ends it; workers that you start keep running");
}

/// Without a desktop this does nothing but say so.
fn open_browser(url: &str) {
    let mut opener = Command::new(if cfg!(target_os = "macos") { "open" } else { "xdg-open" });
    let silent = opener.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match silent.spawn() {
        // Waited for beside us: it leaves as soon as the browser has the address.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => terminal::say(format_args!("rbee: failed to open a browser: {error}; go to {url}/ yourself")),
    }
}
