//! Grants as the world is told of them.

use super::grant::{Grant, Thing};
use common::timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// What is told of what is granted, as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Every hold.
    pub holds: Vec<proto::Hold>,
    /// The newest fencing token that was ever given.
    pub last_token: u64,
    /// Reservations of several grants of which one here ended before it was confirmed.
    pub aborted: Vec<String>,
    /// Bytes of each GPU that are granted or promised and not used yet.
    pub bytes: BTreeMap<String, u64>,
}

/// Holds, in the order of the grants. `used` tells how many bytes a worker uses of a GPU: what it uses of several grants
/// is that of the first ones.
pub fn shown(grants: &[Grant], used: &dyn Fn(&str, &str) -> u64) -> Vec<proto::Hold> {
    let mut left: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut holds = Vec::with_capacity(grants.len());
    for grant in grants {
        let mut hold = hold(grant);
        if let (Some((gpu, bytes)), Some(user)) = (grant.vram(), &grant.used) {
            let left = left.entry((&user.by, gpu)).or_insert_with(|| used(&user.by, gpu));
            let part = bytes.min(*left);
            *left -= part;
            hold.unused_vram_bytes = bytes - part;
        }
        holds.push(hold);
    }
    holds
}

/// As if nothing of it were used.
fn hold(grant: &Grant) -> proto::Hold {
    let (worker, gpu_uuid, vram_bytes) = match &grant.thing {
        Thing::Worker(worker) => (worker.clone(), String::new(), 0),
        Thing::Vram { gpu, bytes } => (String::new(), gpu.clone(), *bytes),
        Thing::Key => <_>::default(),
    };
    let end = UNIX_EPOCH.checked_add(Duration::from_nanos(grant.until_unix));
    proto::Hold {
        reservation: grant.reservation.clone(),
        part: grant.part,
        worker,
        gpu_uuid,
        vram_bytes,
        fencing_token: grant.token,
        // What a worker uses does not expire.
        expire_time: end.filter(|_| grant.used.is_none()).map(timestamp),
        holder: grant.holder.clone(),
        key: grant.key.clone(),
        used_by: grant.used.as_ref().map(|used| used.by.clone()).unwrap_or_default(),
        tentative: grant.tentative,
        unused_vram_bytes: vram_bytes,
        wish: grant.wish,
        reservation_size: grant.size,
    }
}

/// Whether two records tell the same of what is granted, and of what was and has ended; but for what workers use of it,
/// which moves all the time.
pub fn same_holds(one: &proto::Hive, other: &proto::Hive) -> bool {
    let same = |(one, other): (&proto::Hold, &proto::Hold)| {
        proto::Hold { unused_vram_bytes: 0, ..one.clone() } == proto::Hold { unused_vram_bytes: 0, ..other.clone() }
    };
    one.last_fencing_token == other.last_fencing_token
        && one.aborted_reservations == other.aborted_reservations
        && one.holds.len() == other.holds.len()
        && one.holds.iter().zip(&other.holds).all(same)
}
