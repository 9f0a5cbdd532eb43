//! What all simulated hives share: where each stands, what it has, and the books.

use hive::rpc::uplink::{Books, LinkState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// One hive, as it stands.
#[derive(Debug, Default)]
struct Place {
    link: Option<watch::Receiver<LinkState>>,
    workers: Vec<(String, String)>,
}

/// The board.
#[derive(Debug)]
pub struct Board {
    places: Vec<Mutex<Place>>,
    calm: AtomicBool,
    /// The books of every session.
    pub books: Arc<Books>,
}

impl Board {
    /// For so many hives.
    pub fn new(hives: u32) -> Self {
        let places = (0..hives).map(|_| Mutex::default()).collect();
        Self { places, calm: AtomicBool::new(false), books: Arc::default() }
    }

    /// From now on numbers move and nothing else happens.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// Whether nothing but numbers shall move.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn with(&self, index: u32, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.places.get(index as usize) {
            change(&mut place.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// A hive has a new uplink.
    pub fn linked(&self, index: u32, link: watch::Receiver<LinkState>) {
        self.with(index, |place| place.link = Some(link));
    }

    /// A hive has these workers: names and models.
    pub fn has(&self, index: u32, workers: Vec<(String, String)>) {
        self.with(index, |place| place.workers = workers);
    }

    /// How many hives are registered and push.
    pub fn connected(&self) -> usize {
        let connected = |place: &&Mutex<Place>| {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner);
            place.link.as_ref().is_some_and(|link| link.borrow().connected)
        };
        self.places.iter().filter(connected).count()
    }

    /// Why some hive is not, if one is not.
    pub fn trouble(&self) -> Option<String> {
        self.places.iter().find_map(|place| {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner);
            place.link.as_ref().and_then(|link| link.borrow().error.clone())
        })
    }

    /// Every worker there is, with its model.
    pub fn workers(&self) -> Vec<(String, String)> {
        let workers = |place: &Mutex<Place>| place.lock().unwrap_or_else(PoisonError::into_inner).workers.clone();
        self.places.iter().flat_map(workers).collect()
    }
}
