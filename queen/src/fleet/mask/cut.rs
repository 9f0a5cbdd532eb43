//! Cuts encoded messages: keeps the fields that are wanted, as the bytes they are.

use super::Kept;
use bytes::{Buf, Bytes};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, skip_field,
};
use std::collections::BTreeMap;

/// Cuts one field of an `Update`; `kept` tells by its number what is kept of it. A field that nothing is said about
/// stays as it is.
pub fn part<'a>(part: &Bytes, kept: impl Fn(u32) -> Option<&'a Kept>) -> Bytes {
    let mut rest = part.as_ref();
    let Ok((number, WireType::LengthDelimited)) = decode_key(&mut rest) else { return part.clone() };
    match (kept(number), decode_varint(&mut rest)) {
        (Some(Kept::Fields(fields)), Ok(length)) if length == rest.len() as u64 => {
            let mut cut = Vec::with_capacity(part.len().min(64));
            message(number, rest, fields, &mut cut);
            Bytes::from(cut)
        }
        _ => part.clone(),
    }
}

/// Appends a message with its key and length.
fn message(number: u32, bytes: &[u8], kept: &BTreeMap<u32, Kept>, into: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, into);
    let at = into.len();
    fields(bytes, kept, into);
    // The length stands before what it counts and is known after it. It moves a few bytes.
    let length = (into.len() - at) as u64;
    encode_varint(length, into);
    into[at..].rotate_right(encoded_len_varint(length));
}

/// Appends the fields that are kept. The bytes are of our own making; if they could not be read, what follows would
/// be left out.
fn fields(mut bytes: &[u8], kept: &BTreeMap<u32, Kept>, into: &mut Vec<u8>) {
    while bytes.has_remaining() {
        let whole = bytes;
        let Ok((number, wire)) = decode_key(&mut bytes) else { return };
        let mut after = bytes;
        if skip_field(wire, number, &mut after, DecodeContext::default()).is_err() {
            return;
        }
        match kept.get(&number) {
            Some(Kept::Fields(inner)) if wire == WireType::LengthDelimited && decode_varint(&mut bytes).is_ok() => {
                message(number, &bytes[..bytes.len() - after.len()], inner, into);
            }
            Some(_) => into.extend_from_slice(&whole[..whole.len() - after.len()]),
            None => {}
        }
        bytes = after;
    }
}
