//! HPACK's Huffman code (RFC 7541, appendix B). It is canonical: codes of one length are consecutive numbers in the order of
//! their symbols, so that how long each symbol's code is says everything.

/// How many symbols have a code of each length, in bits.
const COUNTS: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];
/// The symbols by the length of their codes, then by value. The last code of all is the end of a string, which is never
/// written.
const SYMBOLS: &[u8; 256] = b"012aceiost\
    \x20%-./3456789=A_bdfghlmnpru\
    :BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz\
    &*,;XZ\
    !\"()?\
    '+|\
    #>\
    \x00$@[]~\
    ^}\
    <`{\
    \x5c\xc3\xd0\
    \x80\x82\x83\xa2\xb8\xc2\xe0\xe2\
    \x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6\
    \x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9\
    \x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef\
    \x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed\
    \xc7\xcf\xea\xeb\
    \xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff\
    \xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe\
    \x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9\
    \x0a\x0d\x16";
/// The longest code, in bits.
const LONGEST: u32 = 30;
/// A string is filled up to a whole byte with fewer bits than this, all of them ones (RFC 7541, 5.2).
const PADDING: u32 = 8;

/// Appends the string that `coded` stands for; `None` when it stands for none.
pub fn decode(coded: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let (mut bits, mut held) = (0_u64, 0_u32);
    for byte in coded {
        (bits, held) = (bits << 8 | u64::from(*byte), held + 8);
        // Fewer than 8 bits were left, or a code is not complete: at most 29 and 8.
        while let Some((symbol, length)) = first(bits, held)? {
            text.push(symbol);
            held -= length;
            bits &= (1 << held) - 1;
        }
    }
    (held < PADDING && bits == (1 << held) - 1).then_some(())
}

/// The symbol that the first of `held` bits stand for, and how many they are; nothing yet where its code is not complete.
/// `None` at a code that stands for nothing.
fn first(bits: u64, held: u32) -> Option<Option<(u8, u32)>> {
    // The first code of a length, and the first symbol that has one.
    let (mut code, mut symbol, mut before) = (0_u64, 0_u32, 0);
    for (length, count) in COUNTS {
        if held < length {
            return Some(None);
        }
        code <<= length - before;
        let above = (bits >> (held - length)).checked_sub(code)?;
        if above < u64::from(count) {
            let at = symbol as usize + above as usize;
            return SYMBOLS.get(at).map(|symbol| Some((*symbol, length)));
        }
        (code, symbol, before) = (code + u64::from(count), symbol + count, length);
    }
    debug_assert!(held >= LONGEST);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A string in code, as RFC 7541, 5.2 has it.
    fn encode(text: &[u8]) -> Vec<u8> {
        let (mut coded, mut bits, mut held) = (Vec::new(), 0_u64, 0);
        for byte in text {
            let (code, length) = code(*byte);
            (bits, held) = (bits << length | code, held + length);
            while held >= 8 {
                held -= 8;
                coded.push((bits >> held) as u8);
                bits &= (1 << held) - 1;
            }
        }
        if held > 0 {
            coded.push((bits << (8 - held) | ((1 << (8 - held)) - 1)) as u8);
        }
        coded
    }

    fn code(byte: u8) -> (u64, u32) {
        let at = SYMBOLS.iter().position(|symbol| *symbol == byte).unwrap() as u32;
        let (mut code, mut symbol, mut before) = (0_u64, 0, 0);
        for (length, count) in COUNTS {
            code <<= length - before;
            if at < symbol + count {
                return (code + u64::from(at - symbol), length);
            }
            (code, symbol, before) = (code + u64::from(count), symbol + count, length);
        }
        unreachable!("every byte has a code")
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(coded, &mut text).map(|()| text)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541, C.4 and C.6.
        for (coded, text) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            assert_eq!(decoded(coded).as_deref(), Some(text.as_bytes()), "{text}");
            assert_eq!(encode(text.as_bytes()), coded, "{text}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(decoded(&encode(&all)), Some(all));
        // The code is complete: nothing between the codes stands for nothing.
        let kraft: u64 = COUNTS.iter().map(|(length, count)| u64::from(*count) << (LONGEST - length)).sum();
        assert_eq!(kraft, 1 << LONGEST);
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for coded in [
            &[0xff, 0xff, 0xff, 0xff][..], // the end of a string
            &[0b0000_0000],                // a zero, and padding that is not ones
            &[0xff],                       // a whole byte of padding
            &[0xff, 0xff],
        ] {
            assert_eq!(decoded(coded), None, "{coded:?}");
        }
    }
}
