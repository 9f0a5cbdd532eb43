//! Reading the index: from a watcher's place to the tip, in messages of bounded size. Watchers that stand at the same
//! place share one message.

use super::list::Key;
use super::{Feed, Inner};
use crate::fleet::object;
use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::Filter;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How many objects one page looks at: bounds the time the lock is held for a filter that matches little.
const SCAN: usize = 8_192;
/// How many messages are kept for others to share: one for each flush class, and as many again for stragglers.
const SHARED: usize = 8;
/// How long a message may be given to others once newer states have come: enough for all watchers of one flush, and
/// far below what anybody would call old.
const SHARED_FOR: Duration = Duration::from_millis(25);
/// Room in a message for what surrounds the objects.
const ENVELOPE: usize = 128;

/// `WatchResponse.update`, `Update.revision`, `Update.conflated`.
const UPDATE: u32 = 2;
const REVISION: u32 = 1;
const CONFLATED: u32 = 7;

/// How far a watcher has read.
#[derive(Debug, Clone, Default)]
pub struct Place {
    cursor: u64,
    beats: u64,
    hint: Option<Key>,
    /// Removals up to this revision cannot matter: the watcher's snapshot began after them.
    begun: u64,
    snapshot: bool,
}

impl Place {
    /// Everything up to this revision has been read.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The snapshot is complete: from here on merged states are counted.
    pub fn end_snapshot(&mut self) {
        self.snapshot = false;
    }
}

/// What a reader gets.
#[derive(Debug)]
pub enum Read {
    /// The next message, if there is anything to tell.
    Page {
        /// A `WatchResponse` with an `Update`.
        message: Option<Bytes>,
        /// It was cut at its size: read again at once.
        more: bool,
        /// It is a message that others were sent before, and something has happened since: read again at the next
        /// flush.
        later: bool,
    },
    /// Removals that the watcher has not seen have been forgotten: it needs a snapshot.
    Behind,
}

#[derive(Debug)]
pub(super) struct Page {
    from: (u64, u64, bool),
    upper: u64,
    beats: u64,
    hint: Option<Key>,
    message: Option<Bytes>,
    cut: bool,
    made: Instant,
}

struct Gathered {
    parts: Vec<Bytes>,
    upper: u64,
    beats: u64,
    hint: Option<Key>,
    conflated: u64,
    cut: bool,
}

impl Feed {
    /// The place of a watcher that holds nothing.
    pub fn start(&self) -> Place {
        Place { begun: self.lock().revision, snapshot: true, ..Place::default() }
    }

    /// The place of a watcher that has read everything up to `cursor`; `None` where removals since are forgotten.
    pub fn resume(&self, cursor: u64) -> Option<Place> {
        let inner = self.lock();
        (cursor >= inner.forgotten).then(|| Place { cursor, begun: cursor, ..Place::default() })
    }

    /// Reads on from `place`, at most about `max_bytes`.
    pub fn read(&self, now: Instant, place: &mut Place, filter: Option<&Filter>, max_bytes: usize) -> Read {
        let from = (place.cursor, place.beats, place.snapshot);
        let shared = filter.is_none().then(|| self.shared(from)).flatten();
        let inner = self.lock();
        if inner.forgotten > place.cursor.max(place.begun) {
            return Read::Behind;
        }
        let tip = (inner.revision, inner.beat);
        // An old page is old state, told as if it were news; one from before a removal that has been forgotten shows
        // what nobody will take back any more.
        let news =
            |page: &Page| (page.upper, page.beats) == tip || now.saturating_duration_since(page.made) <= SHARED_FOR;
        let page = match shared.filter(|page| page.upper >= inner.forgotten && news(page)) {
            Some(page) => page,
            None => {
                let gathered = inner.gather(place, filter, max_bytes);
                drop(inner);
                self.assemble(now, from, gathered, filter.is_none())
            }
        };
        (place.cursor, place.beats, place.hint) = (page.upper, page.beats, page.hint);
        let later = !page.cut && (page.upper, page.beats) != tip;
        Read::Page { message: page.message.clone(), more: page.cut, later }
    }

