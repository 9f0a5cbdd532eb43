//! The connections that are open: how many in all, how many of each address.

use crate::bound::{Bound, Bounds, Place};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;

/// So many connections at once are told that there is no room for them. Further ones are closed without a word.
const TURNED: usize = 64;

/// How many connections each address has.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    /// The most that one address has, this machine left out.
    pub fn most(&self) -> usize {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().filter(|(address, _)| !address.is_loopback()).map(|(_, count)| *count).max().unwrap_or(0)
    }

    fn of(&self, address: IpAddr) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied().unwrap_or(0)
    }

    fn enter(&self, address: IpAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(address).or_default() += 1;
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// A connection's place, given back when it drops.
#[derive(Debug)]
pub struct Entered {
    _place: Place,
    address: IpAddr,
    addresses: Arc<Addresses>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.addresses.leave(self.address);
    }
}

/// Who may come in.
#[derive(Debug)]
pub struct Open {
    bounds: Bounds,
    addresses: Arc<Addresses>,
    turned: Arc<Bound>,
    full: bool,
}

impl Open {
    /// Everybody, as yet.
    pub fn new(bounds: Bounds, addresses: Arc<Addresses>) -> Self {
        let turned = Bound::new(TURNED);
        Self { bounds, addresses, turned, full: false }
    }

    /// A place for a connection of `peer`, if there is one.
    pub fn enter(&mut self, peer: IpAddr) -> Option<Entered> {
        // A port that takes both kinds of addresses shows those of IPv4 as `::ffff:10.0.0.1`.
        let host = peer.to_canonical();
        let from_it = self.addresses.of(host);
        let many = !host.is_loopback() && from_it >= self.bounds.per_address.limit();
        if many {
            self.bounds.per_address.refuse();
        }
        let place = if many { None } else { self.bounds.connections.enter() };
        let was_full = std::mem::replace(&mut self.full, place.is_none());
        if place.is_none() && !was_full {
            let connections = self.bounds.connections.taken();
            warn!(%peer, connections, from_it, "too many connections: refusing further ones");
        }
        let (place, addresses) = (place?, Arc::clone(&self.addresses));
        addresses.enter(host);
        Some(Entered { _place: place, address: host, addresses })
    }

    /// A place for one that is told that there is no room, if not too many are being told that already.
    pub fn turn_away(&self) -> Option<Place> {
        self.turned.enter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn one_address_does_not_take_the_places_of_all() {
        let config = Config { max_connections: 4, max_connections_per_address: 2, ..Config::default() };
        let bounds = Bounds::new(&config);
        let addresses = Arc::new(Addresses::default());
        let mut open = Open::new(bounds.clone(), Arc::clone(&addresses));
        let [greedy, other, here]: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let mut entered: Vec<Entered> = [greedy, greedy].into_iter().filter_map(|peer| open.enter(peer)).collect();
        assert_eq!(entered.len(), 2);
        assert!(open.enter(greedy).is_none());
        assert_eq!((bounds.per_address.refused(), addresses.most()), (1, 2));
        entered.extend([other, here].into_iter().filter_map(|peer| open.enter(peer)));
        assert_eq!(entered.len(), 4);
        assert!(open.enter(here).is_none(), "four in all");
        assert_eq!((bounds.connections.taken(), bounds.connections.refused()), (4, 1));
        entered.clear();
        assert_eq!((bounds.connections.taken(), addresses.most()), (0, 0));
        assert!(open.enter(greedy).is_some());
    }

    #[test]
    fn one_host_is_one_whatever_address_it_shows() {
        let config = Config { max_connections_per_address: 1, ..Config::default() };
        let (bounds, addresses) = (Bounds::new(&config), Arc::new(Addresses::default()));
        let mut open = Open::new(bounds.clone(), Arc::clone(&addresses));
        let mut enter = |ip: &str| open.enter(ip.parse().unwrap());
        let here = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:127.0.0.1", "::1"].map(&mut enter);
        assert!(here.iter().all(Option::is_some), "this machine is not bounded");
        assert_eq!(addresses.most(), 0);
        let four = [enter("::ffff:10.0.0.1"), enter("10.0.0.1"), enter("10.0.0.2")];
        assert_eq!(four.each_ref().map(Option::is_some), [true, false, true]);
        assert_eq!((addresses.most(), bounds.per_address.refused()), (1, 1));
        drop((here, four));
        assert!(addresses.0.lock().unwrap().is_empty(), "each leaves where it has entered");
    }
}
