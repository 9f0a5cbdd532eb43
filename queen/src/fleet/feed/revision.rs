//! Revisions as clients hold them: how far one has been told, and since when it holds everything.

use std::fmt;

/// A place in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// Everything that stands up to here has been told.
    pub cursor: u64,
    /// Everything that had changed by then has been told: the cursor, but less between two pages of one reading. What
    /// changed in between may have changed again, and stand behind the cursor now.
    pub whole: u64,
}

impl Revision {
    /// Of who holds everything there was at a revision.
    pub fn at(cursor: u64) -> Self {
        Self { cursor, whole: cursor }
    }

    /// From the text that was told, less the queen's name.
    pub fn parse(text: &str) -> Option<Self> {
        let (cursor, whole) = text.split_once(':').map_or((text, None), |(cursor, whole)| (cursor, Some(whole)));
        let cursor = cursor.parse().ok()?;
        let whole = whole.map_or(Ok(cursor), str::parse).ok()?;
        (whole <= cursor).then_some(Self { cursor, whole })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cursor, whole } = self;
        if whole == cursor { write!(f, "{cursor}") } else { write!(f, "{cursor}:{whole}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_read() {
        for (text, cursor, whole) in [("7", 7, 7), ("7:0", 7, 0), ("0", 0, 0)] {
            let revision = Revision { cursor, whole };
            assert_eq!((revision.to_string().as_str(), Revision::parse(text)), (text, Some(revision)));
        }
        for bad in ["", ":", "7:", ":7", "7:8", "-1", "7:6:5", "x"] {
            assert_eq!(Revision::parse(bad), None, "{bad}");
        }
    }
}
