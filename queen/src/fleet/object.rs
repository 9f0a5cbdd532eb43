//! Objects as the bytes they have inside an `Update`: field key, length, message. Made once per change; an update is
//! these bytes one after the other.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::{Freshness, HiveBeat, ProcessStats};

/// Fields of `Update`.
pub(super) const WORKERS: u32 = 2;
pub(super) const HIVES: u32 = 3;
const REMOVED_WORKERS: u32 = 4;
const REMOVED_HIVES: u32 = 5;
pub(super) const BEATS: u32 = 6;
pub(super) const COLUMNS: u32 = 8;
const GPUS: u32 = 9;

/// Fields of `Worker`.
const SPEC: u32 = 1;
const STATS: u32 = 2;
const STATE: u32 = 3;
const FRESHNESS: u32 = 5;
const RESERVATION: u32 = 6;
const SLOT: u32 = 7;

/// Appends field key and length of a message, string or bytes.
pub fn open(field: u32, length: usize, into: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(length as u64, into);
}

/// How many bytes a length-delimited field takes.
pub fn field_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

fn whole<M: Message>(field: u32, message: &M) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(field_len(field, length));
    open(field, length, &mut bytes);
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

/// A worker, from its spec as bytes and the rest; `held` is the reservation that holds it, or empty; a slot of 0 is none.
/// Age and uptime are left out: they would change in an idle fleet.
pub fn worker(
    spec: &[u8],
    stats: Option<&ProcessStats>,
    state: i32,
    freshness: Freshness,
    held: &str,
    slot: u32,
) -> Bytes {
    // Enums travel as sign-extended varints; one that this queen does not know yet is passed on as it came.
    let numbers = [(STATE, i64::from(state) as u64), (FRESHNESS, freshness as u64)];
    let stats_len = stats.map(Message::encoded_len);
    let numbers_len: usize = numbers.iter().map(|(field, value)| key_len(*field) + encoded_len_varint(*value)).sum();
    let held_len = if held.is_empty() { 0 } else { field_len(RESERVATION, held.len()) };
    let slot_len = if slot == 0 { 0 } else { key_len(SLOT) + encoded_len_varint(slot.into()) };
    let length = field_len(SPEC, spec.len())
        + stats_len.map_or(0, |len| field_len(STATS, len))
        + numbers_len
        + held_len
        + slot_len;
    let mut bytes = BytesMut::with_capacity(field_len(WORKERS, length));
    open(WORKERS, length, &mut bytes);
    open(SPEC, spec.len(), &mut bytes);
    bytes.extend_from_slice(spec);
    if let (Some(stats), Some(len)) = (stats, stats_len) {
        open(STATS, len, &mut bytes);
        stats.encode_raw(&mut bytes);
    }
    for (field, value) in numbers {
        encode_key(field, WireType::Varint, &mut bytes);
        encode_varint(value, &mut bytes);
    }
    if !held.is_empty() {
        open(RESERVATION, held.len(), &mut bytes);
        bytes.extend_from_slice(held.as_bytes());
    }
    if slot != 0 {
        encode_key(SLOT, WireType::Varint, &mut bytes);
        encode_varint(slot.into(), &mut bytes);
    }
    bytes.freeze()
}

/// Numbers of one worker's GPUs.
pub fn gpus(gpus: &proto::SlotGpus) -> Bytes {
    whole(GPUS, gpus)
}

/// A hive.
pub fn hive(hive: &proto::Hive) -> Bytes {
    whole(HIVES, hive)
}

/// How many bytes it takes to tell that a hive was heard from.
pub fn beat_len(beat: &HiveBeat) -> usize {
    field_len(BEATS, beat.encoded_len())
}

/// News that a hive was heard from.
pub fn beat(beat: &HiveBeat) -> Bytes {
    whole(BEATS, beat)
}

/// The same, appended.
pub fn write_beat(beat: &HiveBeat, into: &mut Vec<u8>) {
    open(BEATS, beat.encoded_len(), into);
    beat.encode_raw(into);
}

/// The removal of a worker (`hive/group/instance`) or of a hive.
pub fn removal(name: &str, is_worker: bool) -> Bytes {
    let field = if is_worker { REMOVED_WORKERS } else { REMOVED_HIVES };
    let mut bytes = BytesMut::with_capacity(field_len(field, name.len()));
    open(field, name.len(), &mut bytes);
    bytes.extend_from_slice(name.as_bytes());
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Update, Worker, WorkerSpec, WorkerState};

    #[test]
    fn bytes_side_by_side_are_an_update() {
        let spec =
            WorkerSpec { hive: "box".into(), group: "llm".into(), instance: "8080".into(), ..Default::default() };
        let stats = ProcessStats { cpu_pct: Some(12.5), ..ProcessStats::default() };
        let mut bytes = BytesMut::new();
        bytes.extend(worker(
            &spec.encode_to_vec(),
            Some(&stats),
            WorkerState::Running.into(),
            Freshness::Live,
            "r1",
            9,
        ));
        bytes.extend(worker(&spec.encode_to_vec(), None, -1, Freshness::Lost, "", 0));
        bytes.extend(removal("box/llm/1", true));
        bytes.extend(removal("box", false));
        bytes.extend(beat(&HiveBeat { hive: "box".into(), sequence: 7, ..HiveBeat::default() }));
        let update = Update::decode(bytes.freeze()).unwrap();
        let full = Worker {
            spec: Some(spec.clone()),
            stats: Some(stats),
            state: WorkerState::Running.into(),
            freshness: Freshness::Live.into(),
            age: None,
            reservation: "r1".into(),
            slot: 9,
        };
        let bare = Worker { spec: Some(spec), state: -1, freshness: Freshness::Lost.into(), ..Worker::default() };
        assert_eq!(update.workers, vec![full, bare]);
        assert_eq!((update.removed_workers, update.removed_hives), (vec!["box/llm/1".into()], vec!["box".into()]));
        assert_eq!(update.beats[0].sequence, 7);
    }
}
