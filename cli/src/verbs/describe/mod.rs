//! `rbee describe WORKER|HIVE`: everything that is known about one of them.

mod hive;
mod worker;

use super::{hives, ps};
use crate::args::{Global, Output};
use crate::failure::Failure;
use crate::show::json;
use crate::{naming, terminal};
use std::time::SystemTime;

/// Prints it. A name that is a hive's means the hive.
pub async fn run(global: &Global, name: &str) -> Result<(), Failure> {
    let hives = hives::list(global).await?.hives;
    if let Some(hive) = hives.into_iter().find(|hive| hive.id == name) {
        return match global.output {
            Output::Json | Output::Jsonl => {
                json::print_next(global.output, "GetHiveResponse", &proto::GetHiveResponse { hive: Some(hive) })
            }
            Output::Name => terminal::put_line(&hive.id),
            Output::Table | Output::Wide => terminal::put(sheet(&hive::lines(&hive))),
        };
    }
    let fleet = ps::list(global, None).await?.workers;
    let worker = naming::unique(name, &fleet).map_err(|failure| match failure {
        Failure::Nothing(_) => Failure::Nothing(format!(
            "neither a worker nor a hive is called {name:?}; `rbee ps` and `rbee hives` list them"
        )),
        other => other,
    })?;
    match global.output {
        Output::Json | Output::Jsonl => {
            let answer = proto::GetWorkerResponse { worker: Some(worker.clone()) };
            json::print_next(global.output, "GetWorkerResponse", &answer)
        }
        Output::Name => terminal::put_line(&naming::full(worker)),
        Output::Table | Output::Wide => terminal::put(sheet(&worker::lines(worker, SystemTime::now()))),
    }
}

type Lines = Vec<(&'static str, String)>;

/// A name and a value on each line; what is not known is a dash.
fn sheet(lines: &Lines) -> String {
    let widest = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in lines {
        let clean = terminal::plain(value);
        let shown = if clean.is_empty() { "-" } else { &clean };
        out.push_str(&format!("{name:<widest$}  {shown}\n"));
    }
    out
}

fn pairs(map: &std::collections::HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(", ")
}

/// What is not known is told by an empty value.
fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_default()
}

/// "ENGINE_LLAMA_CPP" → "llama cpp": an enum's name without what all of its names begin with.
fn word(name: &str, prefix: &str) -> String {
    let bare = name.strip_prefix(prefix).unwrap_or(name);
    if bare == "UNSPECIFIED" { String::new() } else { bare.to_lowercase().replace('_', " ") }
}
