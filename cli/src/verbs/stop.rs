//! `rbee stop WORKER…`: the polite signal, the grace, then the end of the whole tree.

use crate::args::{Global, Output, Stop};
use crate::failure::Failure;
use crate::show::json;
use crate::verbs::{HiveClient, events};
use crate::{connect, locate, naming, terminal};
use common::WorkerId;

/// Stops them one after another; goes on when one fails.
pub async fn run(global: &Global, args: &Stop) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for wish in &args.workers {
        if let Err(failure) = stop(global, args, wish).await {
            failures.push(failure);
        }
    }
    let (failed, all) = (failures.len(), args.workers.len());
    if failed == 0 {
        return Ok(());
    }
    if all == 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    failures.iter().for_each(terminal::complain);
    Err(Failure::Partly(format!("{failed} of {all} were not stopped")))
}

async fn stop(global: &Global, args: &Stop, wish: &str) -> Result<(), Failure> {
    let (_, client, workers) = locate::hive_with_workers(global, Some(wish)).await?;
    let name = match naming::unique(wish, &workers) {
        Ok(worker) => naming::full(worker),
        // One that is on its way in or out may be in no list; the hive knows.
        Err(Failure::Nothing(words)) if WorkerId::parse(wish).is_err() => return Err(Failure::Nothing(words)),
        Err(Failure::Nothing(_)) => wish.to_owned(),
        Err(other) => return Err(other),
    };
    let answer = ask(client, global, args, &name).await?;
    let Some(exit) = &answer.exit else {
        return Err(Failure::Nothing(format!("no worker called {name} was running here; `rbee ps` lists them")));
    };
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "StopWorkerResponse", &answer),
        Output::Name => terminal::put(format!("{name}\n")),
        Output::Table | Output::Wide => terminal::put(format!("{name}  {}\n", events::cause(exit))),
    }
}

async fn ask(
    mut client: HiveClient,
    global: &Global,
    args: &Stop,
    name: &str,
) -> Result<proto::StopWorkerResponse, Failure> {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
    let request =
        proto::StopWorkerRequest { name: name.to_owned(), grace: Some(common::duration(args.grace)), stopped_by: user };
    // The grace is the worker's, the time-out ours.
    let limit = args.grace.saturating_add(global.timeout);
    let asking = client.stop_worker(request);
    connect::answer(limit, &format!("stop {name}"), asking).await.map_err(locate::not_the_queen)
}
