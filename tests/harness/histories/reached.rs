//! W2: the last state of every object, deletion included, reaches every watcher that keeps reading.

use super::client::Object;
use super::{Fault, History};
use std::collections::{BTreeMap, BTreeSet};

/// Checks what the client holds at the end against what there is.
pub fn reached(history: &History, last: &BTreeMap<String, Object>) -> Result<(), Fault> {
    let client = history.client();
    let moment = history.moments().count().saturating_sub(1);
    let names: BTreeSet<&String> = last.keys().chain(client.objects.keys()).collect();
    for name in names {
        let (held, is) = (client.objects.get(name), last.get(name));
        if held != is {
            return Err(Fault::new(moment, format!("{name}: held {held:?} at the end, but it is {is:?}")));
        }
    }
    Ok(())
}
