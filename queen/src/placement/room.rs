//! `FindWorkersWithCapacity`: workers with room on one GPU that they use, or were given; on any of their hive when they
//! use none. Room on two GPUs is never added up.

use super::objection::Objection;
use crate::fleet::room::{self, Unfit};
use crate::fleet::{Measured, Seen};

/// No GPU of it has the room: what speaks against each.
pub fn objections<'a>(seen: &Seen<'a>, required: u64, headroom: u64, say: &mut impl FnMut(Objection<'a>)) {
    let record = seen.on().record();
    // The document's comparison, with the device's own total: used + required < total − headroom.
    let enough = |free: u64| required.checked_add(headroom).is_some_and(|needed| needed < free);
    if gpus_of(seen).any(|at| room::of(record, at).is_ok_and(|room| enough(room.free))) {
        return;
    }
    let mut none = true;
    for at in gpus_of(seen) {
        none = false;
        let uuid = record.gpus.get(at).map_or("", |gpu| gpu.uuid.as_str());
        match room::of(record, at) {
            Ok(room) => say(Objection::NoRoom { uuid, room, required, headroom }),
            // That speaks against all of them, and is said once.
            Err(unfit @ (Unfit::Draining | Unfit::Stopping)) => return say(Objection::Unfit { uuid, unfit }),
            Err(unfit) => say(Objection::Unfit { uuid, unfit }),
        }
    }
    if none {
        say(Objection::NoGpu);
    }
}

/// The most bytes that are free on one of its GPUs.
pub fn most_free(seen: &Seen<'_>) -> Option<u64> {
    let record = seen.on().record();
    gpus_of(seen).filter_map(|at| room::of(record, at).ok()).map(|room| room.free).max()
}

/// Positions in its hive's record of the GPUs that it uses or was given; of all when there are none of those.
fn gpus_of<'a>(seen: &Seen<'a>) -> impl Iterator<Item = usize> + use<'a> {
    let used = seen.stats().map(Measured::gpus).unwrap_or_default();
    let given = &seen.spec().gpu_uuids;
    let any = used.is_empty() && given.is_empty();
    let is_its = move |uuid: &String| {
        any || used.iter().any(|used| used.uuid == *uuid) || given.iter().any(|given| **given == **uuid)
    };
    seen.on().record().gpus.iter().enumerate().filter(move |(_, gpu)| is_its(&gpu.uuid)).map(|(at, _)| at)
}
