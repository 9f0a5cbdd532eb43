//! The two tables of HPACK: that which every peer knows, and that which a peer fills as it goes.

use bytes::Bytes;
use std::collections::VecDeque;

/// What an entry counts for besides its bytes (RFC 7541, 4.1).
pub const ENTRY: usize = 32;
/// The size of the second table that a peer may fill unless it is told otherwise, in bytes. We tell nothing.
pub const SIZE: usize = 4096;

/// RFC 7541, appendix A.
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// One entry of the second table. A name may be that of many.
#[derive(Debug)]
struct Entry {
    name: Bytes,
    value: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY
    }
}

/// Both.
#[derive(Debug)]
pub struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

impl Table {
    /// The second one is empty.
    pub const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: SIZE }
    }

    /// The name and value at an index, counted from 1.
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let at = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        self.entries.get(at - STATIC.len()).map(|entry| (&entry.name[..], &entry.value[..]))
    }

    /// The name at an index, to be used again.
    pub fn name(&self, index: usize) -> Option<Bytes> {
        let at = index.checked_sub(1)?;
        match STATIC.get(at) {
            Some((name, _)) => Some(Bytes::from_static(name.as_bytes())),
            None => self.entries.get(at - STATIC.len()).map(|entry| entry.name.clone()),
        }
    }

    /// One more; the oldest make room for it. One that is larger than all leaves none.
    pub fn add(&mut self, name: Bytes, value: &[u8]) {
        let entry = Entry { name, value: value.into() };
        let size = entry.size();
        self.make_room(size);
        if size <= self.limit {
            self.entries.push_front(entry);
            self.size += size;
        }
    }

    /// The peer wants it no larger than this; `None` when that is more than it may be.
    pub fn resize(&mut self, limit: usize) -> Option<()> {
        if limit > SIZE {
            return None;
        }
        self.limit = limit;
        self.make_room(0);
        Some(())
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > self.limit {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let mut table = Table::new();
        table.resize(2 * (ENTRY + 2)).unwrap();
        for name in [b"a", b"b", b"c"] {
            table.add(Bytes::from_static(name), b"1");
        }
        assert_eq!(table.get(62), Some((&b"c"[..], &b"1"[..])));
        assert_eq!(table.get(63), Some((&b"b"[..], &b"1"[..])));
        assert_eq!((table.get(64), table.get(0)), (None, None));
        table.resize(ENTRY + 2).unwrap();
        assert_eq!((table.get(63), table.size), (None, ENTRY + 2));
        table.add(Bytes::from_static(b"too"), b"large");
        assert_eq!((table.get(62), table.size), (None, 0));
        assert_eq!((table.resize(SIZE), table.resize(SIZE + 1)), (Some(()), None));
    }

    #[test]
    fn the_first_table_is_the_rfc_s() {
        assert_eq!(Table::new().get(2), Some((&b":method"[..], &b"GET"[..])));
        assert_eq!(Table::new().get(8), Some((&b":status"[..], &b"200"[..])));
        assert_eq!(Table::new().get(31), Some((&b"content-type"[..], &b""[..])));
        assert_eq!(Table::new().get(61), Some((&b"www-authenticate"[..], &b""[..])));
    }
}
