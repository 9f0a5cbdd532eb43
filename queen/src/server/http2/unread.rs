//! What is done about answers that lie here because their readers take nothing.

use super::cut::Cut;
use crate::bound::{Bound, Place};
use http::Extensions;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An answer whose reader takes nothing for this long is ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same where he may take his time: whoever scrolls in a log.
const LONG: Duration = Duration::from_secs(3_600);

/// Put among the extensions of an answer, its reader may take his time. It must keep little, and be bounded otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Patient;

/// How long an answer waits for its reader.
#[derive(Debug)]
pub enum Reader {
    /// Until somebody else cuts it off.
    Cut(Cut),
    /// For [`LONG`]; since when he has taken nothing.
    Patient(Option<Instant>),
    /// For [`PATIENCE`], and while there is room for what he leaves lying.
    Usual(Option<Lying>),
}

/// What lies here.
#[derive(Debug)]
pub struct Lying {
    since: Instant,
    /// For all of it, until he has taken the last byte: what he has taken is not let go of before. `None`: there is no room.
    place: Option<Place>,
}

impl Reader {
    /// As an answer says.
    pub fn of(answer: &mut Extensions) -> Self {
        match (answer.remove(), answer.get::<Patient>()) {
            (Some(cut), _) => Self::Cut(cut),
            (None, Some(_)) => Self::Patient(None),
            (None, None) => Self::Usual(None),
        }
    }

    /// He takes nothing, and so many bytes lie here. Whether they need not wait any longer.
    pub fn is_given_up(&mut self, bytes: usize, room: &Arc<Bound>) -> bool {
        match self {
            Self::Cut(cut) => cut.is_made(),
            Self::Patient(since) => since.get_or_insert_with(Instant::now).elapsed() >= LONG,
            Self::Usual(lying) => {
                let begin = || Lying { since: Instant::now(), place: room.take(bytes) };
                let Lying { since, place } = lying.get_or_insert_with(begin);
                place.is_none() || since.elapsed() >= PATIENCE
            }
        }
    }

    /// He has taken something; `all`: nothing lies here any more.
    pub fn takes(&mut self, all: bool) {
        match self {
            Self::Cut(_) => {}
            Self::Patient(since) => *since = None,
            Self::Usual(lying) if all => *lying = None,
            Self::Usual(Some(lying)) => lying.since = Instant::now(),
            Self::Usual(None) => {}
        }
    }

    /// Whether how it ends can still be told when it is given up: whoever cuts it off says so in its body.
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Cut(_))
    }
}
