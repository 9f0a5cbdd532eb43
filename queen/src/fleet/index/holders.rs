//! Which hives have granted something, and for which reservation and key. Written only when a hive's record names others
//! than before. Names are kept as hashes: whoever is found is looked at again.

use common::HiveId;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// By what a hold is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Among<'a> {
    /// Holds of this reservation.
    Reservation(&'a str),
    /// Holds that were asked for with this key.
    Key(&'a str),
    /// Every hold.
    All,
}

/// All hives with holds.
#[derive(Debug, Default)]
pub struct Holders {
    by_name: HashMap<u64, Vec<Arc<HiveId>>>,
    all: BTreeSet<Arc<HiveId>>,
}

impl Holders {
    /// A hive has these names now, and had others before.
    pub fn put(&mut self, hive: &Arc<HiveId>, before: &[u64], now: &[u64]) {
        for name in before.iter().filter(|name| now.binary_search(name).is_err()) {
            if let Some(hives) = self.by_name.get_mut(name) {
                hives.retain(|other| other != hive);
                if hives.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
        for name in now.iter().filter(|name| before.binary_search(name).is_err()) {
            self.by_name.entry(*name).or_default().push(Arc::clone(hive));
        }
        if now.is_empty() {
            self.all.remove(hive);
        } else {
            self.all.insert(Arc::clone(hive));
        }
    }

    /// Hives that may have such holds, in no order.
    pub fn hives(&self, seed: &RandomState, among: Among<'_>) -> Vec<Arc<HiveId>> {
        match among {
            Among::All => self.all.iter().cloned().collect(),
            name => self.by_name.get(&seed.hash_one(name)).cloned().unwrap_or_default(),
        }
    }
}

/// What these holds can be looked for by, in order.
pub fn names(seed: &RandomState, holds: &[proto::Hold]) -> Vec<u64> {
    let mut names = Vec::with_capacity(holds.len());
    for hold in holds {
        names.push(seed.hash_one(Among::Reservation(&hold.reservation)));
        if !hold.key.is_empty() {
            names.push(seed.hash_one(Among::Key(&hold.key)));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Hold;

    #[test]
    fn hives_are_found_by_what_they_hold_now() {
        let (mut holders, seed) = (Holders::default(), RandomState::new());
        let hive = |name: &str| Arc::new(HiveId::parse(name).unwrap());
        let hold =
            |reservation: &str, key: &str| Hold { reservation: reservation.into(), key: key.into(), ..Hold::default() };
        let two = names(&seed, &[hold("r1", "k"), hold("r1", "k"), hold("r2", "")]);
        assert_eq!(two.len(), 3, "each once, and no key is no name");
        holders.put(&hive("a"), &[], &two);
        let one = names(&seed, &[hold("r1", "k")]);
        holders.put(&hive("b"), &[], &one);
        let found = |holders: &Holders, among| {
            holders.hives(&seed, among).iter().map(|hive| hive.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found(&holders, Among::Reservation("r1")), ["a", "b"]);
        assert_eq!(found(&holders, Among::Key("k")), ["a", "b"]);
        assert_eq!(found(&holders, Among::Reservation("r2")), ["a"]);
        assert_eq!(found(&holders, Among::Reservation("k")), [""; 0]);
        holders.put(&hive("a"), &two, &one);
        assert_eq!(
            (found(&holders, Among::Reservation("r2")), found(&holders, Among::All)),
            (vec![], vec!["a".into(), "b".into()])
        );
        holders.put(&hive("a"), &one, &[]);
        holders.put(&hive("b"), &one, &[]);
        assert!(holders.by_name.is_empty() && holders.all.is_empty());
    }
}
