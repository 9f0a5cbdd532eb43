//! One frame as it came: read where it lies, so that a steady stream makes no messages. What stands in it seldom is
//! decoded in the usual way.

use common::wire::{Unusual, Value, fields, packed};
use prost::Message;
use proto::{PushTelemetryRequest, SlotGpus, Snapshot, WorkerRow};

/// Fields of `PushTelemetryRequest`.
const SESSION: u32 = 1;
const SEQUENCE: u32 = 2;
const MONOTONIC_MS: u32 = 3;
const SAMPLED_AT: u32 = 4;
const SNAPSHOT: u32 = 5;
const BATCH: u32 = 6;
const HIVE: u32 = 7;
const BEFORE_REGISTER_MS: u32 = 8;

/// Fields of `Batch`.
const FAILED: u32 = 1;
const ROWS: u32 = 2;
const REMOVED_SLOTS: u32 = 3;
const FAILED_SLOT_GAPS: u32 = 4;
const COLUMNS: u32 = 5;
const GPUS: u32 = 6;

/// A frame on the wire.
#[derive(Debug, Default)]
pub struct Frame<'a> {
    /// From Register.
    pub session: &'a str,
    /// Its number.
    pub sequence: u64,
    /// The hive's clock.
    pub monotonic_ms: u64,
    /// How far it was behind Register.
    pub before_register_ms: u64,
    /// The hive's wall clock.
    pub sampled_at: Option<prost_types::Timestamp>,
    /// A `Hive`, if it changed.
    pub hive: Option<&'a [u8]>,
    /// What it is about.
    pub body: Body<'a>,
    /// Bytes of the whole.
    pub size: usize,
}

/// What a frame is about.
#[derive(Debug, Default)]
pub enum Body<'a> {
    /// Nothing.
    #[default]
    Nothing,
    /// A `Snapshot`.
    Snapshot(&'a [u8]),
    /// A batch.
    Batch(Batch<'a>),
}

/// A batch, its columns as they lie on the wire.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// The whole round failed.
    pub failed: bool,
    /// Workers in full.
    pub rows: Vec<WorkerRow>,
    /// Slots of workers that are gone.
    pub removed: Vec<u32>,
    /// Distances of the slots that were not sampled.
    pub unsampled_gaps: Vec<u32>,
    /// A `Columns`.
    pub columns: Option<&'a [u8]>,
    /// Lists of GPUs.
    pub gpus: Vec<SlotGpus>,
}

impl<'a> Frame<'a> {
    /// Reads a frame that is written as every encoder writes it.
    pub fn read(message: &'a [u8]) -> Result<Self, Unusual> {
        let mut frame = Self { size: message.len(), ..Self::default() };
        let mut seen = 0u16;
        for field in fields(message) {
            let (number, value) = field?;
            // Of a field that is there twice the second one counts, or both are to be merged; so with the two bodies.
            let bit = match number {
                SESSION..=SNAPSHOT | HIVE | BEFORE_REGISTER_MS => 1 << number,
                BATCH => 1 << SNAPSHOT,
                _ => 0,
            };
            if seen & bit != 0 {
                return Err(Unusual);
            }
            seen |= bit;
            match number {
                SESSION => frame.session = value.text()?,
                SEQUENCE => frame.sequence = value.number()?,
                MONOTONIC_MS => frame.monotonic_ms = value.number()?,
                SAMPLED_AT => frame.sampled_at = Some(decode(value)?),
                SNAPSHOT => frame.body = Body::Snapshot(value.bytes()?),
                BATCH => frame.body = Body::Batch(Batch::read(value.bytes()?)?),
                HIVE => frame.hive = Some(value.bytes()?),
                BEFORE_REGISTER_MS => frame.before_register_ms = value.number()?,
                _ => {}
            }
        }
        Ok(frame)
    }

    /// The hive's clock since its Register when the sample was made, in milliseconds; 0 where it keeps none.
    pub fn clock(&self) -> i64 {
        let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(self.monotonic_ms) - signed(self.before_register_ms)
    }

