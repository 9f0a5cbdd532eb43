//! `rbee run -- COMMAND`: starts a worker on this machine.

use crate::args::{Global, Output, Run, RunLimits};
use crate::failure::Failure;
use crate::show::{json, units, workers};
use crate::verbs::events;
use crate::{connect, locate, naming, terminal};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tonic::{Response, Status};

/// Over and above what a worker is waited for, an answer may take this long.
const MARGIN: Duration = Duration::from_secs(10);
/// From one word of progress to the next.
const PROGRESS: Duration = Duration::from_secs(1);

/// Starts it and prints its name.
pub async fn run(global: &Global, args: Run) -> Result<(), Failure> {
    let (hive, wait) = (args.hive.clone(), args.wait.then_some(args.wait_timeout));
    let request = request(args)?;
    let socket = locate::socket(global, hive.as_deref()).await?;
    let mut client = connect::hive(&socket).await?;
    // Not its arguments: one of them may be a secret, and errors end up in logs.
    let program = request.command.first().cloned().unwrap_or_default();
    let what = format!("start {program:?} on the hive at {}", socket.path.display());
    begin(global, wait, &what, client.start_worker(request)).await
}

/// Waits for a start and prints the worker's name; `wait` is how long it may take to be ready, if that is waited for.
pub async fn begin(
    global: &Global,
    wait: Option<Duration>,
    what: &str,
    starting: impl Future<Output = Result<Response<proto::StartWorkerResponse>, Status>>,
) -> Result<(), Failure> {
    let limit = wait.map_or(global.timeout, |wait| wait.saturating_add(global.timeout.max(MARGIN)));
    let asking = connect::deed(limit, what, "`rbee ps` tells whether it runs", starting);
    let shown = wait.is_some() && !global.quiet && std::io::stderr().is_terminal();
    let answer = if shown { with_progress(asking).await } else { asking.await };
    let answer = answer.map_err(plain_error)?;
    let worker = answer.worker.clone().unwrap_or_default();
    match global.output {
        Output::Json => json::print("StartWorkerResponse", &answer),
        Output::Jsonl => json::print_line("StartWorkerResponse", &answer),
        Output::Name => terminal::put_line(&naming::full(&worker)),
        Output::Table | Output::Wide => {
            terminal::put_line(&naming::full(&worker))?;
            if !global.quiet {
                tell(&worker);
            }
            Ok(())
        }
    }?;
    match (wait, answer.readiness()) {
        (Some(wait), proto::Readiness::NotReady) => Err(Failure::Failed(format!(
            "{0} is not ready after {1}; it goes on: `rbee logs -f {0}` shows what it does",
            naming::full(&worker),
            units::time(wait)
        ))),
        _ => Ok(()),
    }
}

/// Says on the terminal's last line how long it has been waited, and wipes that away.
async fn with_progress<T>(asking: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut asking = std::pin::pin!(asking);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let say = |words: &str| {
        // A closed stderr is their choice.
        let _unheard = write!(std::io::stderr(), "\r\x1b[K{words}");
    };
    loop {
        tokio::select! {
            answer = &mut asking => {
                say("");
                return answer;
            }
            _ = ticks.tick() => say(&format!("waiting until it is ready: {} ", units::time(began.elapsed()))),
        }
    }
}

/// A program that does not exist is an error, not an empty answer; nor was it the queen who could not be reached.
fn plain_error(failure: Failure) -> Failure {
    match failure {
        Failure::Nothing(words) | Failure::Unreachable(words) => Failure::Failed(words),
        other => other,
    }
}

