//! What a question asks of a block of rows before any worker of it is looked at.

use super::block::{Heard, Segment};

/// Which bit a worker needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It can take requests.
    Ready,
    /// And it is idle.
    Idle,
    /// And its GPU is unused.
    Unused,
}

/// Who does not pass, in three kinds that together are everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// Ready and held.
    Held,
    /// Ready and not held.
    Free,
    /// Not ready; also rows without a worker.
    Unready,
}

impl Near {
    /// The rows of a block that are of this kind.
    pub fn word(self, segment: &Segment, block: usize) -> u64 {
        match self {
            Self::Held => segment.ready(block) & segment.held(block),
            Self::Free => segment.ready(block) & !segment.held(block),
            Self::Unready => !segment.ready(block),
        }
    }
}

/// The conditions. All that pass still have to be looked at; none that does not pass can fit.
#[derive(Debug, Clone)]
pub struct Sieve {
    /// Which bit a worker needs.
    pub need: Need,
    /// Held workers pass too.
    pub held_too: bool,
    /// Rows whose model fits, block by block. `None`: any.
    pub models: Option<Vec<u64>>,
    /// A GPU of its hive has at least so many bytes free.
    pub least_room: Option<u64>,
    /// Its hive was heard then, or later.
    pub oldest: Heard,
    /// Hives whose stream is broken pass too.
    pub broken_too: bool,
}

impl Sieve {
    /// The rows of a block that pass.
    pub fn word(&self, segment: &Segment, block: usize) -> u64 {
        let mut word = match self.need {
            Need::Ready => segment.ready(block),
            Need::Idle => segment.idle(block),
            Need::Unused => segment.unused(block),
        };
        if let Some(models) = &self.models {
            // A block that was taken since the names were looked up has no model that fits.
            word &= models.get(block).copied().unwrap_or(0);
        }
        if word != 0 && !self.held_too {
            word &= !segment.held(block);
        }
        if word == 0 || !self.is_heard(segment, block) { 0 } else { word }
    }

    /// Whether the hive of a block is fresh enough, and has as much room as is needed.
    pub fn is_heard(&self, segment: &Segment, block: usize) -> bool {
        let heard = segment.heard(block);
        let room = |least| segment.room(block).is_some_and(|room| room >= least);
        heard >= self.oldest && (self.broken_too || !heard.broken()) && self.least_room.is_none_or(room)
    }
}
