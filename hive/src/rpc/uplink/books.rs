//! What became of the frames of sessions: kept for whoever checks that none is lost unseen, and only on request.

use proto::PushTelemetryResponse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::watch;

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
    open: watch::Sender<u64>,
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

    /// How many accounts are open, now and later. One outlives its session until the transport has let go of the frames.
    pub fn open(&self) -> watch::Receiver<u64> {
        self.open.subscribe()
    }

    /// Takes the accounts that were closed since the last call.
    pub fn take_closed(&self) -> Vec<Account> {
        std::mem::take(&mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn close(&self, account: Account) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if closed.len() < WAITING {
            closed.push(account);
        } else {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        drop(closed);
        self.open.send_modify(|open| *open -= 1);
    }
}

/// The account of a session, shared by who opened it and the stream of its frames: the transport may take one more
/// after the session was given up. Closed when the last of them lets go, however that comes about.
#[derive(Debug, Clone)]
pub(super) struct OpenAccount(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    books: Arc<Books>,
    session: String,
    handed: AtomicU64,
    summary: OnceLock<PushTelemetryResponse>,
}

impl OpenAccount {
    /// Without books nothing is counted.
    pub(super) fn new(books: Option<Arc<Books>>, session: &str) -> Self {
        Self(books.map(|books| {
            books.sessions.fetch_add(1, Ordering::Relaxed);
            books.open.send_modify(|open| *open += 1);
            Arc::new(Open { books, session: session.to_owned(), handed: AtomicU64::new(0), summary: OnceLock::new() })
        }))
    }

    /// The transport took one more.
    pub(super) fn count(&self) {
        if let Some(open) = &self.0 {
            open.handed.fetch_add(1, Ordering::Relaxed);
            open.books.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The session ended, and the queen said this.
    pub(super) fn sum_up(&self, summary: PushTelemetryResponse) {
        if let Some(open) = &self.0 {
            let _only_once = open.summary.set(summary);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let session = std::mem::take(&mut self.session);
        let handed = self.handed.load(Ordering::Relaxed);
        self.books.close(Account { session, handed, summary: self.summary.take() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t6_an_account_is_open_until_the_transport_lets_go_of_the_frames() {
        let books = Arc::new(Books::default());
        let session = OpenAccount::new(Some(books.clone()), "box/1/token");
        let frames = session.clone();
        frames.count();
        drop(session);
        assert_eq!((books.take_closed(), *books.open().borrow()), (vec![], 1));
        frames.count();
        drop(frames);
        let account = Account { session: "box/1/token".to_owned(), handed: 2, summary: None };
        assert_eq!((books.take_closed(), *books.open().borrow()), (vec![account], 0));
        assert_eq!((books.frames(), books.sessions(), books.missed()), (2, 1, 0));
    }

    #[test]
    fn t6_what_the_queen_says_of_a_session_is_in_its_account() {
        let books = Arc::new(Books::default());
        let (session, summary) = (
            OpenAccount::new(Some(books.clone()), "s"),
            PushTelemetryResponse { frames_accepted: 1, ..Default::default() },
        );
        let frames = session.clone();
        frames.count();
        session.sum_up(summary);
        drop((frames, session));
        assert_eq!(books.take_closed(), [Account { session: "s".to_owned(), handed: 1, summary: Some(summary) }]);
    }
}
