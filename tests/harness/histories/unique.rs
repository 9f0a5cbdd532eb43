//! Nothing is told twice.

use super::client::{Client, told};
use super::{Fault, History, Moment};
use proto::Update;
use proto::watch_response::Event;
use std::collections::HashSet;

/// Whether an update tells of any object.
pub(super) fn has_objects(update: &Update) -> bool {
    !(update.workers.is_empty()
        && update.hives.is_empty()
        && update.removed_workers.is_empty()
        && update.removed_hives.is_empty())
}

/// Checks that no update names an object twice, be it as removed.
pub fn unique(history: &History) -> Result<(), Fault> {
    for (moment, _, what) in history.moments() {
        let Moment::Heard(message) = what else { continue };
        let Some(Event::Update(update)) = &message.event else { continue };
        let mut names = HashSet::new();
        let removed = update.removed_workers.iter().chain(&update.removed_hives).cloned();
        for name in told(update).map(|object| object.name()).chain(removed) {
            if !names.insert(name.clone()) {
                return Err(Fault::new(moment, format!("{name} twice in one update")));
            }
        }
    }
    Ok(())
}

/// Checks that no object is told as news that the client holds as it is. Holds for watchers with a mask, but as often as
/// states between were merged, and not in streams that resumed: the queen does not know what those clients hold.
pub fn no_repeats(history: &History) -> Result<(), Fault> {
    let (mut client, mut resumed, mut merged) = (Client::default(), false, 0);
    for (moment, _, what) in history.moments() {
        match what {
            Moment::Opened(resume_after) => resumed = !resume_after.is_empty(),
            Moment::Ended => {}
            Moment::Heard(message) => match &message.event {
                Some(Event::SnapshotBegin(_)) => (resumed, merged) = (false, 0),
                Some(Event::Update(update)) if !client.in_snapshot && !resumed => {
                    merged += update.conflated;
                    for object in told(update).filter(|object| client.objects.get(&object.name()) == Some(object)) {
                        if merged > 0 {
                            merged -= 1;
                            continue;
                        }
                        return Err(Fault::new(moment, format!("{} is told as it was", object.name())));
                    }
                }
                _ => {}
            },
        }
        client.take(what);
    }
    Ok(())
}
