//! What can be typed. Settings come from flags, then from `RBEE_…` variables, then from the configuration file, then
//! from the defaults below.

mod act;
mod look;
mod observe;
mod reach;
mod remote;
mod reserve;
mod serve;
mod simulate;

pub use act::{Events, Logs, Restart, Run, RunLimits, Stop};
pub use look::{Basis, Describe, Find, Forget, Idle, Match, Models, Ps, Sort, Watch};
pub use observe::{Config, ConfigVerb, Observe, ProbeKind};
pub use reach::Reach;
pub use remote::{Drain, Start, Templates};
pub use reserve::{FitKind, Release, Renew, Reserve};
pub use serve::{Agent, Completions, DemoWorker, GpuProbe, Hive, Queen, QueenAlone, Up};
pub use simulate::Simulate;

use crate::show::units;
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Where a queen is looked for unless told otherwise.
pub const DEFAULT_QUEEN: &str = "http://127.0.0.1:7833";

/// Heading of the flags that every verb has.
const EVERYWHERE: &str = "Options of every command";

/// rbee: what every LLM worker on every machine is doing, within a second.
#[derive(Debug, Parser)]
#[command(
    name = "rbee",
    version,
    about = "What every LLM worker on every machine is doing, within a second, and which one is free",
    after_help = "Try it:  rbee up --demo 3    then, in another terminal:  rbee ps\n\
                  Exit codes: 0 done, 1 error, 2 usage, 3 nothing matches, 4 queen unreachable, 5 some targets failed",
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// The flags that every verb has.
    #[command(flatten)]
    pub global: Global,
}

/// The flags that every verb has.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// The queen to ask; `rbee hive` takes several, the queens it reports to
    #[arg(long, global = true, env = "RBEE_QUEEN", value_name = "URL", value_delimiter = ',', hide_env_values = true,
          default_value = DEFAULT_QUEEN, help_heading = EVERYWHERE)]
    pub queen: Vec<String>,
    /// Whether somebody named a queen, so that no file needs to.
    #[arg(skip)]
    pub queen_given: bool,
    #[command(flatten)]
    pub reach: Reach,
    /// Unix socket of the hive on this machine [default: found through the queen, else the usual place]
    #[arg(long, global = true, env = "RBEE_SOCKET", value_name = "PATH", hide_env_values = true, help_heading = EVERYWHERE)]
    pub socket: Option<PathBuf>,
    /// How to print
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Output::Table, help_heading = EVERYWHERE)]
    pub output: Output,
    /// How long to wait for an answer
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = units::parse_duration, help_heading = EVERYWHERE)]
    pub timeout: Duration,
    /// Colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Colour::Auto, help_heading = EVERYWHERE)]
    pub color: Colour,
    /// Say nothing but data and errors
    #[arg(short, long, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// Say more; twice for most
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = EVERYWHERE)]
    pub verbose: u8,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    // For people, cut to the terminal
    Table,
    // The table with more columns
    Wide,
    // The answer in canonical protobuf JSON
    Json,
    // One JSON message a line
    Jsonl,
    // Names only
    Name,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    // On a terminal, unless NO_COLOR is set
    Auto,
    // Even into a file
    Always,
    // Not at all
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a queen, a hive and the dashboard on this machine
    Up(Box<Up>),
    /// Start the control plane alone
    Queen(QueenAlone),
    /// Start the agent of this machine alone
    Hive(Hive),
    /// Start a worker on this machine
    Run(Box<Run>),
    /// Start a worker from a template, on any hive
    Start(Start),
    /// List what can be started by name
    Templates(Templates),
    /// Look at an engine that runs already as a worker: a process, systemd unit or container
    Observe(Observe),
    /// List workers and what they are doing
    Ps(Ps),
    /// List hives: the machines
    Hives,
    /// List the GPUs: who uses them, and who else holds their memory
    Gpus,
    /// List models and how many workers have them
    Models(Models),
    /// Tell everything about one worker or hive
    Describe(Describe),
    /// List workers that are doing nothing
    Idle(Idle),
    /// Find workers that have a model, or GPUs with room
    Find(Find),
    /// Hold a worker, or memory of a GPU, for a while
    Reserve(Reserve),
    /// Hold a reservation for longer
    Renew(Renew),
    /// Give reservations back
    Release(Release),
    /// List what is held
    Reservations,
    /// Make the queen forget a hive that is gone for good
    Forget(Forget),
    /// Follow what changes
    Watch(Watch),
    /// Tell how workers started and ended
    Events(Events),
    /// Print the output of a worker
    Logs(Logs),
    /// Stop workers
    Stop(Stop),
    /// Stop workers and start them again with what they were started with
    Restart(Restart),
    /// Let a hive take no further starts; what runs goes on
    Drain(Drain),
    /// Let a hive take starts again
    Undrain(Drain),
    /// Check this machine and say how to mend it
    Doctor,
    /// Check or show the configuration of the hive and the queen here
    Config(Config),
    /// Load a queen with hives that do not exist, to test it or to size it
    Simulate(Simulate),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completions(Completions),
    /// Burn some CPU, memory and disk, as `up --demo` needs it
    #[command(hide = true)]
    DemoWorker(DemoWorker),
    /// Ask the GPU driver once a second, as a hive needs it
    #[command(hide = true)]
    GpuProbe(GpuProbe),
}

