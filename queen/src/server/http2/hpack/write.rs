//! A block of fields, out: names that every peer knows are numbers, everything else is written in full.

use super::table::STATIC;

/// The first block of a connection begins so: nothing of ours is ever to be remembered (RFC 7541, 4.2 and 6.3). Peers that want
/// a smaller table than usual wait for such a word.
pub const RESET_TABLE: u8 = 0x20;
/// A field that is not to be remembered, with a name in full or by its index (RFC 7541, 6.2.2).
const LITERAL: (u8, u32) = (0, 4);
/// A field that every peer knows (RFC 7541, 6.1).
const INDEXED: (u8, u32) = (0x80, 7);
/// A string in full (RFC 7541, 5.2).
const TEXT: (u8, u32) = (0, 7);

/// Appends the status of an answer.
pub fn put_status(status: http::StatusCode, block: &mut Vec<u8>) {
    let name = ":status";
    match STATIC.iter().position(|entry| *entry == (name, status.as_str())) {
        Some(at) => number(INDEXED, at + 1, block),
        None => put(name.as_bytes(), status.as_str().as_bytes(), block),
    }
}

/// Appends a field.
pub fn put(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    match STATIC.iter().position(|entry| entry.0.as_bytes() == name) {
        Some(at) => number(LITERAL, at + 1, block),
        None => {
            number(LITERAL, 0, block);
            text(name, block);
        }
    }
    text(value, block);
}

fn text(bytes: &[u8], block: &mut Vec<u8>) {
    number(TEXT, bytes.len(), block);
    block.extend_from_slice(bytes);
}

/// A number behind the first bits of a byte (RFC 7541, 5.1).
fn number((first, bits): (u8, u32), number: usize, block: &mut Vec<u8>) {
    let mask = (1 << bits) - 1;
    if number < mask {
        return block.push(first | number as u8);
    }
    block.push(first | mask as u8);
    let mut rest = number - mask;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::super::read::Decoder;
    use super::*;
    use http::StatusCode;

    #[test]
    fn what_is_written_is_read_back() {
        let long = "v".repeat(70_000);
        let fields = [("content-type", "application/grpc"), ("grpc-status", "0"), ("x-empty", ""), ("x-long", &long)];
        let mut block = vec![RESET_TABLE];
        for status in [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::IM_A_TEAPOT] {
            put_status(status, &mut block);
        }
        fields.iter().for_each(|(name, value)| put(name.as_bytes(), value.as_bytes(), &mut block));
        let mut read = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Decoder::new().read(&block, |name, value| read.push((text(name), text(value)))).unwrap();
        let statuses = [(":status", "200"), (":status", "404"), (":status", "418")];
        let expected: Vec<_> =
            statuses.iter().chain(&fields).map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(read, expected);
        assert_eq!(block[1], 0x88, "one byte says that all is well");
    }
}
