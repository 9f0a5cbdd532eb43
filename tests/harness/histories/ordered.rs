//! W1: revisions grow. Whatever tells of an object stands above everything told before it.

use super::{Fault, History, Moment, revision};
use proto::watch_response::Event;

/// Checks the order of revisions, and that snapshots begin and end.
pub fn ordered(history: &History) -> Result<(), Fault> {
    let (mut last, mut open) = (None::<(String, u64)>, false);
    for (moment, _, what) in history.moments() {
        let message = match what {
            Moment::Opened(resume_after) => {
                last = revision(resume_after).map(|(instance, number)| (instance.to_owned(), number));
                open = false;
                continue;
            }
            Moment::Ended => continue,
            Moment::Heard(message) => message,
        };
        let (text, news) = match &message.event {
            Some(Event::SnapshotBegin(_)) => {
                (last, open) = (None, true);
                continue;
            }
            Some(Event::Update(update)) => (&update.revision, super::unique::has_objects(update)),
            Some(Event::SnapshotEnd(end)) if std::mem::take(&mut open) => (&end.revision, false),
            Some(Event::SnapshotEnd(_)) => return Err(Fault::new(moment, "a snapshot ends that did not begin")),
            Some(Event::Bookmark(_)) if open => return Err(Fault::new(moment, "a bookmark within a snapshot")),
            Some(Event::Bookmark(bookmark)) => (&bookmark.revision, false),
            None => return Err(Fault::new(moment, "a message without an event")),
        };
        let Some((instance, number)) = revision(text) else {
            return Err(Fault::new(moment, format!("{text:?} is no revision")));
        };
        if let Some((before, least)) = &last {
            let grows = if news { number > *least } else { number >= *least };
            if before != instance || !grows {
                return Err(Fault::new(moment, format!("{text} follows {before}:{least}")));
            }
        }
        last = Some((instance.to_owned(), number));
    }
    Ok(())
}
