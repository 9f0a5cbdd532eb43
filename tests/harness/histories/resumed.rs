//! W3: a resume yields everything newer, or a snapshot with its reason; never a silent gap.

use super::client::Client;
use super::{Fault, History, Lens, Log, Moment, revision};
use proto::SnapshotReason;
use proto::watch_response::Event;

/// Checks why each snapshot was sent, and that after every message outside of one the client holds everything up to
/// the revision that it was told.
pub fn resumed(history: &History, log: &Log, lens: Lens<'_>) -> Result<(), Fault> {
    let (mut client, mut asked, mut first) = (Client::default(), String::new(), true);
    for (moment, _, what) in history.moments() {
        client.take(what);
        let message = match what {
            Moment::Opened(resume_after) => {
                (asked, first) = (resume_after.clone(), true);
                continue;
            }
            Moment::Ended => continue,
            Moment::Heard(message) => message,
        };
        match &message.event {
            Some(Event::SnapshotBegin(begin)) => reason(begin.reason(), &asked, first, moment)?,
            Some(Event::Update(_) | Event::Bookmark(_)) if !client.in_snapshot => {
                let told = revision(&client.revision).map(|(instance, _)| instance);
                if first && revision(&asked).map(|(instance, _)| instance) != told {
                    return Err(Fault::new(moment, format!("{asked:?} goes on as {}, unannounced", client.revision)));
                }
                if client.whole {
                    log.fits(&client, lens, false, moment)?;
                }
            }
            _ => {}
        }
        first = false;
    }
    Ok(())
}

fn reason(reason: SnapshotReason, asked: &str, first: bool, moment: usize) -> Result<(), Fault> {
    let fits = match reason {
        SnapshotReason::Initial => first && asked.is_empty(),
        SnapshotReason::QueenRestarted | SnapshotReason::Compacted => first && !asked.is_empty(),
        // A resume may fall behind before it has read anything.
        SnapshotReason::FellBehind => !first || !asked.is_empty(),
        SnapshotReason::Unspecified => false,
    };
    let place = if first { "at the beginning" } else { "later on" };
    if fits { Ok(()) } else { Err(Fault::new(moment, format!("{reason:?} {place} of a resume after {asked:?}"))) }
}