/// Reads a command line, the program first. Errors are clap's, help and version among them.
pub fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(words)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))?;
    let source = matches.subcommand().and_then(|(_, verb)| verb.value_source("queen"));
    cli.global.queen_given = source.is_some_and(|source| source != ValueSource::DefaultValue);
    Ok(cli)
}

/// Reads `key=value`.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_hive_reports_to_several_queens() {
        let cli = Cli::try_parse_from(["rbee", "hive", "--queen", "http://a:1", "--queen", "http://b:2"]).unwrap();
        assert_eq!(cli.global.queen, ["http://a:1", "http://b:2"]);
        let cli = Cli::try_parse_from(["rbee", "--queen", "http://a:1", "ps"]).unwrap();
        assert_eq!(cli.global.queen, ["http://a:1"]);
    }

    #[test]
    fn it_is_known_whether_a_queen_was_named() {
        let given = |words: &[&str]| parse(words.iter().map(Into::into)).unwrap().global.queen_given;
        assert!(given(&["rbee", "hive", "--queen", "http://a:1"]));
        assert!(given(&["rbee", "--queen", "http://a:1", "hive"]));
        assert!(!given(&["rbee", "hive"]) || std::env::var_os("RBEE_QUEEN").is_some());
    }

    #[test]
    fn observing_needs_a_target_or_an_end() {
        let Verb::Observe(observe) = parse(["rbee", "observe", "ollama.service"].map(Into::into)).unwrap().verb else {
            panic!("not observe")
        };
        assert_eq!((observe.target.as_deref(), observe.probe), (Some("ollama.service"), ProbeKind::Auto));
        assert!(Cli::try_parse_from(["rbee", "observe", "--end", "observed/ollama"]).is_ok());
        assert!(Cli::try_parse_from(["rbee", "observe"]).is_err());
        assert!(Cli::try_parse_from(["rbee", "observe", "1", "--end", "x"]).is_err());
        assert!(Cli::try_parse_from(["rbee", "observe", "1", "--port", "1", "--endpoint", "http://a"]).is_err());
    }

    #[test]
    fn everything_after_two_dashes_is_the_command() {
        let line = ["rbee", "run", "--cpu", "50%", "--env", "A=b=c", "--", "python3", "-c", "pass", "--model", "m"];
        let Verb::Run(run) = Cli::try_parse_from(line).unwrap().verb else { panic!("not run") };
        assert_eq!(run.command, ["python3", "-c", "pass", "--model", "m"]);
        assert_eq!(run.env, [("A".to_owned(), "b=c".to_owned())]);
        assert!(Cli::try_parse_from(["rbee", "run"]).is_err());
    }

    #[test]
    fn a_find_needs_a_model_or_room() {
        assert!(Cli::try_parse_from(["rbee", "find"]).is_err());
        assert!(Cli::try_parse_from(["rbee", "find", "--model", "m", "--vram", "8G"]).is_ok());
        assert!(Cli::try_parse_from(["rbee", "find", "--vram", "8G"]).is_ok());
        let glob = ["rbee", "find", "--model", "m*", "--match", "glob", "--vram", "8G"];
        assert!(Cli::try_parse_from(glob).is_err(), "beside room a model is named exactly");
        assert!(Cli::try_parse_from(["rbee", "find", "--model", "m", "--headroom", "1G"]).is_err());
    }

    #[test]
    fn a_reservation_needs_one_kind_of_thing() {
        let parse = |words: &[&str]| Cli::try_parse_from(["rbee", "reserve"].iter().chain(words));
        assert!(parse(&[]).is_err() && parse(&["--idle"]).is_err() && parse(&["--vram", "8G", "--idle"]).is_err());
        assert!(parse(&["--model", "m", "--vram", "8G"]).is_err());
        assert!(
            parse(&["--worker", "a", "--count", "2"]).is_err() && parse(&["--vram", "8G", "--count", "65"]).is_err()
        );
        assert!(parse(&["--worker", "a/b/c", "--worker", "a/b/d", "--ttl", "5m", "--key", "k"]).is_ok());
        assert!(parse(&["--model", "m", "--idle", "--count", "2", "-l", "tier=gold", "--hive", "box"]).is_ok());
        assert!(parse(&["--vram", "8G", "--fit", "most-free", "--headroom", "1G", "--holder", "me"]).is_ok());
    }

    #[test]
    fn a_demo_without_a_number_has_three_workers() {
        let Verb::Up(up) = Cli::try_parse_from(["rbee", "up", "--demo"]).unwrap().verb else { panic!("not up") };
        assert_eq!(up.demo, 3);
    }
}
