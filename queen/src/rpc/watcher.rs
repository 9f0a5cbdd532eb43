//! One watcher: a cursor in the feed. Slow, pausing and reconnecting watchers all take the same path.

use super::fleet::filter_hive;
use super::{Shared, invalid};
use crate::fleet::feed::{Class, Place, Read, Wanted};
use crate::fleet::{Mask, object};
use bytes::Bytes;
use prost::Message;
use proto::watch_response::Event;
use proto::{Filter, SnapshotBegin, SnapshotEnd, SnapshotReason, WatchRequest, WatchResponse};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use tonic::Status;
use tracing::warn;

/// The most one message may hold.
const MESSAGE_BYTES: usize = 256 * 1024;
/// A watcher that takes no message for this long is ended.
const BLOCKED: Duration = Duration::from_secs(30);
/// What it is told to wait.
const RETRY: Duration = Duration::from_secs(5);
/// The least time between two updates; what is asked for is rounded up. All watchers of an interval flush together, so
/// that they share their messages.
const INTERVALS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];

/// Why a watcher ends.
enum End {
    /// Its client is gone.
    Left,
    /// The client is told this.
    Told(Status),
}

/// Where a reader that could not go on for now stands.
enum Reached {
    /// At the tip.
    Tip,
    /// Where the others stood at this flush; there is more already.
    Flush,
    /// Behind removals that have been forgotten.
    Behind,
}

/// Where a watcher begins.
#[derive(Debug)]
enum Begin {
    Resumed,
    Snapshot(SnapshotReason),
}

/// The producer of one watch.
#[derive(Debug)]
pub struct Watcher {
    shared: Shared,
    class: Option<Arc<Class>>,
    interval: Option<Duration>,
    begin: Begin,
    place: Place,
    out: mpsc::Sender<Bytes>,
    changes: watch::Receiver<u64>,
    bookmarks: watch::Receiver<Bytes>,
}

impl Watcher {
    /// Checks the request.
    pub fn new(shared: Shared, request: WatchRequest, out: mpsc::Sender<Bytes>) -> Result<Self, Status> {
        let filter = request.filter.filter(|filter| *filter != Filter::default());
        filter.as_ref().map(filter_hive).transpose()?;
        let paths = request.fields.map(|mask| mask.paths).unwrap_or_default();
        let mask = Mask::compile(&paths).map_err(|error| invalid::field("fields", error.to_string()))?;
        let asked = invalid::length("min_interval", request.min_interval.as_ref())?.unwrap_or_default();
        let interval = interval(asked);
        let feed = shared.fleet.feed();
        let (changes, mut bookmarks) = (feed.changes(), shared.bookmarks.clone());
        shared.fleet.link_waiting(Instant::now());
        let (begin, place) = match resume(&shared, &request.resume_after)? {
            Ok(place) => (Begin::Resumed, place),
            Err(reason) => (Begin::Snapshot(reason), feed.start()),
        };
        let class =
            feed.class(Wanted { filter, mask }).map_err(|error| invalid::exhausted(error.to_string(), RETRY))?;
        // The counts of the last bookmark are old news; the first one sent is the next one made.
        bookmarks.mark_unchanged();
        Ok(Self { shared, class, interval, begin, place, out, changes, bookmarks })
    }

    /// Sends until the client leaves, the queen stops or the reader blocks for too long.
    pub async fn run(mut self) -> Result<(), Status> {
        match self.watch().await {
            End::Left => Ok(()),
            End::Told(status) => Err(status),
        }
    }

    async fn watch(&mut self) -> End {
        if let Begin::Snapshot(reason) = self.begin
            && let Err(end) = self.snapshot(reason).await
        {
            return end;
        }
        // What there is already is due at once.
        let mut due = Some(tokio::time::Instant::now());
        loop {
            let flush = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let sent = tokio::select! {
                () = self.shared.stopping.cancelled() => Err(stopping()),
                () = self.out.closed() => Err(End::Left),
                made = self.bookmarks.changed() => match made {
                    Ok(()) => self.bookmark().await,
                    Err(_) => Err(stopping()),
                },
                () = flush => {
                    self.drain().await.map(|current| due = (!current).then(|| self.next_flush()))
                }
                changed = self.changes.changed(), if due.is_none() => {
                    due = Some(self.next_flush());
                    changed.map_err(|_| stopping())
                }
            };
            if let Err(end) = sent {
                return end;
            }
        }
    }

