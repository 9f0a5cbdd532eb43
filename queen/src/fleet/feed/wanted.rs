//! What a watcher wants to be told: which objects, and what of them.

use super::Subject;
use super::beat::LastBeat;
use super::telling::Telling;
use crate::fleet::Mask;
use crate::fleet::filter;
use crate::fleet::mask::Numbers;
use bytes::Bytes;
use proto::Filter;

/// A filter and a mask; absent, they let everything pass.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    /// Which objects.
    pub filter: Option<Filter>,
    /// What of them.
    pub mask: Option<Mask>,
    /// Which numbers, in columns where nothing else changed.
    pub columns: Option<Numbers>,
}

impl Wanted {
    /// As asked; with `columns` where the mask leaves numbers, and whole ones.
    pub fn new(filter: Option<Filter>, mask: Option<Mask>, columns: bool) -> Self {
        let columns = columns.then(|| mask.as_ref().map_or(Some(Numbers::ALL), Mask::numbers)).flatten();
        Self { filter, mask, columns }
    }

    /// Whether there is nothing to leave out, and everything is told in full.
    pub fn is_everything(&self) -> bool {
        self.shows_all() && self.columns.is_none()
    }

    /// Whether every object is told of, and all of it.
    pub(super) fn shows_all(&self) -> bool {
        self.filter.is_none() && self.mask.is_none()
    }

    /// Whether an object's bytes are made only for those who need them: every change of it is news.
    pub(super) fn can_wait(&self, telling: &Telling) -> bool {
        self.columns.is_some() && self.mask.is_none() && telling.is_worker()
    }

    pub(super) fn matches(&self, subject: &Subject) -> bool {
        self.filter.as_ref().is_none_or(|filter| subject.matches(filter))
    }

    /// What is told of an object.
    pub(super) fn cut(&self, part: &Bytes) -> Bytes {
        self.mask.as_ref().map_or_else(|| part.clone(), |mask| mask.cut(part))
    }

    /// Appends what is told of a hive that was heard from.
    pub(super) fn write_beat(&self, beat: &LastBeat, into: &mut Vec<u8>) {
        let wanted = self.filter.as_ref().is_none_or(|filter| filter::matches_hive(filter, beat.hive()));
        match &self.mask {
            _ if !wanted => {}
            None => beat.write(into),
            Some(mask) if mask.has_beats() => into.extend_from_slice(&mask.cut(&beat.bytes())),
            Some(_) => {}
        }
    }
}
