//! `rbee restart WORKER…`: stops workers and starts them again with what they were started with.

use super::stop;
use crate::args::{Global, Output, Restart};
use crate::failure::Failure;
use crate::reach::{self, Reached};
use crate::show::{json, workers};
use crate::{connect, locate, terminal};
use std::time::{Duration, SystemTime};

/// Restarts them side by side; goes on when one fails.
pub async fn run(global: &Global, args: &Restart) -> Result<(), Failure> {
    stop::side_by_side(&args.workers, "restarted", |wish| {
        let (global, grace) = (global.clone(), args.grace);
        async move { restart(&global, grace, &wish).await }
    })
    .await
}

async fn restart(global: &Global, grace: Duration, wish: &str) -> Result<(), Failure> {
    let Reached { mut client, name, .. } = reach::worker(global, wish).await?;
    let request = proto::RestartWorkerRequest {
        name: name.clone(),
        grace: Some(common::duration(grace)),
        restarted_by: stop::user(),
    };
    let asking = client.restart_worker(request);
    let (what, look) = (format!("restart {name}"), "`rbee ps` tells since when it runs");
    let answer = connect::deed(stop::limit(global, grace), &what, look, asking).await;
    let answer = answer.map_err(locate::not_the_queen)?;
    let worker = answer.worker.clone().unwrap_or_default();
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "RestartWorkerResponse", &answer),
        Output::Name => terminal::put_line(&name),
        Output::Table | Output::Wide => terminal::put_line(&format!("{name}  {}", told(&worker))),
    }
}

/// What became of it, in a few words.
fn told(worker: &proto::Worker) -> String {
    let pid = worker.spec.as_ref().map_or(0, |spec| spec.pid);
    match pid {
        0 => format!("ended at once, {}", workers::state(worker, SystemTime::now()).text),
        pid => format!("started again as pid {pid}"),
    }
}