/// What it got, and what it asked for and did not get.
fn tell(worker: &proto::Worker) {
    let empty = proto::WorkerSpec::default();
    let spec = worker.spec.as_ref().unwrap_or(&empty);
    let placement = spec.placement.clone().unwrap_or_default();
    let place = match placement.level() {
        proto::PlacementLevel::Process => "without a cgroup (level process)".to_owned(),
        level => format!("in cgroup {} (level {})", placement.cgroup, workers::level(level)),
    };
    let user = if spec.user.is_empty() { String::new() } else { format!(" as user {}", spec.user) };
    if spec.pid == 0 {
        let why = spec.last_exit.as_ref().map(events::cause).unwrap_or_default();
        let state = workers::state(worker, SystemTime::now()).text;
        terminal::say(format_args!("it did not stay: {why}; its restart policy goes on: {state}"));
        return;
    }
    terminal::say(format_args!("started as pid {}{user} {place}", spec.pid));
    if !spec.gpu_uuids.is_empty() {
        let by =
            if spec.reservation.is_empty() { String::new() } else { format!(" by reservation {}", spec.reservation) };
        terminal::say(format_args!("  given GPU {}{by}", spec.gpu_uuids.join(", ")));
    }
    let mut applied: Vec<(&String, &String)> = placement.applied.iter().collect();
    applied.sort();
    for (file, value) in applied {
        terminal::say(format_args!("  applied {file} = {value}"));
    }
    for sentence in &placement.not_applied {
        terminal::say(format_args!("  {sentence}"));
    }
}

fn request(args: Run) -> Result<proto::StartWorkerRequest, Failure> {
    let port = args.port.map(|port| proto::Endpoint { port: u32::from(port), ..Default::default() });
    let endpoint = args.endpoint.as_deref().map(parse_endpoint).transpose()?;
    let required = args.limits.require_limits;
    let policy = if required { proto::PlacementPolicy::Required } else { proto::PlacementPolicy::BestEffort };
    Ok(proto::StartWorkerRequest {
        group: args.group,
        instance: args.name.unwrap_or_default(),
        command: args.command,
        env: args.env.into_iter().collect(),
        working_directory: working_directory(args.workdir)?,
        limits: Some(limits(args.limits, args.vram)),
        model: args.model,
        endpoint: endpoint.or(port),
        labels: args.labels.into_iter().collect(),
        placement_policy: policy.into(),
        gpus: args.gpu,
        take_over: false,
        restart: proto::RestartPolicy::from(args.restart).into(),
        clear_env: args.clear_env,
        keep_env: args.keep_env,
        user: args.user.unwrap_or_default(),
        no_new_privileges: args.no_new_privileges,
        probe: proto::Probe::from(args.probe).into(),
        wait: args.wait,
        wait_timeout: args.wait.then(|| common::duration(args.wait_timeout)),
        health_timeout: args.health_timeout.map(common::duration),
        reservation: args.reservation.unwrap_or_default(),
        fencing_token: args.fencing_token,
        ..Default::default()
    })
}

fn limits(asked: RunLimits, vram: Option<String>) -> proto::Limits {
    proto::Limits {
        cpu: asked.cpu.unwrap_or_default(),
        memory: asked.memory.unwrap_or_default(),
        memory_high: asked.memory_high.unwrap_or_default(),
        swap: asked.swap.unwrap_or_default(),
        processes: asked.pids.unwrap_or_default(),
        cpu_weight: asked.cpu_weight.unwrap_or_default(),
        cpus: asked.cpus.unwrap_or_default(),
        memory_nodes: asked.memory_nodes.unwrap_or_default(),
        io: asked.io,
        nice: asked.nice,
        rlimits: asked.rlimit.into_iter().collect(),
        oom_group: asked.no_oom_group.then_some(false),
        vram: vram.unwrap_or_default(),
    }
}

/// The hive works elsewhere, so the directory is named from the root.
fn working_directory(asked: Option<PathBuf>) -> Result<String, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed("failed to find the working directory for the worker", &error))?;
    let path = asked.map_or_else(|| here.clone(), |asked| here.join(asked));
    path.into_os_string().into_string().map_err(|path| {
        Failure::Failed(format!("failed to name the working directory {path:?} on the wire: it is not UTF-8"))
    })
}

