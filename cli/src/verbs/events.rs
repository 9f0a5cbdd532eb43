//! `rbee events`: how workers of this machine started and ended.

use crate::args::{Events, Global, Output};
use crate::failure::Failure;
use crate::follow::{anywhere, is_final};
use crate::show::{json, units};
use crate::verbs::HiveClient;
use crate::{connect, locate, naming, terminal};
use common::Backoff;
use std::path::Path;
use std::time::SystemTime;
use tonic::Status;

/// Prints what is known, and with `-f` what comes; then also over restarts of the hive.
pub async fn run(global: &Global, args: &Events) -> Result<(), Failure> {
    let socket = locate::socket(global, None).await?;
    let mut client = connect::hive(&socket).await?;
    let mut request = proto::StreamEventsRequest { follow: args.follow, ..Default::default() };
    let mut named = false;
    loop {
        let asking = client.stream_events(request.clone());
        let ended = match connect::answer(global.timeout, "read events", asking).await {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(response)) => {
                        request.journal_id.clone_from(&response.journal_id);
                        request.after = response.event.as_ref().map_or(request.after, |event| event.number);
                        named |= show(global, args, &response)?;
                    }
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            },
            Err(failure) if !args.follow => return Err(locate::not_the_queen(failure)),
            Err(failure) => Err(Status::unavailable(failure.to_string())),
        };
        match ended {
            Ok(()) if !args.follow && (named || args.workers.is_empty()) => return Ok(()),
            Ok(()) if !args.follow => return Err(nobody(args)),
            Err(status) if !args.follow || is_final(&status) => {
                return Err(locate::not_the_queen(connect::refused("read events", &status)));
            }
            // Events have no end: a follower whose stream ends lost its hive.
            Ok(()) | Err(_) => client = hive_again(global, &socket).await,
        }
    }
}

/// Waits until the hive answers again; says so once when it goes and once when it is back.
pub async fn hive_again(global: &Global, socket: &Path) -> HiveClient {
    if !global.quiet {
        terminal::say(format_args!("rbee: lost the hive at {}; trying again until it is back", socket.display()));
    }
    let mut backoff = Backoff::default();
    loop {
        tokio::time::sleep(backoff.next(anywhere(), None)).await;
        if let Ok(client) = connect::hive(socket).await {
            if !global.quiet {
                terminal::say("rbee: the hive is back");
            }
            return client;
        }
    }
}

/// Names that nothing is told of.
fn nobody(args: &Events) -> Failure {
    let names = args.workers.join(", ");
    Failure::Nothing(format!("nothing is told of {names:?} on this machine; `rbee events` tells of everybody"))
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
        Output::Name => terminal::put(format!("{name}\n")),
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
    let clean: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{at}  {kind:<12}  {name}{pid}  {clean}\n")
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
            message: "two\nlines".into(),
            ..Default::default()
        };
        assert_eq!(line(&event, "box/llm/1"), "1970-01-01T00:00:00Z  exited        box/llm/1  pid 7  two lines\n");
    }
}
