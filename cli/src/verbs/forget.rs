//! `rbee forget HIVE`: a hive that is gone for good leaves the queen at once, with its workers.

use crate::args::{Forget, Global, Output};
use crate::connect;
use crate::failure::Failure;
use crate::show::json;
use crate::terminal;

/// Forgets it. One that is heard from is refused.
pub async fn run(global: &Global, args: &Forget) -> Result<(), Failure> {
    let mut client = connect::fleet(global).await?;
    let request = proto::ForgetHiveRequest { id: args.hive.clone() };
    let what = format!("forget the hive {}", args.hive);
    let answer = connect::answer(global.timeout, &what, client.forget_hive(request)).await?;
    match global.output {
        Output::Json => json::print("ForgetHiveResponse", &answer),
        Output::Jsonl => json::print_line("ForgetHiveResponse", &answer),
        Output::Name => terminal::put(format!("{}\n", args.hive)),
        Output::Table | Output::Wide => {
            if !global.quiet {
                let many = if answer.workers == 1 { "worker" } else { "workers" };
                terminal::say(format!("{} is forgotten, with {} {many}", args.hive, answer.workers));
            }
            Ok(())
        }
    }
}
