//! `rbee find`: workers that have a model, or room on a GPU.

use crate::args::{Find, Global, Match};
use crate::connect;
use crate::failure::Failure;
use crate::show::{units, workers};

/// Lists them; nothing found is exit code 3.
pub async fn run(global: &Global, args: &Find) -> Result<(), Failure> {
    let options = Some(proto::FindOptions {
        filter: Some(args.selection.filter(None)),
        max_age: args.max_age.map(common::duration),
        limit: args.limit,
        ..Default::default()
    });
    let mut client = connect::scheduler(global).await?;
    if let Some(model) = &args.model {
        let how = match args.how {
            Match::Exact => proto::ModelMatch::Exact,
            Match::IgnoreCase => proto::ModelMatch::IgnoreCase,
            Match::Glob => proto::ModelMatch::Glob,
        };
        let request =
            proto::FindWorkersWithModelRequest { options, model: model.clone(), r#match: how.into(), idle: args.idle };
        let asking = client.find_workers_with_model(request);
        let answer = connect::answer(global.timeout, "find workers with a model", asking).await?;
        workers::print(global, "FindWorkersWithModelResponse", &answer, &answer.workers)?;
        return found(&answer.workers, args, &format!("has the model {model:?}; `rbee models` lists them"));
    }
    let required_vram_bytes = args.vram.unwrap_or_default();
    let request = proto::FindWorkersWithCapacityRequest {
        options,
        required_vram_bytes,
        headroom_bytes: args.headroom,
        idle: args.idle,
    };
    let asking = client.find_workers_with_capacity(request);
    let answer = connect::answer(global.timeout, "find workers with room", asking).await?;
    workers::print(global, "FindWorkersWithCapacityResponse", &answer, &answer.workers)?;
    let room = units::size(required_vram_bytes);
    found(&answer.workers, args, &format!("has {room} free on one GPU; `rbee hives` shows what GPUs there are"))
}

fn found(workers: &[proto::Worker], args: &Find, wanted: &str) -> Result<(), Failure> {
    if !workers.is_empty() {
        return Ok(());
    }
    let who = if args.idle { "no idle worker" } else { "no worker" };
    Err(Failure::Nothing(format!("{who} {wanted}")))
}
