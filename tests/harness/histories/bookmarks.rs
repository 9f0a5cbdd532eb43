//! W4: bookmarks keep coming.

use super::{Fault, History, Moment};
use proto::watch_response::Event;
use std::time::Duration;

/// Checks that from the end of its snapshot on, or from where it resumed, no stream is without a bookmark for longer
/// than `limit`. A client reads them late if it reads late: this is for those that keep reading.
pub fn bookmarks(history: &History, limit: Duration) -> Result<(), Fault> {
    // Since when the next bookmark is waited for.
    let mut since = None;
    for (moment, at, what) in history.moments() {
        if let Some(waited) = since.map(|since: Duration| at.saturating_sub(since)).filter(|waited| *waited > limit) {
            return Err(Fault::new(moment, format!("no bookmark for {waited:?}")));
        }
        match what {
            Moment::Opened(resume_after) => since = (!resume_after.is_empty()).then_some(at),
            Moment::Ended => since = None,
            Moment::Heard(message) => match &message.event {
                Some(Event::SnapshotBegin(_)) => since = None,
                Some(Event::SnapshotEnd(_) | Event::Bookmark(_)) => since = Some(at),
                _ => {}
            },
        }
    }
    Ok(())
}
