//! `rbee completions SHELL`.

use crate::args::Cli;
use crate::failure::Failure;
use crate::terminal;
use clap::CommandFactory;

/// Prints the script.
pub fn run(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rbee", &mut script);
    terminal::put(script)
}
