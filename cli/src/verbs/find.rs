//! `rbee find`: workers that have a model, GPUs with room, or workers with room.

use super::{explain, gpus};
use crate::args::{Find, Global, Match, Output};
use crate::connect;
use crate::failure::Failure;
use crate::show::table::{Cell, Column, layout};
use crate::show::{json, units, workers};
use crate::terminal;
use proto::explain_request::Question;

const COLUMNS: [Column; 8] = [
    Column::text("HIVE", 0),
    Column::text("NAME", 2),
    Column::number("FREE", 0),
    Column::number("USED", 1),
    Column::number("HELD", 1),
    Column::number("TOTAL", 0),
    Column::text("FOREIGN", 3),
    Column::text("UUID", 0),
];

/// Lists them; nothing found is exit code 3.
pub async fn run(global: &Global, args: &Find) -> Result<(), Failure> {
    let question = question(args);
    let nothing = nothing(args, &question);
    if args.explain {
        return explain::run(global, question, nothing).await;
    }
    let mut client = connect::scheduler(global).await?;
    let found = match question {
        Question::Capacity(request) => {
            let asking = client.find_capacity(request);
            let answer = connect::answer(global.timeout, "find GPUs with room", asking).await?;
            print_gpus(global, &answer)?;
            answer.gpus.len()
        }
        Question::WorkersWithCapacity(request) => {
            let asking = client.find_workers_with_capacity(request);
            let answer = connect::answer(global.timeout, "find workers with room", asking).await?;
            workers::print(global, "FindWorkersWithCapacityResponse", &answer, &answer.workers)?;
            answer.workers.len()
        }
        Question::WorkersWithModel(request) => {
            let asking = client.find_workers_with_model(request);
            let answer = connect::answer(global.timeout, "find workers with a model", asking).await?;
            workers::print(global, "FindWorkersWithModelResponse", &answer, &answer.workers)?;
            answer.workers.len()
        }
        Question::IdleWorkers(_) => 0,
    };
    if found == 0 { Err(Failure::Nothing(nothing)) } else { Ok(()) }
}

