//! `rbee version`.

use crate::args::{Global, Output};
use crate::failure::Failure;
use crate::terminal;

/// Of this program; the parts it talks to may have others, `rbee hives` and `rbee doctor` tell.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints it.
pub fn run(global: &Global) -> Result<(), Failure> {
    terminal::put(match global.output {
        Output::Json | Output::Jsonl => format!("{}\n", serde_json::json!({ "version": VERSION })),
        Output::Name => format!("{VERSION}\n"),
        Output::Table | Output::Wide => format!("rbee {VERSION}\n"),
    })
}
