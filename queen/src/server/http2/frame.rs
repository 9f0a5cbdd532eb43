//! The frames of HTTP/2 (RFC 9113, 4 and 6).

/// The payload of the largest frame that anybody may send unasked, in bytes; nobody is asked for larger ones.
pub const LARGEST: usize = 16 * 1024;
/// The window of a stream or a connection of which nothing was said.
pub const WINDOW: u32 = 65_535;
/// The largest window there may be (RFC 9113, 6.9.1).
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// What a frame is.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// What more it says.
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// What is agreed upon.
pub mod setting {
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Why a stream or a connection ends (RFC 9113, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// What a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the payload, in bytes.
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// How long it is itself.
    pub const BYTES: usize = 9;

    /// The head that begins here.
    pub fn read([a, b, c, kind, flags, stream @ ..]: [u8; Self::BYTES]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & WINDOW_MAX }
    }

    /// As it is written.
    pub fn bytes(self) -> [u8; Self::BYTES] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Whether this flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What is left of a payload without its padding; `None` where that is longer than it.
pub fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// The number that a payload begins with.
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back() {
        let head = Head { length: LARGEST, kind: kind::DATA, flags: flag::END_STREAM, stream: WINDOW_MAX };
        assert_eq!(Head::read(head.bytes()), head);
        assert_eq!(Head::read([0, 0, 8, 6, 1, 0x80, 0, 0, 0]).stream, 0, "the first bit means nothing");
        assert!(Head::read([0, 0, 8, 6, 1, 0, 0, 0, 0]).has(flag::ACK));
    }

    #[test]
    fn padding_is_taken_away() {
        let head = |flags| Head { length: 0, kind: kind::DATA, flags, stream: 1 };
        assert_eq!(unpadded(head(0), b"\x02abc"), Some(&b"\x02abc"[..]));
        let padded = |payload| unpadded(head(flag::PADDED), payload);
        assert_eq!(padded(b"\x02a\0\0"), Some(&b"a"[..]));
        assert_eq!(padded(b"\x02\0\0"), Some(&b""[..]));
        assert_eq!((padded(b"\x02\0"), padded(b"")), (None, None));
    }
}