/// Room is looked for on GPUs, unless something is asked of workers too.
fn question(args: &Find) -> Question {
    let options = |model| {
        Some(proto::FindOptions {
            filter: Some(args.selection.filter(model)),
            max_age: args.max_age.map(common::duration),
            limit: args.limit,
            ..Default::default()
        })
    };
    let (headroom_bytes, idle, model) = (args.headroom, args.idle, args.model.as_deref());
    match (args.vram, model) {
        (None, model) => {
            let how = match args.how {
                Match::Exact => proto::ModelMatch::Exact,
                Match::IgnoreCase => proto::ModelMatch::IgnoreCase,
                Match::Glob => proto::ModelMatch::Glob,
            };
            let (options, model) = (options(None), model.unwrap_or_default().to_owned());
            Question::WorkersWithModel(proto::FindWorkersWithModelRequest { options, model, r#match: how.into(), idle })
        }
        (Some(required_vram_bytes), None) if !idle && args.selection.group.is_none() => {
            let (options, fit) = (options(None), proto::Fit::Best.into());
            Question::Capacity(proto::FindCapacityRequest { options, required_vram_bytes, headroom_bytes, fit })
        }
        (Some(required_vram_bytes), model) => {
            let options = options(model);
            let request = proto::FindWorkersWithCapacityRequest { options, required_vram_bytes, headroom_bytes, idle };
            Question::WorkersWithCapacity(request)
        }
    }
}

/// What is said when there is nothing.
fn nothing(args: &Find, question: &Question) -> String {
    let who = if args.idle { "no idle worker" } else { "no worker" };
    let why = if args.explain { "" } else { ", --explain says why not" };
    let model = args.model.as_ref().map(|model| format!("has the model {model:?}"));
    let room = args.vram.map(|bytes| format!("has {} free on one GPU", units::size(bytes)));
    match (question, model, room) {
        (Question::Capacity(_), _, _) => {
            format!("no GPU has {} free; `rbee gpus` shows them{why}", units::size(args.vram.unwrap_or_default()))
        }
        (_, Some(model), Some(room)) => format!("{who} {model} and {room}; `rbee ps` shows them{why}"),
        (_, Some(model), None) => format!("{who} {model}; `rbee models` lists them{why}"),
        (_, None, room) => format!("{who} {}; `rbee gpus` shows what GPUs there are{why}", room.unwrap_or_default()),
    }
}

fn print_gpus(global: &Global, answer: &proto::FindCapacityResponse) -> Result<(), Failure> {
    let uuid = |found: &proto::GpuCapacity| found.gpu.as_ref().map(|gpu| gpu.uuid.clone()).unwrap_or_default();
    match global.output {
        Output::Json => json::print("FindCapacityResponse", answer),
        Output::Jsonl => answer.gpus.iter().try_for_each(|gpu| json::print_line("GpuCapacity", gpu)),
        Output::Name => {
            answer.gpus.iter().try_for_each(|found| terminal::put_line(&format!("{}/{}", found.hive, uuid(found))))
        }
        Output::Table | Output::Wide => {
            let rows: Vec<Vec<Cell>> = answer.gpus.iter().map(row).collect();
            let width = if global.output == Output::Wide { None } else { terminal::width() };
            terminal::put(layout(&COLUMNS, &rows, width, terminal::colourful(global.color)))
        }
    }
}

fn row(found: &proto::GpuCapacity) -> Vec<Cell> {
    let gpu = found.gpu.clone().unwrap_or_default();
    let used = gpu.memory_used_bytes.map(|used| used.max(gpu.observed_bytes.unwrap_or(0)));
    let foreign: Vec<String> = gpu.foreign.iter().map(gpus::stranger).collect();
    vec![
        Cell::plain(&found.hive),
        Cell::known(Some(gpu.name)),
        Cell::plain(units::size(found.free_bytes)),
        Cell::known(used.map(units::size)),
        Cell::plain(units::size(gpu.held_bytes)),
        Cell::known(gpu.memory_total_bytes.map(units::size)),
        Cell::known(Some(foreign.join(", "))),
        Cell::plain(gpu.uuid),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Verb, parse};

    fn asked(words: &[&str]) -> (Question, String) {
        let line = ["rbee", "find"].iter().chain(words).map(Into::into);
        let Verb::Find(args) = parse(line).unwrap().verb else { panic!("not find") };
        let question = question(&args);
        let nothing = nothing(&args, &question);
        (question, nothing)
    }

    #[test]
    fn room_alone_is_a_question_about_gpus_and_with_more_about_workers() {
        let (question, nothing) = asked(&["--vram", "8G", "--headroom", "1G"]);
        assert!(matches!(question, Question::Capacity(asked) if asked.headroom_bytes == 1 << 30));
        assert_eq!(nothing, "no GPU has 8.0G free; `rbee gpus` shows them, --explain says why not");
        for more in [&["--idle"][..], &["--model", "m"], &["--group", "llm"]] {
            let words: Vec<&str> = ["--vram", "8G"].iter().chain(more).copied().collect();
            assert!(matches!(asked(&words).0, Question::WorkersWithCapacity(_)), "{words:?}");
        }
        let (question, nothing) = asked(&["--model", "m", "--idle", "--explain"]);
        assert!(matches!(question, Question::WorkersWithModel(asked) if asked.idle && asked.model == "m"));
        assert_eq!(nothing, "no idle worker has the model \"m\"; `rbee models` lists them");
    }

    #[test]
    fn a_gpu_with_room_shows_whose_the_rest_is() {
        let gpu = proto::Gpu {
            uuid: "GPU-1".into(),
            memory_total_bytes: Some(24 << 30),
            memory_used_bytes: Some(4 << 30),
            observed_bytes: Some(6 << 30),
            held_bytes: 2 << 30,
            ..Default::default()
        };
        let found = proto::GpuCapacity { hive: "box".into(), gpu: Some(gpu), free_bytes: 16 << 30, age: None };
        let texts: Vec<String> = row(&found).into_iter().map(|cell| cell.text).collect();
        assert_eq!(texts, ["box", "-", "16.0G", "6.0G", "2.0G", "24.0G", "-", "GPU-1"]);
        assert_eq!(texts.len(), COLUMNS.len());
    }
}
