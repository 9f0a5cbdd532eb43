//! The reference: every state that every object ever had, under the revision at which the queen linked it.

use super::client::{Client, Object};
use super::{Fault, revision};
use std::collections::BTreeMap;

/// What a watcher is shown of an object, by its filter and mask; `None` where it does not match.
pub type Lens<'a> = &'a dyn Fn(&Object) -> Option<Object>;

/// States of one object, the oldest first; `None` is its removal.
type States = Vec<(u64, Option<Object>)>;

/// The reference. Revisions of one run of a queen are never those of another.
#[derive(Debug, Default)]
pub struct Log {
    runs: BTreeMap<String, BTreeMap<String, States>>,
}

impl Log {
    /// Notes a state; `None` is a removal. Revisions of one object must grow.
    pub fn note(&mut self, instance: &str, revision: u64, name: &str, state: Option<Object>) {
        let run = self.runs.entry(instance.to_owned()).or_default();
        run.entry(name.to_owned()).or_default().push((revision, state));
    }

    /// All states of an object under a run.
    pub fn states(&self, instance: &str, name: &str) -> &[(u64, Option<Object>)] {
        self.runs.get(instance).and_then(|run| run.get(name)).map_or(&[], Vec::as_slice)
    }

    /// What there is at the end of a run, as it is shown.
    pub fn last(&self, instance: &str, lens: Lens<'_>) -> BTreeMap<String, Object> {
        let run = self.runs.get(instance).into_iter().flatten();
        let last = run.filter_map(|(name, states)| Some((name.clone(), lens(states.last()?.1.as_ref()?)?)));
        last.collect()
    }

    /// Whether a client that says it has read up to its revision holds every object as it was then or is now, and
    /// nothing else. Not `strict`: between two messages of one flush, an object that has a newer state may still be
    /// held as it was before, or not at all: the newer state is on its way.
    pub(super) fn fits(&self, client: &Client, lens: Lens<'_>, strict: bool, moment: usize) -> Result<(), Fault> {
        let Some((instance, read)) = revision(&client.revision) else { return Ok(()) };
        let names = self.runs.get(instance).into_iter().flatten().map(|(name, _)| name);
        for name in names.chain(client.objects.keys()) {
            let states = self.states(instance, name);
            // The state at the revision, and all that came after it.
            let at = states.iter().rposition(|(revision, _)| *revision <= read);
            let shown = |state: &Option<Object>| state.as_ref().and_then(lens);
            let later = &states[at.map_or(0, |at| at + 1)..];
            if !strict && !later.is_empty() {
                continue;
            }
            let held = client.objects.get(name);
            let then = at.and_then(|at| shown(&states[at].1));
            if held != then.as_ref() && !later.iter().any(|(_, state)| shown(state).as_ref() == held) {
                let what = format!("{name} at {}: held {held:?}, but it was {then:?}", client.revision);
                return Err(Fault::new(moment, what));
            }
        }
        Ok(())
    }
}
