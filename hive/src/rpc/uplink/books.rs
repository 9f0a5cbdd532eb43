//! What became of the frames of sessions: kept for whoever checks that none is lost unseen, and only on request.

use proto::PushTelemetryResponse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// So many closed accounts wait to be taken; further ones are counted as missed.
const WAITING: usize = 65_536;

/// One session's frames, once it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The session, which begins with the name of its hive.
    pub session: String,
    /// Frames that the transport took.
    pub handed: u64,
    /// What the queen says of them; absent when the session was cut.
    pub summary: Option<PushTelemetryResponse>,
}

/// The books of all uplinks that are counted together.
#[derive(Debug, Default)]
pub struct Books {
    frames: AtomicU64,
    sessions: AtomicU64,
    missed: AtomicU64,
    closed: Mutex<Vec<Account>>,
}

impl Books {
    /// Frames handed over so far, open sessions included.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Sessions begun so far.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Accounts that were lost because nobody took them in time.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Takes the accounts that were closed since the last call.
    pub fn take_closed(&self) -> Vec<Account> {
        std::mem::take(&mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The account of a session that is under way. Closed when it is dropped, however that comes about.
#[derive(Debug)]
pub(super) struct OpenAccount {
    books: Option<Arc<Books>>,
    session: String,
    handed: Arc<AtomicU64>,
    summary: Option<PushTelemetryResponse>,
}

/// Counts the frames of one session.
#[derive(Debug, Clone)]
pub(super) struct Handing {
    books: Option<Arc<Books>>,
    handed: Arc<AtomicU64>,
}

impl OpenAccount {
    pub(super) fn new(books: Option<Arc<Books>>, session: &str) -> Self {
        if let Some(books) = &books {
            books.sessions.fetch_add(1, Ordering::Relaxed);
        }
        Self { books, session: session.to_owned(), handed: Arc::default(), summary: None }
    }

    pub(super) fn handing(&self) -> Handing {
        Handing { books: self.books.clone(), handed: Arc::clone(&self.handed) }
    }

    pub(super) fn sum_up(&mut self, summary: PushTelemetryResponse) {
        self.summary = Some(summary);
    }
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        let Some(books) = &self.books else { return };
        let session = std::mem::take(&mut self.session);
        let account = Account { session, handed: self.handed.load(Ordering::Relaxed), summary: self.summary.take() };
        let mut closed = books.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed.len() < WAITING {
            closed.push(account);
        } else {
            books.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Handing {
    /// The transport took one more.
    pub(super) fn count(&self) {
        if let Some(books) = &self.books {
            self.handed.fetch_add(1, Ordering::Relaxed);
            books.frames.fetch_add(1, Ordering::Relaxed);
        }
    }
}
