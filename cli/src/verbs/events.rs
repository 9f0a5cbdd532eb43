//! `rbee events`: how workers started and ended, on the hive here or on any other.

mod several;

use crate::args::{Events, Global, Output};
use crate::failure::Failure;
use crate::follow::{self, goes_on};
use crate::reach::{self, ReachedHive};
use crate::show::{json, units};
use crate::{connect, locate, naming, terminal};
use std::time::SystemTime;

/// Prints what is known, and with `-f` what comes; then also over restarts of the hive.
pub async fn run(global: &Global, args: &Events) -> Result<(), Failure> {
    let mut named: Vec<&str> = args.workers.iter().filter_map(|name| locate::hive_of(name)).collect();
    named.sort_unstable();
    named.dedup();
    let whole = named.len() == 1 && args.workers.iter().all(|name| locate::hive_of(name).is_some());
    match (&args.hive, named.as_slice()) {
        (Some(hive), _) => one(global, args, reach::hive(global, Some(hive)).await?).await,
        (None, [hive]) if whole => one(global, args, reach::hive(global, Some(hive)).await?).await,
        (None, _) => match reach::here(global, None).await {
            Ok(here) => one(global, args, here).await,
            Err(Failure::Usage(words)) => Err(Failure::Usage(words)),
            Err(nobody_here) => match reach::heard(global).await {
                Ok(hives) => several::run(global, args, hives).await,
                Err(_) => Err(nobody_here),
            },
        },
    }
}

/// Of one hive.
async fn one(global: &Global, args: &Events, hive: ReachedHive) -> Result<(), Failure> {
    let ReachedHive { mut client, id, way } = hive;
    let mut request = proto::StreamEventsRequest { follow: args.follow, hive: id, ..Default::default() };
    let (mut named, mut opened) = (false, false);
    loop {
        let ended = match connect::in_time(global.timeout, client.stream_events(request.clone())).await {
            Ok(stream) => {
                opened = true;
                let take = |response| {
                    go_on_after(&mut request, &response);
                    show(global, args, &response).map(|shown| named |= shown)
                };
                follow::each(stream, take).await?
            }
            Err(status) => Err(status),
        };
        match ended {
            Ok(()) if !args.follow && (named || args.workers.is_empty()) => return Ok(()),
            Ok(()) if !args.follow => return Err(nobody(args)),
            Err(status) if !args.follow || !goes_on(&status, opened) => {
                return Err(locate::not_the_queen(connect::refused("read events", &status)));
            }
            // Events have no end: a follower whose stream ends lost its hive.
            Ok(()) | Err(_) => client = way.again(global).await,
        }
    }
}

/// Where to go on should the stream end.
fn go_on_after(request: &mut proto::StreamEventsRequest, response: &proto::StreamEventsResponse) {
    request.journal_id.clone_from(&response.journal_id);
    request.after = response.event.as_ref().map_or(request.after, |event| event.number);
}

/// Names that nothing is told of.
fn nobody(args: &Events) -> Failure {
    let names = args.workers.join(", ");
    Failure::Nothing(format!("nothing is told of {names:?}; `rbee events` tells of everybody"))
}

/// Prints an event if it is wanted; whether it is about a name that was asked for.
fn show(global: &Global, args: &Events, response: &proto::StreamEventsResponse) -> Result<bool, Failure> {
    let Some(event) = &response.event else { return Ok(false) };
    let name = subject(event);
    let gap = event.kind() == proto::LifeEventKind::Gap;
    let named = args.workers.is_empty() || args.workers.iter().any(|wish| naming::fits(wish, &name));
    if !gap && !named {
        return Ok(false);
    }
    let at = event.time.as_ref().and_then(common::from_timestamp);
    let age = at.and_then(|at| SystemTime::now().duration_since(at).ok());
    if args.since.is_some_and(|since| age.is_some_and(|age| age > since)) {
        return Ok(named);
    }
    match global.output {
        Output::Json | Output::Jsonl => json::print_next(global.output, "StreamEventsResponse", response),
        Output::Name => terminal::put_line(&name),
        Output::Table | Output::Wide => terminal::put(line(event, &name)),
    }?;
    Ok(named)
}

/// What an event is about: a worker, else a GPU of the hive, else the hive itself.
fn subject(event: &proto::LifeEvent) -> String {
    match (event.group.as_str(), event.gpu_uuid.as_str()) {
        ("", "") => event.hive.clone(),
        ("", gpu) => format!("{}/{gpu}", event.hive),
        (group, _) => format!("{}/{group}/{}", event.hive, event.instance),
    }
}

