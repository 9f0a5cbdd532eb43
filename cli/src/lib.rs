//! The command line: `args` says what can be typed, `verbs` ask a queen or a hive, `serve` runs one, `show` prints.
//! Data goes to stdout, everything else to stderr.

mod args;
mod connect;
mod demo;
mod doctor;
mod failure;
mod follow;
mod locate;
mod naming;
mod reach;
mod serve;
mod show;
pub mod simulate;
mod terminal;
mod verbs;

pub use serve::settings;

use args::{Cli, Verb};
use failure::Failure;
use std::process::ExitCode;

/// Runs `rbee` with the arguments, environment and terminal of this process.
pub fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version come this way too; when even printing fails there is nobody left to tell.
            let _unprinted = told.print();
            return if told.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal::complain(&failure);
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.verb {
        // These two run beside or instead of an engine: no runtime, no logging, as little memory as can be.
        Verb::DemoWorker(args) => return demo::run(&args),
        Verb::GpuProbe(args) => return serve::gpu_probe(&args),
        _ => {}
    }
    common::trace::init(global.verbose, global.quiet);
    let serving = matches!(cli.verb, Verb::Up(_) | Verb::Queen(_) | Verb::Hive(_) | Verb::Simulate(_));
    let mut runtime = if serving {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.enable_all().build().map_err(|error| Failure::failed("failed to start", &error))?;
    let outcome = runtime.block_on(verbs::run(&global, cli.verb));
    // Name look-ups run on threads that cannot be interrupted; nobody waits for them.
    runtime.shutdown_background();
    outcome
}
