//! Histories of clients that watched, and checkers that read them afterwards: what a watcher was told, against what was
//! true. A checker knows nothing of how the queen works; each was seen to fail on a history with the fault it looks for.
//! Depends on the wire alone, so that unit tests of the queen can take it in by its path.

mod bookmarks;
mod client;
mod complete;
mod filtered;
mod log;
mod ordered;
mod reached;
mod resumed;
mod unique;

pub use bookmarks::bookmarks;
pub use client::{Client, Object};
pub use complete::complete;
pub use filtered::filtered;
pub use log::{Lens, Log};
pub use ordered::ordered;
pub use reached::reached;
pub use resumed::resumed;
pub use unique::{no_repeats, unique};

use proto::WatchResponse;
use std::fmt;
use std::time::Duration;

/// What happened to a client.
#[derive(Debug, Clone)]
pub enum Moment {
    /// It opened a watch, and gave this revision to resume after; empty for none.
    Opened(String),
    /// It was told this.
    Heard(Box<WatchResponse>),
    /// The stream ended, by itself or because the client left.
    Ended,
}

/// All that happened to one client, across its streams.
#[derive(Debug, Clone, Default)]
pub struct History {
    moments: Vec<(Duration, Moment)>,
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which moment of the history shows it.
    pub moment: usize,
    /// One sentence.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "moment {}: {}", self.moment, self.what)
    }
}

impl Fault {
    fn new(moment: usize, what: impl Into<String>) -> Self {
        Self { moment, what: what.into() }
    }
}

impl History {
    /// Notes what happened `at` this long after the history began.
    pub fn note(&mut self, at: Duration, moment: Moment) {
        self.moments.push((at, moment));
    }

    /// Notes that a watch was opened.
    pub fn opened(&mut self, at: Duration, resume_after: &str) {
        self.note(at, Moment::Opened(resume_after.to_owned()));
    }

    /// Notes what was told.
    pub fn heard(&mut self, at: Duration, message: WatchResponse) {
        self.note(at, Moment::Heard(Box::new(message)));
    }

    /// Notes that the stream ended.
    pub fn ended(&mut self, at: Duration) {
        self.note(at, Moment::Ended);
    }

    /// Everything, in order, with its number.
    pub fn moments(&self) -> impl Iterator<Item = (usize, Duration, &Moment)> {
        self.moments.iter().enumerate().map(|(number, (at, moment))| (number, *at, moment))
    }

    /// The client's copy at the end.
    pub fn client(&self) -> Client {
        let mut client = Client::default();
        self.moments().for_each(|(_, _, moment)| client.take(moment));
        client
    }
}

/// Queen's run and number of a revision; `None` for anything else. Between two pages more follows, which is the queen's.
pub fn revision(text: &str) -> Option<(&str, u64)> {
    let (instance, rest) = text.split_once(':')?;
    let number = rest.split_once(':').map_or(rest, |(number, _)| number);
    Some((instance, number.parse().ok()?))
}

/// Runs every checker that needs no more than the history, the log and the lens.
pub fn check(history: &History, log: &Log, lens: Lens<'_>) -> Result<(), Fault> {
    ordered(history)?;
    unique(history)?;
    resumed(history, log, lens)?;
    complete(history, log, lens)?;
    filtered(history, log, lens)
}

#[cfg(test)]
mod tests;
