//! Logging: lines on stderr, at state changes only. `RBEE_LOG` takes a filter as tracing-subscriber reads it.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets up logging once for the process. `verbose` counts `-v`, `quiet` leaves errors only.
pub fn init(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("RBEE_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,common={level},hive={level},queen={level},cli={level}")));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Fails only when a subscriber is already set, as several hives in one test process do.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .try_init();
}