    fn shared(&self, from: (u64, u64, bool)) -> Option<Arc<Page>> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.iter().rev().find(|page| page.from == from).cloned()
    }

    fn assemble(&self, made: Instant, from: (u64, u64, bool), gathered: Gathered, share: bool) -> Arc<Page> {
        let message = (!gathered.parts.is_empty()).then(|| update(&self.name_revision(gathered.upper), &gathered));
        let share = share && message.is_some();
        let Gathered { upper, beats, hint, cut, .. } = gathered;
        let page = Arc::new(Page { from, upper, beats, hint, message, cut, made });
        if share {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            if pages.len() >= SHARED {
                pages.pop_front();
            }
            pages.push_back(Arc::clone(&page));
        }
        page
    }
}

impl Inner {
    fn gather(&self, place: &Place, filter: Option<&Filter>, max_bytes: usize) -> Gathered {
        let (mut parts, mut bytes, mut scanned, mut merged) = (Vec::new(), ENVELOPE, 0, 0);
        let (mut upper, mut hint) = (self.revision, place.hint);
        let mut objects = self.objects.newer(place.cursor, place.hint).peekable();
        while let Some((key, number, object)) = objects.next() {
            scanned += 1;
            let part = object.seen_by(place.cursor, filter);
            if let Some(part) = part {
                bytes += part.len();
                merged += u64::from(object.prior > place.cursor);
                parts.push(part);
            }
            hint = Some(key);
            let next = objects.peek().map_or(0, |(_, _, object)| object.bytes.len());
            if objects.peek().is_some() && (bytes + next > max_bytes || scanned >= SCAN) {
                upper = number;
                break;
            }
        }
        let mut beats = place.beats;
        if upper == self.revision {
            beats = self.gather_beats(place.beats, filter, max_bytes.saturating_sub(bytes), &mut parts);
        }
        // Every state has its own revision: those that no object stands at any more were replaced.
        let conflated = match filter {
            _ if place.snapshot => 0,
            None => (upper - place.cursor).saturating_sub(scanned as u64),
            Some(_) => merged,
        };
        let cut = (upper, beats) != (self.revision, self.beat);
        Gathered { parts, upper, beats, hint, conflated, cut }
    }

    /// Adds what is new among the beats; answers how far it got.
    fn gather_beats(&self, cursor: u64, filter: Option<&Filter>, mut room: usize, parts: &mut Vec<Bytes>) -> u64 {
        let mut reached = cursor;
        for (_, number, (hive, bytes)) in self.beats.newer(cursor, None) {
            if bytes.len() > room && !parts.is_empty() {
                return reached;
            }
            reached = number;
            if filter.is_none_or(|filter| crate::fleet::filter::matches_hive(filter, hive)) {
                room = room.saturating_sub(bytes.len());
                parts.push(Bytes::clone(bytes));
            }
        }
        self.beat
    }
}

impl super::Object {
    /// What a watcher that has read up to `cursor` must be told, if anything.
    fn seen_by(&self, cursor: u64, filter: Option<&Filter>) -> Option<Bytes> {
        let matches = filter.is_none_or(|filter| self.subject.matches(filter));
        if !self.gone && matches {
            return Some(self.bytes.clone());
        }
        // It can only hold what was there at its cursor, and that matched then: now, or before the last change of
        // what filters look at.
        let may_hold = self.created <= cursor && (matches || self.refiltered > cursor);
        may_hold.then(|| if self.gone { self.bytes.clone() } else { self.subject.removal() })
    }
}

fn update(revision: &str, gathered: &Gathered) -> Bytes {
    let parts: usize = gathered.parts.iter().map(Bytes::len).sum();
    let conflated = match gathered.conflated {
        0 => 0,
        count => key_len(CONFLATED) + encoded_len_varint(count),
    };
    let length = object::field_len(REVISION, revision.len()) + parts + conflated;
    let mut bytes = BytesMut::with_capacity(object::field_len(UPDATE, length));
    object::open(UPDATE, length, &mut bytes);
    object::open(REVISION, revision.len(), &mut bytes);
    bytes.extend_from_slice(revision.as_bytes());
    for part in &gathered.parts {
        bytes.extend_from_slice(part);
    }
    if conflated > 0 {
        encode_key(CONFLATED, WireType::Varint, &mut bytes);
        encode_varint(gathered.conflated, &mut bytes);
    }
    bytes.freeze()
}
