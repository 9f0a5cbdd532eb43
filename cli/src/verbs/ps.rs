//! `rbee ps`: workers and what they are doing, once or again and again.

use crate::args::{Global, Output, Ps};
use crate::failure::Failure;
use crate::follow::{Follow, View};
use crate::show::{json, workers};
use crate::{connect, naming, terminal};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Workers in one answer; the queen is asked again for the next.
const PAGE: i32 = 1_000;
/// A screen is not printed more often than this.
const REPRINT: Duration = Duration::from_secs(1);

/// Lists them.
pub async fn run(global: &Global, args: &Ps) -> Result<(), Failure> {
    let filter = args.selection.filter(args.model.as_deref());
    if args.watch {
        return keep_printing(global, args, filter).await;
    }
    let filtered = filter != proto::Filter::default();
    let mut answer = list(global, Some(filter)).await?;
    choose(args, &mut answer.workers);
    workers::print(global, "ListWorkersResponse", &answer, &answer.workers)?;
    if !answer.workers.is_empty() {
        return Ok(());
    }
    if !args.workers.is_empty() {
        return Err(Failure::Nothing(format!("no worker is called {}", args.workers.join(" or "))));
    }
    if filtered {
        return Err(Failure::Nothing("no worker fits; `rbee ps` lists them all".to_owned()));
    }
    if !global.quiet {
        terminal::say("no workers; start one with `rbee run -- COMMAND`, or see some with `rbee up --demo 3`");
    }
    Ok(())
}

/// All workers that match, in one answer.
pub async fn list(global: &Global, filter: Option<proto::Filter>) -> Result<proto::ListWorkersResponse, Failure> {
    let mut client = connect::fleet(global).await?;
    let mut whole = proto::ListWorkersResponse::default();
    loop {
        let page_token = std::mem::take(&mut whole.next_page_token);
        let request = proto::ListWorkersRequest { filter: filter.clone(), page_size: PAGE, page_token };
        let page = connect::answer(global.timeout, "list workers", client.list_workers(request)).await?;
        let last = page.next_page_token.is_empty() || page.workers.is_empty();
        whole.workers.extend(page.workers);
        whole.revision = page.revision;
        whole.coverage = page.coverage;
        if last {
            return Ok(whole);
        }
        whole.next_page_token = page.next_page_token;
    }
}

fn choose(args: &Ps, list: &mut Vec<proto::Worker>) {
    let wanted = |worker: &proto::Worker| {
        args.workers.is_empty() || args.workers.iter().any(|wish| naming::fits(wish, &naming::full(worker)))
    };
    list.retain(wanted);
    workers::sort(list, args.sort);
}

async fn keep_printing(global: &Global, args: &Ps, filter: proto::Filter) -> Result<(), Failure> {
    let request = proto::WatchRequest {
        filter: Some(filter),
        min_interval: Some(common::duration(REPRINT)),
        ..Default::default()
    };
    let mut follow = Follow::open(global, request).await?;
    let mut view = View::default();
    // A terminal shows one screen, a file gets one table after another.
    let (before, after) = if std::io::stdout().is_terminal() { ("\x1b[H\x1b[2J", "") } else { ("", "\n") };
    loop {
        let message = follow.next().await?;
        if matches!(global.output, Output::Json | Output::Jsonl) {
            json::print_next(global.output, "WatchResponse", &message)?;
            continue;
        }
        let now = Instant::now();
        if !view.apply(now, &message) {
            continue;
        }
        let mut shown = view.workers(now);
        choose(args, &mut shown);
        let text = if global.output == Output::Name {
            shown.iter().map(|worker| terminal::plain(&naming::full(worker)) + "\n").collect()
        } else {
            workers::table(global, &shown)
        };
        terminal::put(format!("{before}{text}{after}"))?;
    }
}