    /// Now, or the next beat of this watcher's interval.
    fn next_flush(&self) -> tokio::time::Instant {
        let now = Instant::now();
        let wait = self.interval.map_or(Duration::ZERO, |interval| {
            let since = now.saturating_duration_since(self.shared.fleet.started()).as_nanos();
            let over = since % interval.as_nanos().max(1);
            interval.saturating_sub(Duration::from_nanos(u64::try_from(over).unwrap_or(0)))
        });
        tokio::time::Instant::from_std(now + wait)
    }

    /// Everything there is.
    async fn snapshot(&mut self, mut reason: SnapshotReason) -> Result<(), End> {
        loop {
            self.place = self.shared.fleet.feed().start();
            self.send(encode(Event::SnapshotBegin(SnapshotBegin { reason: reason.into() }))).await?;
            if !matches!(self.read_on(false).await?, Reached::Behind) {
                break;
            }
            reason = SnapshotReason::FellBehind;
        }
        self.place.end_snapshot();
        let revision = self.revision();
        self.send(encode(Event::SnapshotEnd(SnapshotEnd { revision }))).await
    }

    /// Everything that is new. False when there is more for the next flush.
    async fn drain(&mut self) -> Result<bool, End> {
        match self.read_on(true).await? {
            Reached::Tip => Ok(true),
            Reached::Flush => Ok(false),
            Reached::Behind => self.snapshot(SnapshotReason::FellBehind).await.map(|()| false),
        }
    }

    /// Sends message after message. `whole`: the watcher holds everything up to its place, so bookmarks may come in
    /// between, however long this takes.
    async fn read_on(&mut self, whole: bool) -> Result<Reached, End> {
        loop {
            let feed = self.shared.fleet.feed();
            match feed.read(Instant::now(), &mut self.place, self.class.as_deref(), MESSAGE_BYTES) {
                Read::Behind => return Ok(Reached::Behind),
                Read::Page { message, more, later } => {
                    if let Some(message) = message {
                        self.send(message).await?;
                    }
                    if !more {
                        return Ok(if later { Reached::Flush } else { Reached::Tip });
                    }
                }
            }
            if whole && self.bookmarks.has_changed().is_ok_and(|new| new) {
                self.bookmark().await?;
            }
            // A filter that matches little reads on without sending; others shall have their turn.
            tokio::task::yield_now().await;
        }
    }

    async fn bookmark(&mut self) -> Result<(), End> {
        let rest = self.bookmarks.borrow_and_update().clone();
        let message = object::bookmark(&self.revision(), &rest);
        self.send(message).await
    }

    fn revision(&self) -> String {
        self.shared.fleet.feed().name_revision(self.place.cursor())
    }

    async fn send(&self, message: Bytes) -> Result<(), End> {
        let sent = tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => return Err(stopping()),
            sent = timeout(BLOCKED, self.out.send(message)) => sent,
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => {
                let cut = self.shared.cut.fetch_add(1, Ordering::Relaxed) + 1;
                warn!(cut, "watcher cut: it read nothing for {} s", BLOCKED.as_secs());
                let reason = format!("nothing was read for {} s", BLOCKED.as_secs());
                Err(End::Told(invalid::exhausted(reason, RETRY)))
            }
        }
    }
}

fn stopping() -> End {
    End::Told(Status::unavailable("the queen is stopping"))
}

fn encode(event: Event) -> Bytes {
    Bytes::from(WatchResponse { event: Some(event) }.encode_to_vec())
}

/// The interval that an asked one is rounded up to; `None` sends at once.
fn interval(asked: Duration) -> Option<Duration> {
    let [.., slowest] = INTERVALS;
    (!asked.is_zero()).then(|| INTERVALS.into_iter().find(|interval| asked <= *interval).unwrap_or(slowest))
}

/// The place after a revision, or why a snapshot is needed instead.
fn resume(shared: &Shared, text: &str) -> Result<Result<Place, SnapshotReason>, Status> {
    if text.is_empty() {
        return Ok(Err(SnapshotReason::Initial));
    }
    let feed = shared.fleet.feed();
    let unreadable = || invalid::field("resume_after", "is not a revision: give back one that a watch or list told");
    let (instance, number) = text.split_once(':').ok_or_else(unreadable)?;
    let number: u64 = number.parse().map_err(|_| unreadable())?;
    if instance.is_empty() || !instance.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(unreadable());
    }
    if instance != feed.instance() {
        return Ok(Err(SnapshotReason::QueenRestarted));
    }
    if number > feed.revision() {
        return Err(invalid::field("resume_after", "is a revision that this queen has not reached"));
    }
    Ok(feed.resume(number).ok_or(SnapshotReason::Compacted))
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
