//! Protobuf as it lies on the wire, field by field, without making messages of it: for the one message that comes in by
//! the thousand. Whoever meets something unusual decodes the message in the usual way instead.

/// A byte more than the longest varint has, so that a longer one is seen.
const VARINT_BITS: u32 = 70;

/// What is not protobuf, or not written as every encoder writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not protobuf as encoders write it")]
pub struct Unusual;

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number or an enum.
    Number(u64),
    /// A message, text, bytes, or packed numbers.
    Bytes(&'a [u8]),
    /// Something of fixed size, which rbee does not use.
    Fixed,
}

impl<'a> Value<'a> {
    /// The number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(self) -> Result<u64, Unusual> {
        if let Self::Number(number) = self { Ok(number) } else { Err(Unusual) }
    }

    /// The bytes.
    ///
    /// # Errors
    /// When there are none.
    pub fn bytes(self) -> Result<&'a [u8], Unusual> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Unusual) }
    }

    /// The text.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(self) -> Result<&'a str, Unusual> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Unusual)
    }
}

/// The fields of one message, in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// Reads a message field by field.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Value<'a>), Unusual> {
        let key = varint(&mut self.rest)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0).ok_or(Unusual)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut self.rest)?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| Unusual)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Unusual),
        };
        Ok((field, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unusual> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unusual)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Unusual>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.rest.is_empty()).then(|| self.read())
    }
}

/// Numbers that lie side by side.
///
/// # Errors
/// When the last one is not whole, or one is longer than 64 bits.
#[inline]
pub fn packed(mut bytes: &[u8], mut each: impl FnMut(u64)) -> Result<(), Unusual> {
    while let Some(first) = bytes.first() {
        // Most differences are small.
        if *first < 0x80 {
            each(u64::from(*first));
            bytes = &bytes[1..];
        } else {
            each(varint(&mut bytes)?);
        }
    }
    Ok(())
}

/// How many numbers lie side by side there: each ends with its only byte below 128.
pub fn packed_count(bytes: &[u8]) -> usize {
    let ends = |part: &[u8]| part.iter().map(|byte| u8::from(*byte < 0x80)).sum::<u8>();
    // Pieces of which a byte can hold the number: so many are counted at a time as a register has bytes.
    bytes.chunks(128).map(|part| usize::from(ends(part))).sum()
}

/// The signed number that a zigzag number stands for.
#[inline]
pub fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

#[inline(always)]
fn varint(rest: &mut &[u8]) -> Result<u64, Unusual> {
    match *rest {
        [one, tail @ ..] if *one < 0x80 => {
            *rest = tail;
            Ok(u64::from(*one))
        }
        [one, two, tail @ ..] if *two < 0x80 => {
            *rest = tail;
            Ok(u64::from(*one & 0x7f) | u64::from(*two) << 7)
        }
        [one, two, three, tail @ ..] if *three < 0x80 => {
            *rest = tail;
            Ok(u64::from(*one & 0x7f) | u64::from(*two & 0x7f) << 7 | u64::from(*three) << 14)
        }
        _ => long_varint(rest),
    }
}

#[cold]
fn long_varint(rest: &mut &[u8]) -> Result<u64, Unusual> {
    let (mut value, mut shift) = (0u64, 0);
    while shift < VARINT_BITS {
        let (byte, tail) = rest.split_first().ok_or(Unusual)?;
        *rest = tail;
        // The tenth byte has room for one bit.
        if shift == 63 && *byte > 1 {
            return Err(Unusual);
        }
        value |= u64::from(*byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
    }
    Err(Unusual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost::encoding::{decode_varint, encode_varint};

    #[test]
    fn numbers_are_read_as_prost_reads_them() {
        let powers = (0..64).map(|bit| 1u64 << bit);
        for number in powers.flat_map(|power| [power - 1, power, power | 1]).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            encode_varint(number, &mut bytes);
            let mut read = Vec::new();
            packed(&bytes, |number| read.push(number)).unwrap();
            assert_eq!(read, [number]);
            assert_eq!(packed(&bytes[..bytes.len() - 1], |_| {}).is_ok(), bytes.len() == 1);
        }
        for bytes in
            [&[0x80, 0][..], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &[0x80; 9]]
        {
            let ours = packed(bytes, |_| {}).is_ok();
            assert_eq!(ours, decode_varint(&mut &*bytes).is_ok(), "{bytes:?}");
        }
        assert_eq!([0, 1, 2, 3, u64::MAX].map(signed), [0, -1, 1, -2, i64::MIN]);
    }

    #[test]
    fn fields_come_in_the_order_in_which_they_were_written() {
        let message = proto::GpuUse { uuid: "GPU-1".into(), util_pct: Some(1.0), vram_bytes: Some(300) };
        let read: Vec<_> = fields(&message.encode_to_vec()).map(|field| field.unwrap().0).collect();
        assert_eq!(read, [1, 2, 3]);
        let bytes = message.encode_to_vec();
        let last = fields(&bytes).last().unwrap().unwrap();
        assert_eq!(last, (3, Value::Number(300)));
        assert_eq!(fields(&bytes).next().unwrap().unwrap().1.text(), Ok("GPU-1"));
        for cut in 1..bytes.len() {
            // Cut between two fields it is a message of its own.
            let whole = fields(&bytes[..cut]).all(|field| field.is_ok());
            assert_eq!(whole, proto::GpuUse::decode(&bytes[..cut]).is_ok(), "{cut}");
        }
    }
}
