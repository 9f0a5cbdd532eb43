//! Pages that were made once and are given to every watcher that stands at the same place.

use super::list::Key;
use super::message::Message;
use super::numbers::Rows;
use super::page::{Place, Read};
use super::revision::Revision;
use super::tip::Tip;
use arc_swap::ArcSwapOption;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many messages are kept for others to share: one for each flush class, and as many again for stragglers.
const SHARED: usize = 8;
/// How long a message may be given to others once newer states have come: enough for all watchers of one flush, and
/// far below what anybody would call old.
const SHARED_FOR: Duration = Duration::from_millis(25);

/// Where a page begins: the revision, the beats, how far a list may have told already, and whether it is part of a
/// snapshot.
pub(super) type From = (Revision, u64, u64, bool);

/// A message, and where it ends.
#[derive(Debug)]
pub(super) struct Page {
    pub from: From,
    pub upper: Revision,
    pub beats: u64,
    pub hint: Option<Key>,
    /// Of a class: so many states it had shown by then.
    pub states: u64,
    pub message: Option<Message>,
    pub cut: bool,
    pub made: Instant,
    /// So far the index had been looked at when it was made: it shows nothing that had been removed by then.
    pub looked: u64,
}

impl Page {
    /// Whether it may be given to somebody now, when the index stands at `tip` (revision, beats). An old page is old
    /// state, told as if it were news; one from before a removal that has been forgotten sends its reader back to the
    /// beginning.
    pub fn is_news(&self, now: Instant, tip: (u64, u64), forgotten: u64) -> bool {
        let fresh = (self.upper.cursor, self.beats) == tip || now.saturating_duration_since(self.made) <= SHARED_FOR;
        fresh && self.looked >= forgotten
    }
}

/// The page that was made last. To find it takes no lock, and writes nothing that others read.
#[derive(Debug, Default)]
pub(super) struct Newest(ArcSwapOption<Page>);

impl Newest {
    /// What is read at this place, if that is the page.
    pub fn read(&self, now: Instant, place: &mut Place, tip: &Tip) -> Option<Read> {
        let page = self.0.load();
        let page = page.as_ref().filter(|page| page.from == place.from())?;
        let (to, forgotten) = (tip.tip(), tip.forgotten());
        (!place.is_behind(forgotten) && page.is_news(now, to, forgotten)).then(|| place.take(page, to))
    }

    fn keep(&self, page: &Arc<Page>) {
        self.0.store(Some(Arc::clone(page)));
    }
}

/// What those who want the same share.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub newest: Newest,
    shelf: Mutex<Shelf>,
}

impl Desk {
    /// The pages. Taken before the index is locked, never after; who makes one keeps them meanwhile, so that nobody makes it
    /// twice.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages that are kept, and room to make the next one in.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pages: VecDeque<Arc<Page>>,
    room: Rows,
}

impl Shelf {
    /// The newest page that begins there.
    pub fn find(&self, from: From) -> Option<Arc<Page>> {
        self.pages.iter().rev().find(|page| page.from == from).cloned()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Room for the next page's rows, to be brought back with it.
    pub fn room(&mut self) -> Rows {
        std::mem::take(&mut self.room)
    }

    /// Keeps a page, if it says anything.
    pub fn keep(&mut self, page: Page, room: Rows, newest: &Newest) -> Arc<Page> {
        let page = Arc::new(page);
        self.room = room;
        if page.message.is_some() {
            newest.keep(&page);
            if self.pages.len() >= SHARED {
                self.pages.pop_front();
            }
            self.pages.push_back(Arc::clone(&page));
        }
        page
    }
}
