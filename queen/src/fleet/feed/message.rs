//! A message of a watch as it travels: encoded once, with gRPC's head before it, and handed to every watcher as it is.

use crate::fleet::object;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use proto::WatchResponse;
use proto::watch_response::Event;

/// gRPC's head: whether it is compressed, then its length in four bytes.
const HEAD: usize = 5;
/// `WatchResponse.bookmark`, and the revision in it.
const BOOKMARK: u32 = 4;
const REVISION: u32 = 1;

/// A `WatchResponse`, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(Bytes);

impl Message {
    /// Of `length` bytes, which `fill` writes.
    pub(super) fn write(length: usize, fill: impl FnOnce(&mut BytesMut)) -> Self {
        let mut bytes = BytesMut::with_capacity(HEAD + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        fill(&mut bytes);
        debug_assert_eq!(bytes.len(), HEAD + length);
        Self(bytes.freeze())
    }

    /// Of one event.
    pub fn of(event: Event) -> Self {
        let message = WatchResponse { event: Some(event) };
        Self::write(message.encoded_len(), |bytes| message.encode_raw(bytes))
    }

    /// A bookmark, from the revision up to which its watcher has read and the rest of it, which is the same for all
    /// watchers.
    pub fn bookmark(revision: &str, rest: &[u8]) -> Self {
        let length = object::field_len(REVISION, revision.len()) + rest.len();
        Self::write(object::field_len(BOOKMARK, length), |bytes| {
            object::open(BOOKMARK, length, bytes);
            object::open(REVISION, revision.len(), bytes);
            bytes.extend_from_slice(revision.as_bytes());
            bytes.extend_from_slice(rest);
        })
    }

    /// The bytes to send: its head, and it.
    pub fn framed(self) -> Bytes {
        self.0
    }

    /// What it says.
    #[cfg(test)]
    pub fn read(&self) -> WatchResponse {
        Self::read_framed(&self.0)
    }

    /// What the bytes say that were sent.
    #[cfg(test)]
    pub fn read_framed(bytes: &[u8]) -> WatchResponse {
        let (head, message) = bytes.split_at(HEAD);
        assert_eq!(head, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        WatchResponse::decode(message).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Bookmark, SnapshotEnd};

    #[test]
    fn a_message_has_its_head_before_it() {
        let event = Event::SnapshotEnd(SnapshotEnd { revision: "q:7".into() });
        assert_eq!(Message::of(event.clone()).read().event, Some(event));
    }

    #[test]
    fn a_bookmark_is_the_revision_and_what_all_are_told() {
        let rest = Bookmark { workers_online: 3, ..Bookmark::default() };
        let told = Message::bookmark("q:7", &rest.encode_to_vec()).read().event;
        assert_eq!(told, Some(Event::Bookmark(Bookmark { revision: "q:7".into(), ..rest })));
    }
}
