//! A block of fields, in.

use super::huffman;
use super::table::Table;

/// Strings and numbers that are not what HPACK allows: the tables of both sides no longer agree, and the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// What one side of a connection remembers.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

impl Decoder {
    /// Of a connection that begins.
    pub const fn new() -> Self {
        Self { table: Table::new() }
    }

    /// Tells each field of a block, a name and a value, in order.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn read(&mut self, block: &[u8], mut tell: impl FnMut(&[u8], &[u8])) -> Result<(), Broken> {
        let (mut rest, mut begun) = (Block(block), false);
        let mut value = Vec::new();
        while let Some(first) = rest.peek() {
            let kind = Kind::of(first);
            match kind {
                Kind::Indexed => {
                    let (name, value) = self.table.get(rest.number(7)?).ok_or(Broken)?;
                    tell(name, value);
                }
                Kind::Resize => {
                    // Only at the beginning (RFC 7541, 4.2).
                    let limit = rest.number(5)?;
                    self.table.resize(limit).filter(|()| !begun).ok_or(Broken)?;
                    continue;
                }
                Kind::Added | Kind::Literal => {
                    let name = match rest.number(if kind == Kind::Added { 6 } else { 4 })? {
                        0 => {
                            let mut name = Vec::new();
                            rest.text(&mut name)?;
                            name.into()
                        }
                        index => self.table.name(index).ok_or(Broken)?,
                    };
                    value.clear();
                    rest.text(&mut value)?;
                    tell(&name, &value);
                    if kind == Kind::Added {
                        self.table.add(name, &value);
                    }
                }
            }
            begun = true;
        }
        Ok(())
    }
}

/// What a field begins with (RFC 7541, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Indexed,
    Added,
    Resize,
    Literal,
}

impl Kind {
    fn of(first: u8) -> Self {
        match first.leading_zeros() {
            0 => Self::Indexed,
            1 => Self::Added,
            2 => Self::Resize,
            _ => Self::Literal,
        }
    }
}

/// What is left of a block.
struct Block<'a>(&'a [u8]);

impl Block<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let (first, rest) = self.0.split_first().ok_or(Broken)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number that begins in the last `bits` of a byte (RFC 7541, 5.1). None here is above 2^28.
    fn number(&mut self, bits: u32) -> Result<usize, Broken> {
        let mask = (1 << bits) - 1;
        let first = usize::from(self.byte()?) & mask;
        if first < mask {
            return Ok(first);
        }
        let mut number = mask;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Broken)
    }

    fn text(&mut self, text: &mut Vec<u8>) -> Result<(), Broken> {
        let coded = self.peek().ok_or(Broken)? & 0x80 != 0;
        let length = self.number(7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
        self.0 = rest;
        if coded {
            return huffman::decode(bytes, text).ok_or(Broken);
        }
        text.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Broken> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.read(block, |name, value| fields.push(format!("{}={}", text(name), text(value))))?;
        Ok(fields)
    }

    #[test]
    fn the_requests_of_the_rfc() {
        // RFC 7541, C.4.1 to C.4.3: each refers to what the one before it has left in the table.
        let mut decoder = Decoder::new();
        let host = [0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let first = [&[0x82, 0x86, 0x84, 0x41][..], &host].concat();
        let get = [":method=GET", ":scheme=http", ":path=/", ":authority=www.example.com"];
        assert_eq!(read(&mut decoder, &first).unwrap(), get);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(read(&mut decoder, &second).unwrap(), [&get[..], &["cache-control=no-cache"]].concat());
        let custom = [0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f];
        let value = [0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
        let third = [&[0x82, 0x87, 0x85, 0xbf][..], &custom, &value].concat();
        let get = [":method=GET", ":scheme=https", ":path=/index.html", ":authority=www.example.com"];
        assert_eq!(read(&mut decoder, &third).unwrap(), [&get[..], &["custom-key=custom-value"]].concat());
    }

    #[test]
    fn numbers_are_read_as_the_rfc_has_them() {
        // RFC 7541, C.1.
        assert_eq!(Block(&[0b1110_1010]).number(5), Ok(10));
        assert_eq!(Block(&[0b0001_1111, 0b1001_1010, 0b0000_1010]).number(5), Ok(1337));
        assert_eq!(Block(&[42]).number(8), Ok(42));
        assert_eq!(Block(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x01]).number(7), Err(Broken));
    }

    #[test]
    fn what_is_broken_is_refused() {
        for block in [
            &[0x80][..],            // index 0
            &[0xbe],                // an index that is not there
            &[0x7e, 1, b'a'],       // a name that is not there
            &[0x40, 1],             // a string without its bytes
            &[0x40],                // no string at all
            &[0x82, 0x20],          // a size after a field
            &[0x3f, 0xe2, 0x1f],    // a size that is too large
            &[0x00, 0x81, 0xff, 0], // padding of a whole byte
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(read(&mut Decoder::new(), block), Err(Broken), "{block:?}");
        }
        assert_eq!(read(&mut Decoder::new(), &[0x3f, 0xe1, 0x1f, 0x20]), Ok(vec![]), "the largest, then the smallest");
    }
}
