//! `rbee idle`: workers that are doing nothing.

use super::explain;
use crate::args::{Basis, Global, Idle};
use crate::connect;
use crate::failure::Failure;
use crate::show::workers;
use proto::explain_request::Question;

/// Lists them; nothing idle is exit code 3.
pub async fn run(global: &Global, args: &Idle) -> Result<(), Failure> {
    let options = proto::FindOptions {
        filter: Some(args.selection.filter(args.model.as_deref())),
        max_age: args.max_age.map(common::duration),
        min_idle: args.at_least.map(common::duration),
        limit: args.limit,
        ..Default::default()
    };
    let basis = match args.basis {
        Basis::Auto => proto::IdleBasis::Auto,
        Basis::Gpu => proto::IdleBasis::Gpu,
    };
    let request = proto::FindIdleWorkersRequest { options: Some(options), basis: basis.into() };
    if args.explain {
        let nothing = "no worker is idle".to_owned();
        return explain::run(global, Question::IdleWorkers(request), nothing).await;
    }
    let mut client = connect::scheduler(global).await?;
    let asking = client.find_idle_workers(request);
    let answer = connect::answer(global.timeout, "find idle workers", asking).await?;
    workers::print(global, "FindIdleWorkersResponse", &answer, &answer.workers)?;
    if answer.workers.is_empty() {
        return Err(Failure::Nothing(
            "no worker is idle; `rbee ps` shows what they are doing, --explain says why not".to_owned(),
        ));
    }
    Ok(())
}
