//! Messages of the wire that are more than protobuf: columns of differences, cells of GPUs, times.

use common::columns::{Change, Quanta, Room, decode, encode, gaps, slots};
use common::columns::{pack as pack_states, unpack as unpack_states};
use common::gpus::{Uses, pack, unpack};
use common::told::Told;
use common::{from_duration, from_timestamp};
use prost::Message;
use proto::{Columns, Gpu, ProcessStats, SlotGpus, WatchResponse};

/// Columns against any state: what comes out goes in again, and rows keep their numbers.
pub fn columns(bytes: &[u8]) {
    if let Ok(mut stats) = ProcessStats::decode(bytes) {
        let (quanta, _) = Quanta::of_believed(&mut stats);
        let mut row = ProcessStats::default();
        quanta.write(&mut row);
        assert_eq!(Quanta::of(&row), quanta, "{stats:?}");
        stats.idle_since.as_ref().and_then(from_timestamp);
        stats.uptime.as_ref().and_then(from_duration);
    }
    if let Ok(mut message) = WatchResponse::decode(bytes) {
        // An error is a client that begins anew.
        let _begins_anew = Told::default().take(&mut message);
    }
    let Ok(mut columns) = Columns::decode(bytes) else { return };
    if let Ok(found) = slots(&columns.slot_gaps) {
        assert!(found.is_sorted_by(|before, after| before < after));
        assert_eq!(gaps(found.into_iter()), columns.slot_gaps);
    }
    let before = Quanta::of(&ProcessStats {
        cpu_pct: Some(50.0),
        memory_current_bytes: Some(1 << 30),
        gpu_util_pct: Some(99.0),
        ..ProcessStats::default()
    });
    let Ok(unpacked) = decode(&mut columns, |_| Some(before)) else { return };
    let changes: Vec<Change> =
        unpacked.rows.iter().map(|(slot, after)| Change { slot: *slot, before, after: *after }).collect();
    let Some(mut again) = encode(&changes) else { return };
    let twice = decode(&mut again, |_| Some(before)).expect("what was encoded can be decoded");
    assert_eq!((&twice.rows, twice.dropped), (&unpacked.rows, 0));
    whole_states(&unpacked.rows);
}

/// States as a watch tells them.
fn whole_states(rows: &[(u32, Quanta)]) {
    let message = pack_states(rows.iter().map(|(slot, quanta)| (*slot, quanta)));
    let mut columns = Columns::decode(message.as_slice()).expect("what was packed can be decoded");
    assert_eq!(unpack_states(&mut columns).as_deref(), Ok(rows));
    let mut room = Room::default();
    room.read(&message).expect("and read where it lies");
    let places: Vec<Option<u32>> = (0..rows.len() as u32).map(Some).collect();
    let mut read = vec![Quanta::default(); rows.len()];
    assert_eq!(room.step(&places, &mut read, |quanta| quanta), 0);
    let read: Vec<(u32, Quanta)> = room.slots().iter().copied().zip(read).collect();
    assert_eq!(read, rows);
}

/// Cells of GPUs against a hive with two.
pub fn gpus(bytes: &[u8]) {
    let told = ["GPU-a", "GPU-b"].map(|uuid| Gpu { uuid: uuid.to_owned(), ..Gpu::default() });
    let Ok(packed) = SlotGpus::decode(bytes) else { return };
    let slot = packed.slot;
    let Some(uses) = unpack(&told, packed) else { return };
    // A known GPU that came in full comes by position the next time, after which nothing changes any more.
    let again = |uses: &Uses| unpack(&told, pack(slot, &told, uses)).expect("what was packed can be unpacked");
    let settled = again(&uses);
    let told_of = |uses: &Uses| match uses {
        Uses::Sole(uuid) => vec![(uuid.clone(), None)],
        Uses::Rows(rows) => rows.iter().map(|row| (row.uuid.clone(), row.vram_bytes)).collect(),
    };
    assert_eq!(told_of(&again(&settled)), told_of(&settled));
    assert_eq!(told_of(&settled).len(), told_of(&uses).len());
    let mut stats = ProcessStats::default();
    uses.apply(&mut stats.gpus, (stats.gpu_util_pct, stats.vram_bytes));
    assert_eq!(stats.gpus.len(), told_of(&uses).len());
}
