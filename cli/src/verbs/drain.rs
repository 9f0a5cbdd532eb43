//! `rbee drain HIVE` and `rbee undrain HIVE`: whether a hive takes further starts and grants.

use super::stop;
use crate::args::{Drain, Global, Output};
use crate::failure::Failure;
use crate::show::json;
use crate::{connect, locate, reach, terminal};

/// Turns it and says how many workers are still there.
pub async fn run(global: &Global, args: &Drain, drain: bool) -> Result<(), Failure> {
    let mut hive = reach::hive(global, Some(&args.hive)).await?;
    let what = format!("{} {}", if drain { "drain" } else { "undrain" }, hive.id);
    let request = proto::DrainHiveRequest { hive: hive.id.clone(), drain, drained_by: stop::user() };
    let answer = connect::answer(global.timeout, &what, hive.client.drain_hive(request)).await;
    let answer = answer.map_err(locate::not_the_queen)?;
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "DrainHiveResponse", &answer),
        Output::Name => terminal::put_line(&hive.id),
        Output::Table | Output::Wide => terminal::put_line(&format!("{}  {}", hive.id, told(&answer, drain))),
    }
}

fn told(answer: &proto::DrainHiveResponse, drain: bool) -> String {
    let already = if answer.changed { "" } else { ", as before" };
    let workers = match answer.workers {
        0 => "no worker runs there".to_owned(),
        1 => "1 worker goes on".to_owned(),
        several => format!("{several} workers go on"),
    };
    if drain {
        format!("takes no further starts{already}; {workers}")
    } else {
        format!("takes starts again{already}; {workers}")
    }
}
