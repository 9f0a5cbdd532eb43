//! Hives and watchers of ours. Frames are the real ones; watchers look at messages where they lie, as they come.

use super::call::{Call, WIDE};
use super::{Counts, Pacing};
use crate::fleet::Load;
use common::wire::{Value, fields, packed_count};
use prost::Message;
use proto::hive_service_client::HiveServiceClient;
use proto::{RegisterRequest, WatchRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;

const PUSH: &str = "/rbee.v1.HiveService/PushTelemetry";
const WATCH: &str = "/rbee.v1.FleetService/Watch";
/// `WatchResponse.update`, `Update.workers`, `Update.beats`, `Update.columns`, `HiveBeat.sampled_at`.
const UPDATE: u32 = 2;
const WORKERS: u32 = 2;
const BEATS: u32 = 6;
const COLUMNS: u32 = 8;
const SAMPLED_AT: u32 = 2;
/// `Columns.slot_gaps`, `Columns.run`.
const SLOT_GAPS: u32 = 1;
const RUN: u32 = 31;

/// What a watcher that does not read has room for, in bytes.
const NARROW: u32 = 64 << 10;

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("connect");
    let (opened, request) = (Instant::now(), RegisterRequest { hive: Some(load.hive()), ..RegisterRequest::default() });
    let registered = HiveServiceClient::new(channel).register(request).await.expect("register");
    let session = registered.into_inner().session;
    let first = proto::PushTelemetryRequest {
        session: session.clone(),
        sequence: 1,
        monotonic_ms: 1,
        before_register_ms: 0,
        sampled_at: Some(common::timestamp(std::time::SystemTime::now())),
        frame: Some(load.snapshot()),
        hive: None,
    };
    let mut frames = load.frames(&session);
    let mut call = Call::open(&address, PUSH, WIDE).await;
    call.send(&first.encode_to_vec()).await;
    loop {
        call.until(pace.due()).await;
        call.send(&frames.next(opened.elapsed())).await;
        counts.push();
    }
}

pub async fn watch(address: String, counts: Arc<Counts>, class: Duration, timed: bool) {
    let mut call = open(&address, class, WIDE).await;
    while let Some(message) = call.message().await {
        let mut workers = 0;
        for (_, update) in parts(&message).filter(|(number, _)| *number == UPDATE) {
            for (number, part) in parts(update) {
                match number {
                    WORKERS => workers += 1,
                    COLUMNS => workers += rows(part),
                    BEATS if timed && counts.times() => counts.time(sampled(part)),
                    _ => {}
                }
            }
        }
        counts.deliver(workers, message.len());
    }
    panic!("the watch ended");
}

async fn open(address: &str, class: Duration, window: u32) -> Call {
    let request =
        WatchRequest { min_interval: Some(common::duration(class)), columns: true, ..WatchRequest::default() };
    let mut call = Call::open(address, WATCH, window).await;
    call.send(&request.encode_to_vec()).await;
    call.finish().await;
    call
}

/// A watcher that does not read what it asked for.
pub async fn stall(address: &str) -> AbortOnDropHandle<()> {
    let mut call = open(address, Duration::ZERO, NARROW).await;
    AbortOnDropHandle::new(tokio::spawn(async move { call.until(std::future::pending()).await }))
}

/// How many workers columns are of.
fn rows(columns: &[u8]) -> u64 {
    let count = |field| match field {
        Ok((SLOT_GAPS, Value::Bytes(gaps))) => packed_count(gaps) as u64,
        Ok((RUN, Value::Number(run))) => run,
        _ => 0,
    };
    fields(columns).map(count).sum()
}

/// The messages in a message.
fn parts(message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    fields(message).filter_map(|field| match field {
        Ok((number, Value::Bytes(bytes))) => Some((number, bytes)),
        _ => None,
    })
}

fn sampled(beat: &[u8]) -> u64 {
    let at = parts(beat).find(|(number, _)| *number == SAMPLED_AT).map(|(_, bytes)| bytes).unwrap_or_default();
    let at = prost_types::Timestamp::decode(at).unwrap_or_default();
    at.seconds as u64 * 1_000_000_000 + at.nanos as u64
}
