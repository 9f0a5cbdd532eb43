//! Reading the index: from a watcher's place to the tip, in messages of bounded size. Watchers that stand at the same
//! place share one message.

use super::class::{Class, View};
use super::list::Key;
use super::message::Message;
use super::numbers::{Row, Rows};
use super::revision::Revision;
use super::shelf::{Desk, From, Page};
use super::wanted::Wanted;
use super::{Feed, Inner};
use crate::fleet::object;
use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::time::Instant;

/// How many objects one page looks at: bounds the time the lock is held for a filter that matches little.
pub(super) const SCAN: u64 = 8_192;
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
    /// What had changed by this revision has all been read: the cursor, except between the pages of one reading. What
    /// changed after it may have changed again and stand behind the cursor.
    whole: u64,
    beats: u64,
    hint: Option<Key>,
    /// So many states had its class shown up to there.
    states: u64,
    /// Removals up to this revision cannot matter: everything that was shown so far was looked at after them.
    begun: u64,
    /// What appeared by this revision may be held: who resumes may have had a list, which is older by name than in fact.
    listed: u64,
    snapshot: bool,
    /// It reads what its class shows, no longer the index itself.
    joined: bool,
}

impl Place {
    /// Everything up to this revision has been read.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Where its reader can go on, as it is told: revisions are names for places.
    pub fn revision(&self) -> Revision {
        Revision { cursor: self.cursor, whole: self.whole }
    }

    /// The snapshot is complete: from here on merged states are counted.
    pub fn end_snapshot(&mut self) {
        self.snapshot = false;
    }

    pub(super) fn from(&self) -> From {
        (self.revision(), self.beats, if self.listed > self.cursor { self.listed } else { 0 }, self.snapshot)
    }

    pub(super) fn is_behind(&self, forgotten: u64) -> bool {
        forgotten > self.cursor.max(self.begun)
    }

    pub(super) fn take(&mut self, page: &Page, tip: (u64, u64)) -> Read {
        (self.cursor, self.whole) = (page.upper.cursor, page.upper.whole);
        (self.beats, self.hint, self.states) = (page.beats, page.hint, page.states);
        self.begun = self.begun.min(page.looked);
        let later = !page.cut && (self.cursor, self.beats) != tip;
        Read::Page { message: page.message.clone(), more: page.cut, later }
    }
}

/// What a reader gets.
#[derive(Debug)]
pub enum Read {
    /// The next message, if there is anything to tell.
    Page {
        /// An `Update`.
        message: Option<Message>,
        /// It was cut at its size: read again at once.
        more: bool,
        /// It is a message that others were sent before, and something has happened since: read again at the next
        /// flush.
        later: bool,
    },
    /// Removals that the watcher has not seen have been forgotten: it needs a snapshot.
    Behind,
}

/// Where a page ends: revision and beats that it reaches, those that there are, and how far the index had been looked at.
struct Ends {
    to: (u64, u64),
    tip: (u64, u64),
    looked: u64,
}

/// An object in an update.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Whole(Bytes),
    Numbers(Row<'a>),
}

impl Part<'_> {
    /// How many bytes it takes, or about so many.
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Numbers(row) => row.len(),
        }
    }
}

#[derive(Default)]
struct Gathered {
    parts: Vec<Bytes>,
    /// Of which hives it is told that they were heard from, as it stands in an update.
    heard: Vec<u8>,
    rows: Rows,
    bytes: usize,
    scanned: u64,
    /// Objects of which states before the one that is told were not.
    merged: u64,
    hint: Option<Key>,
    /// The number of the last state in its class.
    state: u64,
    conflated: u64,
}

/// One object on the way of a reader.
struct Met<'a> {
    key: Key,
    revision: u64,
    part: Option<Part<'a>>,
    merged: bool,
    /// Its number in its class.
    state: u64,
}

impl Feed {
    /// The place of a watcher that holds nothing.
    pub fn start(&self) -> Place {
        Place { begun: self.lock().revision, snapshot: true, ..Place::default() }
    }

    /// The place of a watcher that has been told up to this revision; `None` where removals since are forgotten.
    pub fn resume(&self, Revision { cursor, whole }: Revision) -> Option<Place> {
        let inner = self.lock();
        let place = Place { cursor, whole, begun: cursor, listed: inner.revision, ..Place::default() };
        (cursor >= inner.forgotten).then_some(place)
    }

    /// Reads on from `place`, at most about `max_bytes`. A watcher reads as one of the same class, always.
    pub fn read(&self, now: Instant, place: &mut Place, class: Option<&Class>, max_bytes: usize) -> Read {
        match class {
            None => self.read_index(now, place, (&Wanted::default(), &self.desk), max_bytes),
            Some(class) if class.wanted.shows_all() => {
                self.read_index(now, place, (&class.wanted, &class.desk), max_bytes)
            }
            Some(class) => self.read_class(now, place, class, max_bytes),
        }
    }

