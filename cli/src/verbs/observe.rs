//! `rbee observe`: looks at an engine that runs already, or looks away again.

use super::run::parse_endpoint;
use crate::args::{Global, Observe, Output};
use crate::failure::Failure;
use crate::show::json;
use crate::{connect, locate, naming, terminal};
use common::WorkerId;

/// Asks the hive here and prints the worker's name.
pub async fn run(global: &Global, args: Observe) -> Result<(), Failure> {
    match args.end.clone() {
        Some(wish) => end(global, &wish).await,
        None => begin(global, args).await,
    }
}

async fn begin(global: &Global, args: Observe) -> Result<(), Failure> {
    let socket = locate::socket(global, args.hive.as_deref()).await?;
    let request = request(args)?;
    let what = format!("observe {:?}", request.target);
    let mut client = connect::hive(&socket).await?;
    let answer = connect::answer(global.timeout, &what, client.observe_worker(request)).await;
    let answer = answer.map_err(locate::not_the_queen)?;
    let name = answer.worker.as_ref().map(naming::full);
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "ObserveWorkerResponse", &answer),
        Output::Name => name.map_or(Ok(()), |name| terminal::put_line(&name)),
        Output::Table | Output::Wide => {
            if let Some(name) = &name {
                terminal::put_line(name)?;
            }
            if !global.quiet {
                let when =
                    if name.is_some() { "" } else { ", which does not run now: it is looked at as soon as it does" };
                terminal::say(format_args!("observing {}{when}", answer.observed));
            }
            Ok(())
        }
    }
}

fn request(args: Observe) -> Result<proto::ObserveWorkerRequest, Failure> {
    let port = args.port.map(|port| proto::Endpoint { port: u32::from(port), ..Default::default() });
    let endpoint = args.endpoint.as_deref().map(parse_endpoint).transpose()?;
    Ok(proto::ObserveWorkerRequest {
        target: args.target.unwrap_or_default(),
        group: args.group.unwrap_or_default(),
        instance: args.name.unwrap_or_default(),
        model: args.model,
        endpoint: endpoint.or(port),
        labels: args.labels.into_iter().collect(),
        probe: proto::Probe::from(args.probe).into(),
    })
}

async fn end(global: &Global, wish: &str) -> Result<(), Failure> {
    let (mut client, workers) = locate::hive_with_workers(global, Some(wish)).await?;
    let name = match naming::unique(wish, &workers) {
        Ok(worker) => naming::full(worker),
        // One that does not run now is in no list; the hive knows.
        Err(Failure::Nothing(_)) if WorkerId::parse(wish).is_ok() => wish.to_owned(),
        Err(other) => return Err(other),
    };
    let asking = client.unobserve_worker(proto::UnobserveWorkerRequest { name: name.clone() });
    let answer = connect::answer(global.timeout, &format!("look away from {name}"), asking).await;
    let answer = answer.map_err(locate::not_the_queen)?;
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "UnobserveWorkerResponse", &answer),
        Output::Name => terminal::put_line(&name),
        Output::Table | Output::Wide => terminal::put_line(&format!("{name}  no longer observed; it goes on")),
    }
}
