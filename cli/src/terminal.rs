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

/// Writes one line to stdout, of words that may come from another machine.
pub fn put_line(words: &str) -> Result<(), Failure> {
    put(plain(words) + "\n")
}

/// Says something to people, on stderr. Much of it is what other machines answered. A closed stderr is their choice.
pub fn say(words: impl std::fmt::Display) {
    let _unheard = writeln!(std::io::stderr(), "{}", blanked(&words.to_string(), &['\n', '\t']));
}

/// On one line, and without what steers a terminal: each control character is a blank.
pub fn plain(text: &str) -> String {
    blanked(text, &[])
}

fn blanked(text: &str, kept: &[char]) -> String {
    text.chars().map(|c| if c.is_control() && !kept.contains(&c) { ' ' } else { c }).collect()
}

/// Tells why a verb failed.
pub fn complain(failure: &Failure) {
    let words = failure.to_string();
    if !words.is_empty() {
        say(format_args!("rbee: {words}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_steers_the_terminal() {
        let text = "a\x1b[2Jb\r\nc\t\u{9b}1m\u{7f}ü";
        assert_eq!(plain(text), "a [2Jb  c  1m ü");
        assert_eq!(blanked(text, &['\n', '\t']), "a [2Jb \nc\t 1m ü");
    }
}