    fn read_index(&self, now: Instant, place: &mut Place, (wanted, desk): (&Wanted, &Desk), max_bytes: usize) -> Read {
        if let Some(read) = desk.newest.read(now, place, &self.tip) {
            self.told.shared();
            return read;
        }
        let (mut shelf, inner) = (desk.shelf(), self.lock());
        if place.is_behind(inner.forgotten) {
            return Read::Behind;
        }
        let (shared, tip) = (shelf.find(place.from()), inner.tip());
        if let Some(page) = shared.filter(|page| page.is_news(now, tip, inner.forgotten)) {
            self.told.shared();
            return place.take(&page, tip);
        }
        let (mut gathered, upper) = inner.gather(place, wanted, max_bytes, shelf.room());
        let beats = inner.gather_beats(place, wanted, upper, max_bytes, &mut gathered);
        drop(inner);
        let ends = Ends { to: (upper, beats), tip, looked: tip.0 };
        let (page, room) = self.page(now, place.from(), ends, gathered);
        place.take(&shelf.keep(page, room, &desk.newest), tip)
    }

    fn read_class(&self, now: Instant, place: &mut Place, class: &Class, max_bytes: usize) -> Read {
        if place.joined
            && let Some(read) = class.desk.newest.read(now, place, &self.tip)
        {
            self.told.shared();
            return read;
        }
        let (mut view, mut shelf, inner) = (class.view(), class.desk.shelf(), self.lock());
        view.advance(&inner, &class.wanted);
        // Who holds nothing can begin with what the class shows.
        place.joined |= place.cursor.max(place.listed) == 0;
        if place.is_behind(inner.forgotten) {
            return Read::Behind;
        }
        let tip = inner.tip();
        if !place.joined {
            return self.read_towards_class(now, place, class, &view, &inner, max_bytes);
        }
        let shared = shelf.find(place.from());
        if let Some(page) = shared.filter(|page| page.is_news(now, tip, inner.forgotten)) {
            self.told.shared();
            return place.take(&page, tip);
        }
        let (mut gathered, upper) = view.gather(&inner, place, &class.wanted, max_bytes, shelf.room());
        let beats = inner.gather_beats(place, &class.wanted, upper, max_bytes, &mut gathered);
        drop(inner);
        let ends = Ends { to: (upper, beats), tip, looked: view.reached };
        let (page, room) = self.page(now, place.from(), ends, gathered);
        place.take(&shelf.keep(page, room, &class.desk.newest), tip)
    }

    /// A watcher that resumes holds objects as they were at its cursor, and the class does not know what it showed of
    /// them then. So it reads the index itself, as far as the class has read, and from there on what the class shows.
    fn read_towards_class(
        &self,
        now: Instant,
        place: &mut Place,
        class: &Class,
        view: &View,
        inner: &Inner,
        max_bytes: usize,
    ) -> Read {
        let tip = inner.tip();
        if view.reached != tip.0 {
            return Read::Page { message: None, more: true, later: false };
        }
        let (mut gathered, upper) = inner.gather(place, &class.wanted, max_bytes, Rows::default());
        let beats = inner.gather_beats(place, &class.wanted, upper, max_bytes, &mut gathered);
        if upper == tip.0 {
            (gathered.hint, gathered.state, place.joined) = (None, view.states, true);
        }
        let ends = Ends { to: (upper, beats), tip, looked: tip.0 };
        let (page, _) = self.page(now, place.from(), ends, gathered);
        place.take(&page, tip)
    }

    /// The page, and the room in which its rows were gathered.
    fn page(&self, made: Instant, from: From, Ends { to, tip, looked }: Ends, gathered: Gathered) -> (Page, Rows) {
        self.told.made(gathered.conflated);
        let (cursor, beats) = to;
        let upper = if cursor == tip.0 { Revision::at(cursor) } else { Revision { cursor, whole: from.0.whole } };
        let Gathered { mut parts, heard, mut rows, conflated, .. } = gathered;
        let (columns, gpus) = rows.take();
        parts.extend(gpus);
        let says = !parts.is_empty() || !heard.is_empty() || columns.is_some();
        let message = says.then(|| update(&self.name_revision(upper), &parts, &heard, columns, conflated));
        let (hint, states, cut) = (gathered.hint, gathered.state, to != tip);
        (Page { from, upper, beats, hint, states, message, cut, made, looked }, rows.room())
    }
}

impl Inner {
    /// What the index holds: the newest revision and the newest beat.
    fn tip(&self) -> (u64, u64) {
        (self.revision, self.beat)
    }

    /// Objects from a place on, in this room, and the revision that was reached.
    fn gather(&self, place: &Place, wanted: &Wanted, max_bytes: usize, room: Rows) -> (Gathered, u64) {
        let touch = |object: &super::Object| object.bytes.touch();
        let newer = self.objects.newer_touched(place.cursor, place.hint, touch).map(|(key, revision, object)| Met {
            key,
            revision,
            part: object.seen_by(place, wanted),
            merged: object.prior > place.cursor,
            state: 0,
        });
        let (mut gathered, stopped) = Gathered::begin(place.hint, room).fill(newer, max_bytes, self.scan);
        let upper = stopped.unwrap_or(self.revision);
        // Every state has its own revision: those that no object stands at any more were replaced.
        gathered.conflated = match wanted.filter {
            _ if place.snapshot => 0,
            None if wanted.mask.is_none() => (upper - place.cursor).saturating_sub(gathered.scanned),
            _ => gathered.merged,
        };
        (gathered, upper)
    }

