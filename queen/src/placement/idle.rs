//! `FindIdleWorkers`: who is doing nothing, by what its hive decided or by its GPU alone, and for how long.

use super::objection::Objection;
use crate::fleet::Seen;
use crate::fleet::index::{is_idle, is_unused};
use proto::Activity;
use std::time::Duration;

/// By its activity; whether there is one.
pub fn objections<'a>(seen: &Seen<'a>, say: &mut impl FnMut(Objection<'a>)) -> bool {
    match seen.stats() {
        Some(stats) if is_idle(stats) => return false,
        Some(stats) if stats.activity() == Activity::Busy => say(Objection::Busy(stats)),
        stats => say(Objection::Unknown(stats)),
    }
    true
}

/// By its GPU use; whether there is one.
pub fn gpu_objections<'a>(seen: &Seen<'a>, say: &mut impl FnMut(Objection<'a>)) -> bool {
    match seen.stats() {
        Some(stats) if is_unused(stats) => return false,
        Some(stats) => match stats.gpu_util_pct() {
            Some(util) if util != 0.0 => say(Objection::GpuInUse(util)),
            _ => say(Objection::Unknown(Some(stats))),
        },
        None => say(Objection::Unknown(None)),
    }
    true
}

/// For how long. That it is not idle at all is not said twice.
pub fn too_short<'a>(seen: &Seen<'a>, least: Duration, said_busy: bool, say: &mut impl FnMut(Objection<'a>)) {
    match seen.idle_for() {
        Some(idle) if idle >= least => {}
        None if said_busy => {}
        idle => say(Objection::IdleTooShort { idle, least }),
    }
}