    /// Whether nothing of the same snapshot follows.
    pub fn is_last(&self) -> Result<bool, prost::DecodeError> {
        match self.body {
            Body::Snapshot(bytes) => Snapshot::decode(bytes).map(|snapshot| snapshot.last),
            _ => Ok(true),
        }
    }
}

impl<'a> Batch<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Unusual> {
        let mut batch = Self::default();
        for field in fields(message) {
            let (number, value) = field?;
            match number {
                FAILED => batch.failed = !value.text()?.is_empty(),
                ROWS => batch.rows.push(decode(value)?),
                REMOVED_SLOTS => packed(value.bytes()?, |slot| batch.removed.push(slot as u32))?,
                FAILED_SLOT_GAPS => packed(value.bytes()?, |gap| batch.unsampled_gaps.push(gap as u32))?,
                COLUMNS if batch.columns.is_some() => return Err(Unusual),
                COLUMNS => batch.columns = Some(value.bytes()?),
                GPUS => batch.gpus.push(decode(value)?),
                _ => {}
            }
        }
        Ok(batch)
    }
}

fn decode<M: Message + Default>(value: Value<'_>) -> Result<M, Unusual> {
    M::decode(value.bytes()?).map_err(|_| Unusual)
}

/// The same frame as every encoder writes it.
///
/// # Errors
/// When it is no frame at all.
pub fn rewritten(message: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    PushTelemetryRequest::decode(message).map(|frame| frame.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::push_telemetry_request::Frame as Told;

    fn told() -> PushTelemetryRequest {
        let batch = proto::Batch {
            rows: vec![WorkerRow { slot: 3, ..WorkerRow::default() }],
            removed_slots: vec![1, 300],
            failed_slot_gaps: vec![2, 2],
            columns: Some(proto::Columns { slot_gaps: vec![1], ..proto::Columns::default() }),
            gpus: vec![SlotGpus { slot: 5, ..SlotGpus::default() }],
            failed: String::new(),
        };
        PushTelemetryRequest {
            session: "box/1/token".into(),
            sequence: 7,
            monotonic_ms: 8_000,
            before_register_ms: 10_000,
            sampled_at: Some(prost_types::Timestamp { seconds: 5, nanos: 6 }),
            frame: Some(Told::Batch(batch)),
            hive: Some(proto::Hive { id: "box".into(), ..proto::Hive::default() }),
        }
    }

    #[test]
    fn a_frame_is_read_where_it_lies() {
        let bytes = told().encode_to_vec();
        let frame = Frame::read(&bytes).unwrap();
        assert_eq!((frame.session, frame.sequence, frame.clock()), ("box/1/token", 7, -2_000));
        assert_eq!((frame.sampled_at, frame.size), (told().sampled_at, bytes.len()));
        assert_eq!(proto::Hive::decode(frame.hive.unwrap()).unwrap(), told().hive.unwrap());
        let Body::Batch(batch) = frame.body else { panic!("no batch") };
        assert_eq!((batch.removed, batch.unsampled_gaps, batch.failed), (vec![1, 300], vec![2, 2], false));
        assert_eq!((batch.rows[0].slot, batch.gpus[0].slot), (3, 5));
        assert_eq!(batch.columns.unwrap(), [0x0a, 1, 1]);
    }

    #[test]
    fn what_is_written_in_an_unusual_way_can_be_rewritten() {
        let bytes = told().encode_to_vec();
        let twice = [bytes.clone(), bytes.clone()].concat();
        assert_eq!(Frame::read(&twice).unwrap_err(), Unusual);
        assert!(Frame::read(&rewritten(&twice).unwrap()).is_ok());
        let unpacked = [&bytes[..], &[0x32, 2, 0x18, 9]].concat();
        assert_eq!(Frame::read(&unpacked).unwrap_err(), Unusual);
        let rewritten = rewritten(&unpacked).unwrap();
        let Body::Batch(batch) = Frame::read(&rewritten).unwrap().body else { panic!("no batch") };
        assert_eq!(batch.removed, [1, 300, 9]);
        assert!(super::rewritten(&bytes[..bytes.len() - 1]).is_err());
    }
}
