//! One watcher: a cursor in the feed that makes one step when it is asked to. Slow, pausing and reconnecting watchers all take
//! the same path.

use crate::fleet::feed::{Class, Following, Message, Place, Read, Revision, Why};
use crate::rpc::{Shared, invalid};
use proto::watch_response::Event;
use proto::{SnapshotBegin, SnapshotEnd, SnapshotReason};
use std::sync::Arc;
use std::time::Instant;
use tonic::Status;

/// The most one message may hold.
const MESSAGE_BYTES: usize = 256 * 1024;

/// What a watcher does next.
#[derive(Debug)]
pub enum Step {
    /// It tells its client this, and may have more.
    Tell(Message),
    /// It has more to do, after others had their turn.
    Turn,
    /// It has told everything until it is woken.
    Wait,
    /// It ends so.
    End(Status),
}

/// How far a watcher has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It needs everything there is.
    Begin(SnapshotReason),
    /// It is being told everything.
    Snapshot,
    /// It has been told everything, but not that this was all.
    Told,
    /// It holds everything up to its place.
    Whole,
}

/// A watcher.
#[derive(Debug)]
pub struct Watcher {
    shared: Shared,
    class: Option<Arc<Class>>,
    following: Following,
    pub(super) stage: Stage,
    place: Place,
    /// There may be something to read.
    due: bool,
    /// There is a bookmark that it has not told.
    bookmark: bool,
    stopping: bool,
}

impl Watcher {
    /// Begins where `resume_after` ended, or says why it cannot.
    pub fn begin(
        shared: Shared,
        class: Option<Arc<Class>>,
        following: Following,
        resume_after: &str,
    ) -> Result<Self, Status> {
        let (stage, place) = match resume(&shared, resume_after)? {
            Ok(place) => (Stage::Whole, place),
            Err(reason) => (Stage::Begin(reason), shared.fleet.feed().start()),
        };
        // What there is already is due at once. Who follows is rung when the queen stops, unless she did before.
        let stopping = shared.stopping.is_cancelled();
        Ok(Self { shared, class, following, stage, place, due: true, bookmark: false, stopping })
    }

    /// It was woken.
    pub fn hear(&mut self, rung: impl Fn(Why) -> bool) {
        self.due |= rung(Why::Changed);
        self.bookmark |= rung(Why::Bookmark);
        self.stopping |= rung(Why::Stopping);
    }

    /// What it does next.
    pub fn step(&mut self) -> Step {
        if self.stopping {
            return Step::End(Status::unavailable("the queen is stopping"));
        }
        match self.stage {
            Stage::Begin(reason) => {
                (self.place, self.stage) = (self.shared.fleet.feed().start(), Stage::Snapshot);
                Step::Tell(Message::of(Event::SnapshotBegin(SnapshotBegin { reason: reason.into() })))
            }
            Stage::Snapshot => self.tell_everything(),
            Stage::Told => {
                self.place.end_snapshot();
                (self.stage, self.due) = (Stage::Whole, true);
                Step::Tell(Message::of(Event::SnapshotEnd(SnapshotEnd { revision: self.revision() })))
            }
            Stage::Whole => self.tell_news(),
        }
    }

    fn tell_everything(&mut self) -> Step {
        match self.read() {
            Read::Behind => self.start_over(),
            Read::Page { message, more, .. } => {
                if !more {
                    self.stage = Stage::Told;
                }
                message.map_or(Step::Turn, Step::Tell)
            }
        }
    }

    /// Bookmarks may come between the pages of one flush, however long that takes.
    fn tell_news(&mut self) -> Step {
        if std::mem::take(&mut self.bookmark) {
            return Step::Tell(Message::bookmark(&self.revision(), &self.shared.bookmarks.borrow()));
        }
        if !self.due {
            return Step::Wait;
        }
        match self.read() {
            Read::Behind => self.start_over(),
            Read::Page { message, more, later } => {
                self.due = more;
                if later {
                    self.following.again();
                }
                let silent = if more { Step::Turn } else { Step::Wait };
                message.map_or(silent, Step::Tell)
            }
        }
    }

    fn start_over(&mut self) -> Step {
        self.stage = Stage::Begin(SnapshotReason::FellBehind);
        Step::Turn
    }

    fn read(&mut self) -> Read {
        self.shared.fleet.feed().read(Instant::now(), &mut self.place, self.class.as_deref(), MESSAGE_BYTES)
    }

    fn revision(&self) -> String {
        self.shared.fleet.feed().name_revision(self.place.revision())
    }
}

/// The place after a revision, or why a snapshot is needed instead.
fn resume(shared: &Shared, text: &str) -> Result<Result<Place, SnapshotReason>, Status> {
    if text.is_empty() {
        return Ok(Err(SnapshotReason::Initial));
    }
    let feed = shared.fleet.feed();
    let unreadable = || invalid::field("resume_after", "is not a revision: give back one that a watch or list told");
    let (instance, revision) = text.split_once(':').ok_or_else(unreadable)?;
    let revision = Revision::parse(revision).ok_or_else(unreadable)?;
    if instance.is_empty() || !instance.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(unreadable());
    }
    if instance != feed.instance() {
        return Ok(Err(SnapshotReason::QueenRestarted));
    }
    if revision.cursor > feed.revision() {
        return Err(invalid::field("resume_after", "is a revision that this queen has not reached"));
    }
    Ok(feed.resume(revision).ok_or(SnapshotReason::Compacted))
}
