//! The terminal around us: its width, whether colour is welcome, and what happens when the reader of a pipe leaves.

use crate::args::Colour;
use crate::failure::Failure;
use std::io::{IsTerminal, Write};

/// Narrower than this a table says nothing.
const NARROWEST: usize = 40;
/// What a terminal that does not tell is taken for.
const UNKNOWN_WIDTH: usize = 80;

/// How many characters fit on a line of stdout; `None` when it is not a terminal.
pub fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = terminal_size::terminal_size_of(&stdout).map_or(UNKNOWN_WIDTH, |(width, _)| usize::from(width.0));
    Some(columns.max(NARROWEST))
}

/// Whether stdout should get colours.
pub fn colourful(wish: Colour) -> bool {
    match wish {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => {
            std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// Writes data to stdout. A reader that has left is told apart, so that the verb can end quietly.
pub fn put(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::ReaderLeft),
        written => written.map_err(|error| Failure::failed("failed to write to stdout", &error)),
    }
}

/// Says something to people, on stderr. A closed stderr is their choice.
pub fn say(words: impl std::fmt::Display) {
    let _unheard = writeln!(std::io::stderr(), "{words}");
}

/// Tells why a verb failed.
pub fn complain(failure: &Failure) {
    let words = failure.to_string();
    if !words.is_empty() {
        say(format_args!("rbee: {words}"));
    }
}
