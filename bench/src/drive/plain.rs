//! The plain peer's calls.

use super::call::{Call, WIDE};
use super::{Counts, Pacing};
use crate::fleet::{Load, now_ns};
use common::wire::{Value, fields};
use prost::Message;
use std::sync::Arc;

const PUSH: &str = "/plain.Telemetry/Push";
const WATCH: &str = "/plain.Telemetry/Watch";
/// `Batch.sent_ns`, `Batch.workers`.
const SENT_NS: u32 = 2;
const WORKERS: u32 = 3;

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let mut batches = [load.plain(0), load.plain(1)];
    let mut call = Call::open(&address, PUSH, WIDE).await;
    for at in (0..2).cycle() {
        call.until(pace.due()).await;
        batches[at].sent_ns = now_ns();
        call.send(&batches[at].encode_to_vec()).await;
        counts.push();
    }
}

pub async fn watch(address: String, counts: Arc<Counts>) {
    let mut call = Call::open(&address, WATCH, WIDE).await;
    call.send(&[]).await;
    call.finish().await;
    while let Some(batch) = call.message().await {
        let (mut workers, mut sent_ns) = (0, 0);
        for field in fields(&batch) {
            match field {
                Ok((WORKERS, _)) => workers += 1,
                Ok((SENT_NS, Value::Number(sent))) => sent_ns = sent,
                _ => {}
            }
        }
        counts.deliver(workers, batch.len());
        if counts.times() {
            counts.time(sent_ns);
        }
    }
    panic!("the watch ended");
}
