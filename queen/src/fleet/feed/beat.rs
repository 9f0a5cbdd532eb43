//! That a hive was heard from: who holds its workers' numbers learns that they are still so.

use crate::fleet::object;
use bytes::Bytes;
use proto::HiveBeat;
use std::sync::Arc;

/// News of one hive.
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// Who was heard from.
    pub hive: &'a Arc<str>,
    /// When what it told was measured, on its clock.
    pub sampled_at: Option<prost_types::Timestamp>,
    /// The number of the frame.
    pub sequence: u64,
    /// The hive's session.
    pub epoch: u64,
}

/// The newest of one hive.
#[derive(Debug)]
pub(super) struct LastBeat(HiveBeat);

impl LastBeat {
    pub fn new(beat: &Beat<'_>) -> Self {
        let Beat { hive, sampled_at, sequence, epoch } = *beat;
        Self(HiveBeat { hive: hive.to_string(), sampled_at, sequence, epoch })
    }

    /// Another one of the same hive.
    pub fn renew(&mut self, beat: &Beat<'_>) {
        (self.0.sampled_at, self.0.sequence, self.0.epoch) = (beat.sampled_at, beat.sequence, beat.epoch);
    }

    /// Who was heard from.
    pub fn hive(&self) -> &str {
        &self.0.hive
    }

    /// How many bytes it takes in an update.
    pub fn len(&self) -> usize {
        object::beat_len(&self.0)
    }

    /// Appends it as it stands in an update.
    pub fn write(&self, into: &mut Vec<u8>) {
        object::write_beat(&self.0, into);
    }

    /// As it stands in an update.
    pub fn bytes(&self) -> Bytes {
        object::beat(&self.0)
    }
}
