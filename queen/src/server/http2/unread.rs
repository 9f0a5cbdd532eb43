//! What is done about answers that lie here because their readers take nothing.

use super::cut::Cut;
use crate::bound::{Bound, Place};
use http::Extensions;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An answer whose reader takes nothing for this long is ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// Put among the extensions of an answer, its reader may take his time: whoever scrolls in a log. It must keep little, and be
/// bounded otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Patient;

/// How long an answer waits for its reader.
#[derive(Debug)]
pub enum Reader {
    /// Until somebody else cuts it off.
    Cut(Cut),
    /// As long as he is there.
    Patient,
    /// For [`PATIENCE`], and while there is room for what he leaves lying; since when he has.
    Usual(Option<Lying>),
}

/// What lies here.
#[derive(Debug)]
pub struct Lying {
    since: Instant,
    /// `None`: there is no room for it.
    place: Option<Place>,
}

impl Reader {
    /// As an answer says.
    pub fn of(answer: &mut Extensions) -> Self {
        match (answer.remove(), answer.get::<Patient>()) {
            (Some(cut), _) => Self::Cut(cut),
            (None, Some(_)) => Self::Patient,
            (None, None) => Self::Usual(None),
        }
    }

    /// He takes nothing, and so many bytes lie here. Whether they need not wait any longer.
    pub fn is_given_up(&mut self, bytes: usize, room: &Arc<Bound>) -> bool {
        match self {
            Self::Cut(cut) => cut.is_made(),
            Self::Patient => false,
            Self::Usual(lying) => {
                let begin = || Lying { since: Instant::now(), place: room.take(bytes) };
                let Lying { since, place } = lying.get_or_insert_with(begin);
                place.is_none() || since.elapsed() >= PATIENCE
            }
        }
    }

    /// He has taken something.
    pub fn takes(&mut self) {
        if let Self::Usual(lying) = self {
            *lying = None;
        }
    }

    /// Whether how it ends can still be told when it is given up: whoever cuts it off says so in its body.
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Cut(_))
    }
}