    /// Adds what is new among the beats, if the objects are all there; answers how far it got.
    fn gather_beats(&self, place: &Place, wanted: &Wanted, upper: u64, max_bytes: usize, into: &mut Gathered) -> u64 {
        let mut reached = place.beats;
        if upper != self.revision {
            return reached;
        }
        for (_, number, beat) in self.beats.newer(place.beats, None) {
            if into.bytes + beat.len() > max_bytes && into.bytes > ENVELOPE {
                return reached;
            }
            reached = number;
            let before = into.heard.len();
            wanted.write_beat(beat, &mut into.heard);
            into.bytes += into.heard.len() - before;
        }
        self.beat
    }
}

impl View {
    /// What the class shows from a place on, in this room, and the revision that was reached.
    fn gather(&self, inner: &Inner, place: &Place, wanted: &Wanted, max_bytes: usize, room: Rows) -> (Gathered, u64) {
        let newer = self.objects.newer(place.cursor, place.hint).map(|(key, revision, shown)| Met {
            key,
            revision,
            part: shown.part(inner, place, wanted),
            merged: false,
            state: shown.state,
        });
        let (mut gathered, stopped) = Gathered::begin(place.hint, room).fill(newer, max_bytes, inner.scan);
        if stopped.is_none() {
            gathered.state = self.states;
        }
        // Those that no object stands at any more were replaced.
        let passed = gathered.state.saturating_sub(place.states);
        gathered.conflated = if place.snapshot { 0 } else { passed.saturating_sub(gathered.scanned) };
        (gathered, stopped.unwrap_or(self.reached))
    }
}

impl Gathered {
    fn begin(hint: Option<Key>, rows: Rows) -> Self {
        Self { bytes: ENVELOPE, hint, rows, ..Self::default() }
    }

    /// Takes objects until a page is full; answers the revision at which it stopped, if it did.
    fn fill<'a>(mut self, newer: impl Iterator<Item = Met<'a>>, max_bytes: usize, scan: u64) -> (Self, Option<u64>) {
        let mut reached = None;
        for met in newer {
            let size = met.part.as_ref().map_or(0, Part::len);
            if reached.is_some() && (self.bytes + size > max_bytes || self.scanned >= scan) {
                return (self, reached);
            }
            self.scanned += 1;
            self.bytes += size;
            if let Some(part) = met.part {
                self.merged += u64::from(met.merged);
                match part {
                    Part::Whole(bytes) => self.parts.push(bytes),
                    Part::Numbers(row) => self.rows.add(row),
                }
            }
            (self.hint, self.state, reached) = (Some(met.key), met.state, Some(met.revision));
        }
        (self, None)
    }
}

impl super::Object {
    /// What a watcher at this place must be told, if anything.
    fn seen_by(&self, place: &Place, wanted: &Wanted) -> Option<Part<'_>> {
        let matches = wanted.matches(&self.subject);
        if !self.gone && matches {
            let held = self.detailed.max(self.created) <= place.whole;
            let row = wanted.columns.filter(|_| held).and_then(|numbers| self.bytes.row(numbers));
            return Some(row.map_or_else(|| Part::Whole(wanted.cut(&self.bytes)), Part::Numbers));
        }
        // It can only hold what was there at its cursor or in a list, and that matched when it was told: now, or before the
        // last change of what filters look at.
        let may_hold = self.created <= place.cursor.max(place.listed) && (matches || self.refiltered > place.whole);
        may_hold.then(|| Part::Whole(if self.gone { Bytes::clone(&self.bytes) } else { self.subject.removal() }))
    }
}

fn update(revision: &str, parts: &[Bytes], heard: &[u8], columns: Option<&[u8]>, conflated: u64) -> Message {
    let columns_len = columns.map_or(0, |columns| object::field_len(object::COLUMNS, columns.len()));
    let conflated_len = match conflated {
        0 => 0,
        count => key_len(CONFLATED) + encoded_len_varint(count),
    };
    let parts_len: usize = parts.iter().map(Bytes::len).sum();
    let length = object::field_len(REVISION, revision.len()) + parts_len + heard.len() + columns_len + conflated_len;
    Message::write(object::field_len(UPDATE, length), |bytes| {
        object::open(UPDATE, length, bytes);
        object::open(REVISION, revision.len(), bytes);
        bytes.extend_from_slice(revision.as_bytes());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(heard);
        if let Some(columns) = columns {
            object::open(object::COLUMNS, columns.len(), bytes);
            bytes.extend_from_slice(columns);
        }
        if conflated > 0 {
            encode_key(CONFLATED, WireType::Varint, bytes);
            encode_varint(conflated, bytes);
        }
    })
}
