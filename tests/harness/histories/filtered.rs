//! W7, and nothing made up: what is told was true, matched, and is never older than what was told of it before.

use super::client::told;
use super::{Fault, History, Lens, Log, Moment, revision};
use proto::watch_response::Event;
use std::collections::HashMap;

/// Checks every object that is told against the states it ever had.
pub fn filtered(history: &History, log: &Log, lens: Lens<'_>) -> Result<(), Fault> {
    let mut seen: HashMap<String, u64> = HashMap::new();
    for (moment, _, what) in history.moments() {
        let Moment::Heard(message) = what else { continue };
        let update = match &message.event {
            Some(Event::SnapshotBegin(_)) => {
                seen.clear();
                continue;
            }
            Some(Event::Update(update)) => update,
            _ => continue,
        };
        let Some((instance, upper)) = revision(&update.revision) else { continue };
        for object in told(update) {
            let name = object.name();
            let least = seen.get(&name).copied().unwrap_or(0);
            // The newest one that it can be: equal states are told apart by nobody.
            let states = log.states(instance, &name).iter().rev();
            let is = |state: &Option<_>| state.as_ref().and_then(lens).as_ref() == Some(&object);
            let was = states.filter(|(revision, _)| *revision <= upper).find(|(_, state)| is(state));
            match was {
                Some((revision, _)) if *revision >= least => seen.insert(name, *revision),
                Some(_) => return Err(Fault::new(moment, format!("{name} is told as it was before: {object:?}"))),
                None => return Err(Fault::new(moment, format!("{name} never matched as {object:?} by {upper}"))),
            };
        }
        for name in update.removed_workers.iter().chain(&update.removed_hives) {
            let states = log.states(instance, name).iter();
            let left = |state: &Option<_>| state.as_ref().and_then(lens).is_none();
            if !states.clone().any(|(revision, state)| *revision <= upper && left(state)) {
                return Err(Fault::new(moment, format!("{name} is told as removed and never left by {upper}")));
            }
        }
    }
    Ok(())
}
