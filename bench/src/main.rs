//! `cargo run --release -p bench`: one table of rbee beside its peers, each in a process of its own, all in one run. Exits
//! with 1 when one of the document's own targets is missed.

mod child;
mod drive;
mod fleet;
mod measure;
mod queries;
mod serve;
mod table;

use std::process::ExitCode;
use std::time::Duration;
use table::Table;

/// Contract of the plain peer.
#[allow(missing_docs, clippy::all)]
mod plain {
    tonic::include_proto!("plain");
}

/// How long and how often things are measured.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// One measurement.
    pub window: Duration,
    /// Measurements of each peer; their median counts.
    pub runs: usize,
    /// Hives of the fleet whose memory is measured.
    pub hives: u32,
}

const LONG: Pace = Pace { window: Duration::from_secs(3), runs: 5, hives: 10_000 };
const SHORT: Pace = Pace { window: Duration::from_millis(800), runs: 5, hives: 1_000 };

const USAGE: &str = "usage: bench [--short] [--json FILE] [--only PART]…
       bench load PEER HIVES EVERY_MS WATCHERS CLASS_MS SECONDS   one load on one peer, for a profiler
  parts: bytes ingest paced fanout classes queries latency scale
  peers: sse-each sse-once plain nats bare ours";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match words.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve::run(words.get(1).map_or("", String::as_str))),
        Some("load") => return runtime.block_on(load(&words[1..])),
        Some("simulate") => runtime.block_on(measure::scale::simulate(&words[1..])),
        _ => return runtime.block_on(compare(&words)),
    }
    ExitCode::SUCCESS
}

/// One load on one peer, whose process is named, and what it costs.
async fn load(words: &[String]) -> ExitCode {
    let numbers: Option<Vec<u32>> = words.iter().skip(1).map(|word| word.parse().ok()).collect();
    let peer = words.first().and_then(|name| drive::Peer::of(name));
    let (Some(peer), Some(&[hives, every, watchers, class, seconds])) = (peer, numbers.as_deref()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    child::raise_open_files();
    let millis = |number: u32| Duration::from_millis(number.into());
    let every = (every > 0).then(|| millis(every));
    let shape = drive::Shape { hives, workers: fleet::WORKERS, every, watchers, class: millis(class) };
    measure::load(peer, shape, Duration::from_secs(seconds.into())).await;
    ExitCode::SUCCESS
}

async fn compare(words: &[String]) -> ExitCode {
    let (mut pace, mut json, mut only) = (LONG, None, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), word.as_str()) {
            ("--short", _) => pace = SHORT,
            ("--json", _) => json = words.next().cloned(),
            ("--only", _) => only.extend(words.next().cloned()),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    child::raise_open_files();
    let wanted = |part: &str| only.is_empty() || only.iter().any(|word| word == part);
    let mut table = Table::default();
    if wanted("bytes") {
        measure::bytes::run(&mut table);
    }
    if wanted("ingest") {
        measure::ingest::flat_out(pace, &mut table).await;
    }
    if wanted("paced") {
        measure::ingest::paced(pace, &mut table).await;
    }
    if wanted("fanout") {
        measure::fanout::immediate(pace, &mut table).await;
    }
    if wanted("classes") {
        measure::fanout::classes(pace, &mut table).await;
    }
    if wanted("queries") {
        measure::queries::run(pace, &mut table);
    }
    if wanted("latency") {
        measure::latency::run(pace, &mut table).await;
    }
    if wanted("scale") {
        measure::scale::run(pace, &mut table).await;
    }
    table.print();
    if let Some(file) = json {
        table.write(&file);
    }
    if table.document_missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