fn line(event: &proto::LifeEvent, name: &str) -> String {
    let at = event.time.as_ref().map_or_else(|| "-".to_owned(), units::instant);
    let kind = kind(event.kind());
    let mut words = event.message.clone();
    if words.is_empty() {
        words = event.exit.as_ref().map(cause).unwrap_or_default();
    }
    let pid = if event.pid == 0 { String::new() } else { format!("  pid {}", event.pid) };
    terminal::plain(&format!("{at}  {kind:<12}  {name}{pid}  {words}")) + "\n"
}

/// In a word or two.
fn kind(kind: proto::LifeEventKind) -> &'static str {
    match kind {
        proto::LifeEventKind::Unspecified => "-",
        proto::LifeEventKind::Started => "started",
        proto::LifeEventKind::Exited => "exited",
        proto::LifeEventKind::Adopted => "adopted",
        proto::LifeEventKind::Found => "found",
        proto::LifeEventKind::StartFailed => "start failed",
        proto::LifeEventKind::Stopping => "stopping",
        proto::LifeEventKind::Gap => "gap",
        proto::LifeEventKind::Ready => "ready",
        proto::LifeEventKind::NotReady => "not ready",
        proto::LifeEventKind::Backoff => "backoff",
        proto::LifeEventKind::Restarted => "restarted",
        proto::LifeEventKind::CrashLoop => "crash loop",
        proto::LifeEventKind::OomKill => "oom kill",
        proto::LifeEventKind::Observed => "observed",
        proto::LifeEventKind::LogCut => "log cut",
        proto::LifeEventKind::GpuError => "gpu error",
        proto::LifeEventKind::GpuLost => "gpu lost",
        proto::LifeEventKind::GpuStalled => "gpu stalled",
        proto::LifeEventKind::GpuRecovered => "gpu back",
        proto::LifeEventKind::Draining => "draining",
        proto::LifeEventKind::Undrained => "undrained",
        proto::LifeEventKind::FirstEnded => "first ended",
    }
}

/// How it ended, for people: "stopped by ann, signal 15".
pub fn cause(exit: &proto::ExitCause) -> String {
    let mut words = match exit.reason() {
        proto::ExitReason::Unspecified | proto::ExitReason::Unknown => "ended, nobody could tell how".to_owned(),
        proto::ExitReason::Code => "ended by itself".to_owned(),
        proto::ExitReason::Signal => "killed from outside".to_owned(),
        proto::ExitReason::MemoryLimit => "killed at its memory limit".to_owned(),
        proto::ExitReason::HealthTimeout => "killed: not healthy for too long".to_owned(),
        proto::ExitReason::StartFailure => "did not start".to_owned(),
        proto::ExitReason::Stopped if exit.stopped_by.is_empty() => "stopped".to_owned(),
        proto::ExitReason::Stopped => format!("stopped by {}", exit.stopped_by),
    };
    if let Some(code) = exit.code {
        words.push_str(&format!(", code {code}"));
    }
    if let Some(signal) = exit.signal {
        let name = nix::sys::signal::Signal::try_from(signal).map_or("", |signal| signal.as_str());
        words.push_str(&format!(", signal {signal} {name}"));
    }
    words.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_says_its_cause() {
        let exit = |reason: proto::ExitReason, code, signal| proto::ExitCause {
            reason: reason.into(),
            code,
            signal,
            stopped_by: "ann".into(),
        };
        assert_eq!(cause(&exit(proto::ExitReason::Code, Some(3), None)), "ended by itself, code 3");
        assert_eq!(cause(&exit(proto::ExitReason::Signal, None, Some(9))), "killed from outside, signal 9 SIGKILL");
        assert_eq!(cause(&exit(proto::ExitReason::Stopped, None, Some(15))), "stopped by ann, signal 15 SIGTERM");
    }

    #[test]
    fn an_event_is_about_a_worker_or_a_gpu_or_the_hive() {
        let mut event = proto::LifeEvent { hive: "box".into(), gpu_uuid: "GPU-1".into(), ..Default::default() };
        assert_eq!(subject(&event), "box/GPU-1");
        assert!(naming::fits("GPU-1", &subject(&event)));
        event.gpu_uuid.clear();
        assert_eq!(subject(&event), "box");
        (event.group, event.instance) = ("llm".into(), "1".into());
        assert_eq!(subject(&event), "box/llm/1");
    }

    #[test]
    fn an_event_is_one_line() {
        let event = proto::LifeEvent {
            time: Some(prost_types::Timestamp { seconds: 0, nanos: 5 }),
            kind: proto::LifeEventKind::Exited.into(),
            pid: 7,
            message: "two\nlines\x1b[2J".into(),
            ..Default::default()
        };
        let told = line(&event, "box/\x1b]0;llm\x07/1\r");
        assert_eq!(told, "1970-01-01T00:00:00Z  exited        box/ ]0;llm /1   pid 7  two lines [2J\n");
    }
}