/// `https://host:8443` → its parts; a port may be left out where the scheme has one.
pub fn parse_endpoint(text: &str) -> Result<proto::Endpoint, Failure> {
    let wrong = || Failure::Usage(format!("--endpoint {text:?} is not an address: use SCHEME://HOST:PORT"));
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of a bare IPv6 address are not before a port.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().map_err(|_| wrong())?),
        _ => match scheme {
            "http" => (authority, 80),
            "https" => (authority, 443),
            _ => return Err(wrong()),
        },
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if scheme.is_empty() || host.is_empty() || host.contains('@') {
        return Err(wrong());
    }
    Ok(proto::Endpoint { scheme: scheme.to_owned(), host: host.to_owned(), port: u32::from(port) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn asked(flags: &str) -> Result<proto::StartWorkerRequest, clap::Error> {
        let words = ["rbee", "run"].into_iter().chain(flags.split_whitespace()).chain(["--", "w", "--nice", "x"]);
        let Verb::Run(run) = Cli::try_parse_from(words)?.verb else { panic!("not run") };
        Ok(request(*run).unwrap())
    }

    #[test]
    fn every_limit_reaches_the_wire_as_it_was_written() {
        let flags = "--cpu 50% --memory 4G --memory-high 3G --swap 0 --pids 9 --cpu-weight 50 --cpus 0-3,8 \
                     --memory-nodes 0 --nice -5 --rlimit nofile=1:2 --rlimit core=0 --no-oom-group --vram 8G \
                     --io=8:0 --require-limits";
        let request = asked(flags).unwrap();
        let wanted = proto::Limits {
            cpu: "50%".into(),
            memory: "4G".into(),
            memory_high: "3G".into(),
            swap: "0".into(),
            processes: "9".into(),
            cpu_weight: "50".into(),
            cpus: "0-3,8".into(),
            memory_nodes: "0".into(),
            io: vec!["8:0".into()],
            nice: Some(-5),
            rlimits: [("nofile", "1:2"), ("core", "0")].map(|(name, text)| (name.into(), text.into())).into(),
            oom_group: Some(false),
            vram: "8G".into(),
        };
        assert_eq!(request.limits, Some(wanted));
        assert_eq!((request.placement_policy(), request.command.len()), (proto::PlacementPolicy::Required, 3));
        assert_eq!(asked("").unwrap().limits, Some(proto::Limits::default()));
    }

    #[test]
    fn who_it_runs_as_and_how_it_is_watched_reach_the_wire() {
        let flags = "--clear-env --keep-env A,B --keep-env C --user ann --no-new-privileges --restart on-failure \
                     --probe vllm --wait --wait-timeout 90s --health-timeout 60s --workdir sub";
        let request = asked(flags).unwrap();
        assert!(request.clear_env && request.no_new_privileges && request.wait);
        assert_eq!((request.keep_env.join(" ").as_str(), request.user.as_str()), ("A B C", "ann"));
        assert_eq!((request.restart(), request.probe()), (proto::RestartPolicy::OnFailure, proto::Probe::Vllm));
        let seconds = |length: Option<prost_types::Duration>| length.map(|length| length.seconds);
        assert_eq!((seconds(request.wait_timeout), seconds(request.health_timeout)), (Some(90), Some(60)));
        assert!(request.working_directory.starts_with('/') && request.working_directory.ends_with("/sub"));
        let plain = asked("").unwrap();
        assert_eq!(
            (plain.wait_timeout, plain.health_timeout, plain.limits.as_ref().unwrap().oom_group),
            (None, None, None)
        );
        assert_eq!((plain.restart(), plain.probe()), (proto::RestartPolicy::Never, proto::Probe::Auto));
    }

    #[test]
    fn a_reservation_says_which_gpu_and_its_token_goes_with_it() {
        let asked_with = asked("--reservation r-7 --fencing-token 9 --vram 8G").unwrap();
        assert_eq!((asked_with.reservation.as_str(), asked_with.fencing_token), ("r-7", Some(9)));
        assert!(asked("--reservation r-7 --gpu 0").is_err() && asked("--fencing-token 9").is_err());
        assert_eq!(asked("").unwrap().reservation, "");
    }

    #[test]
    fn flags_that_mean_nothing_alone_are_refused() {
        for flags in
            ["--keep-env A", "--wait-timeout 3s", "--restart sometimes", "--probe gpt", "--nice x", "--rlimit nofile"]
        {
            assert!(asked(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn an_endpoint_is_taken_apart_and_put_together() {
        for (text, shown) in [
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("https://gpu.example/v1", "https://gpu.example:443"),
            ("http://[::1]:80/", "http://[::1]:80"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(workers::endpoint(&parse_endpoint(text).unwrap()), shown);
        }
        for bad in ["", "8080", "http://", "http://:80", "http://a:x", "grpc://a", "http://a:70000", "http://u@a:1"] {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
    }
}
