//! The terminal around us: its width, whether colour is welcome, and what happens when the reader of a pipe leaves.
// The two system calls below have no safe wrapper among our dependencies.
#![allow(unsafe_code)]

use crate::args::Colour;
use crate::failure::Failure;
use std::io::{IsTerminal, Write};

/// Narrower than this a table says nothing.
const NARROWEST: usize = 40;

/// From now on a closed pipe ends this process at once and silently, as it does every other filter program.
pub fn end_quietly_on_closed_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default disposition runs no code of ours, and no thread relies on SIGPIPE being ignored.
    let _unchanged = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// How many characters fit on a line of stdout; `None` when it is not a terminal.
pub fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` to the pointer, which is valid for the whole call.
    let told = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    let columns = if told == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { 80 };
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

/// Writes data to stdout.
pub fn put(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes.as_ref())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::failed("failed to write to stdout", &error))
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
