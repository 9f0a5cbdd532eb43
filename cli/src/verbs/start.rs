//! `rbee start TEMPLATE`: a worker from a template, on whatever hive has it.

use super::run::begin;
use super::templates;
use crate::args::{Global, Start};
use crate::failure::Failure;
use crate::reach::{self, ReachedHive};

/// So many hives are named when several have the template.
const NAMED_MAX: usize = 10;

/// Starts it and prints its name.
pub async fn run(global: &Global, args: Start) -> Result<(), Failure> {
    let hive = match &args.hive {
        Some(hive) => reach::hive(global, Some(hive)).await?,
        None => only(global, &args.template).await?,
    };
    let wait = args.wait.then_some(args.wait_timeout);
    let what = format!("start {} on hive {}", args.template, hive.id);
    let mut client = hive.client.clone();
    let request = request(args, hive.id);
    begin(global, wait, &what, client.start_worker(request)).await
}

/// The only hive that has a template; the one here when there is no queen to ask.
async fn only(global: &Global, template: &str) -> Result<ReachedHive, Failure> {
    let listed = match templates::everywhere(global).await {
        Err(unreachable @ Failure::Unreachable(_)) => {
            return reach::here(global, None).await.map_err(|_| unreachable);
        }
        listed => listed?,
    };
    let has = |listed: &&templates::Listed| listed.templates.iter().any(|known| known.name == template);
    let mut names: Vec<String> = listed.hives.iter().filter(has).map(|listed| listed.hive.clone()).collect();
    match names.as_slice() {
        [one] => reach::hive(global, Some(one)).await,
        [] => {
            let unheard = listed.unheard();
            Err(Failure::Nothing(format!(
                "no hive has a template called {template:?}{unheard}; `rbee templates` lists what there is"
            )))
        }
        several => {
            let more = several.len().saturating_sub(NAMED_MAX);
            names.truncate(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = names.join(", ");
            Err(Failure::Usage(format!("several hives have {template:?}, say which with --hive: {names}{more}")))
        }
    }
}

fn request(args: Start, hive: String) -> proto::StartWorkerRequest {
    proto::StartWorkerRequest {
        hive,
        template: args.template,
        parameters: args.parameters.into_iter().collect(),
        group: args.group,
        instance: args.name.unwrap_or_default(),
        labels: args.labels.into_iter().collect(),
        reservation: args.reservation.unwrap_or_default(),
        wait: args.wait,
        wait_timeout: args.wait.then(|| common::duration(args.wait_timeout)),
        ..Default::default()
    }
}
