//! Bounds: how many of something there may be at once, how many there are, and how often there was no room. A bound of
//! sizes has no present count: only its limit and its refusals are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One bound. Cheap to share; all methods take `&self`.
#[derive(Debug)]
pub struct Bound {
    limit: usize,
    taken: AtomicUsize,
    refused: AtomicU64,
}

/// A place within a bound, or several, given back when it drops.
#[derive(Debug)]
pub struct Place(Arc<Bound>, usize);

impl Bound {
    /// At most `limit` places.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// A place, or `None` when all are taken, which is counted.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        self.take(1)
    }

    /// So many places at once, or none.
    pub fn take(self: &Arc<Self>, places: usize) -> Option<Place> {
        let next = |taken: usize| taken.checked_add(places).filter(|taken| *taken <= self.limit);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_err() {
            self.refuse();
            return None;
        }
        Some(Place(Arc::clone(self), places))
    }

    /// Counts a refusal that somebody else decided upon.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many there are.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// Every bound of a queen that is not the fleet's own.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections in all.
    pub connections: Arc<Bound>,
    /// Connections of the address that has most of them; this machine itself is not bounded.
    pub per_address: Arc<Bound>,
    /// Unary calls that run.
    pub calls: Arc<Bound>,
    /// Reservations that are being made.
    pub reserving: Arc<Bound>,
    /// Unary calls to hives.
    pub hive_calls: Arc<Bound>,
    /// Streams from hives.
    pub hive_streams: Arc<Bound>,
    /// Hives that are attached.
    pub tunnels: Arc<Bound>,
    /// Watches.
    pub watchers: Arc<Bound>,
    /// Bytes of a question.
    pub request_bytes: Arc<Bound>,
    /// Bytes of the headers of one request.
    pub header_bytes: Arc<Bound>,
    /// Calls at once on one connection.
    pub streams: Arc<Bound>,
    /// Bytes of answers that wait for their readers, of all connections together.
    pub unread_bytes: Arc<Bound>,
}

impl Bounds {
    /// As configured.
    pub fn new(config: &crate::Config) -> Self {
        Self {
            connections: Bound::new(config.max_connections),
            per_address: Bound::new(config.max_connections_per_address),
            calls: Bound::new(config.max_calls),
            reserving: Bound::new(config.max_reserving),
            hive_calls: Bound::new(config.max_hive_calls),
            hive_streams: Bound::new(config.max_hive_streams),
            tunnels: Bound::new(config.max_tunnels),
            watchers: Bound::new(config.max_watchers),
            request_bytes: Bound::new(config.max_request_bytes),
            header_bytes: Bound::new(config.max_header_bytes as usize),
            streams: Bound::new(config.max_streams as usize),
            unread_bytes: Bound::new(config.max_unread_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_drops_is_free_again() {
        let bound = Bound::new(2);
        let (one, _two) = (bound.enter().unwrap(), bound.enter().unwrap());
        assert!(bound.enter().is_none() && bound.enter().is_none());
        drop(one);
        let _three = bound.enter().unwrap();
        assert_eq!((bound.taken(), bound.limit(), bound.refused()), (2, 2, 2));
    }

    #[test]
    fn several_places_are_taken_whole_or_not() {
        let bound = Bound::new(10);
        let six = bound.take(6).unwrap();
        assert!(bound.take(5).is_none() && bound.take(usize::MAX).is_none());
        let _four = bound.take(4).unwrap();
        drop(six);
        assert_eq!((bound.taken(), bound.refused()), (4, 2));
    }

    #[test]
    fn many_threads_get_no_more_places_than_there_are() {
        let (bound, most) = (Bound::new(3), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let _place = bound.enter();
                        most.fetch_max(bound.taken(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(bound.taken(), 0);
        assert!(most.into_inner() <= 3);
    }
}
