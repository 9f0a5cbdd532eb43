//! `rbee stop WORKER…`: the polite signal, the grace, then the end of the whole tree.

use crate::args::{Global, Output, Stop};
use crate::failure::Failure;
use crate::reach::{self, Reached};
use crate::show::json;
use crate::verbs::{HiveClient, events};
use crate::{connect, locate, terminal};
use std::time::Duration;
use tokio::task::JoinSet;

/// So many are asked to end at once; each may take its whole grace.
const AT_ONCE: usize = 32;
/// The hive itself gives a kill 10 s, and GPU memory as long to be released.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops them side by side; goes on when one fails.
pub async fn run(global: &Global, args: &Stop) -> Result<(), Failure> {
    side_by_side(&args.workers, "stopped", |wish| {
        let (global, grace) = (global.clone(), args.grace);
        async move { stop(&global, grace, &wish).await }
    })
    .await
}

/// Does the same to several workers, goes on when one fails, and says how many did. `done` is what became of the others.
pub async fn side_by_side<F>(workers: &[String], done: &str, act: impl Fn(String) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let mut failures = Vec::new();
    let mut waiting = workers.iter().cloned();
    let mut acts = JoinSet::new();
    loop {
        for wish in waiting.by_ref().take(AT_ONCE.saturating_sub(acts.len())) {
            acts.spawn(act(wish));
        }
        match acts.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(failure))) => failures.push(failure),
            Some(Err(error)) => failures.push(Failure::failed("a part of it broke down", &error)),
            None => break,
        }
    }
    let (failed, all) = (failures.len(), workers.len());
    if failed == 0 {
        return Ok(());
    }
    if all == 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    failures.iter().for_each(terminal::complain);
    Err(Failure::Partly(format!("{failed} of {all} were not {done}")))
}

/// How long an end may take: the grace is the worker's, then its hive is patient, and the time-out is ours.
pub fn limit(global: &Global, grace: Duration) -> Duration {
    grace.saturating_add(PATIENCE).saturating_add(global.timeout)
}

/// Whoever types this, for the worker's story.
pub fn user() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name)
}

async fn stop(global: &Global, grace: Duration, wish: &str) -> Result<(), Failure> {
    let Reached { client, name, .. } = reach::worker(global, wish).await?;
    let answer = ask(client, global, grace, &name).await?;
    let Some(exit) = &answer.exit else {
        return Err(Failure::Nothing(format!("no worker called {name} was running; `rbee ps` lists them")));
    };
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "StopWorkerResponse", &answer),
        Output::Name => terminal::put_line(&name),
        Output::Table | Output::Wide => terminal::put_line(&format!("{name}  {}", events::cause(exit))),
    }
}

async fn ask(
    mut client: HiveClient,
    global: &Global,
    grace: Duration,
    name: &str,
) -> Result<proto::StopWorkerResponse, Failure> {
    let request =
        proto::StopWorkerRequest { name: name.to_owned(), grace: Some(common::duration(grace)), stopped_by: user() };
    let asking = client.stop_worker(request);
    let (what, look) = (format!("stop {name}"), "`rbee ps` tells whether it still runs");
    connect::deed(limit(global, grace), &what, look, asking).await.map_err(locate::not_the_queen)
}
