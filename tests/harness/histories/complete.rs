//! W5: at the end of a snapshot nothing is missing.

use super::client::Client;
use super::{Fault, History, Lens, Log, Moment};
use proto::watch_response::Event;

/// Checks at every SnapshotEnd R that the client holds every object at R or newer, and nothing else.
pub fn complete(history: &History, log: &Log, lens: Lens<'_>) -> Result<(), Fault> {
    let mut client = Client::default();
    for (moment, _, what) in history.moments() {
        client.take(what);
        let Moment::Heard(message) = what else { continue };
        if matches!(message.event, Some(Event::SnapshotEnd(_))) {
            log.fits(&client, lens, true, moment)?;
        }
    }
    Ok(())
}
