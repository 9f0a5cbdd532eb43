//! Hives and watchers of ours. Frames are the real ones; watchers look at messages where they lie, as they come.

use super::{Counts, Pacing};
use crate::fleet::Load;
use bytes::{Buf, BufMut, Bytes};
use common::columns::Room;
use common::wire::{Value, fields};
use prost::Message;
use proto::hive_service_client::HiveServiceClient;
use proto::{RegisterRequest, WatchRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// `WatchResponse.update`, `Update.workers`, `Update.beats`, `Update.columns`, `HiveBeat.sampled_at`.
const UPDATE: u32 = 2;
const WORKERS: u32 = 2;
const BEATS: u32 = 6;
const COLUMNS: u32 = 8;
const SAMPLED_AT: u32 = 2;

/// What a watcher that does not read has room for, in bytes.
const NARROW: u32 = 64 << 10;

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).expect("an address").tcp_nodelay(true)
}

async fn connect(address: &str) -> Channel {
    endpoint(address).connect().await.expect("connect")
}

pub async fn push(address: String, load: Load, mut pace: Pacing, counts: Arc<Counts>) {
    let channel = connect(&address).await;
    let (opened, request) = (Instant::now(), RegisterRequest { hive: Some(load.hive()), ..RegisterRequest::default() });
    let registered = HiveServiceClient::new(channel.clone()).register(request).await.expect("register");
    let session = registered.into_inner().session;
    let first = proto::PushTelemetryRequest {
        session: session.clone(),
        sequence: 1,
        monotonic_ms: 1,
        sampled_at: Some(common::timestamp(std::time::SystemTime::now())),
        frame: Some(load.snapshot()),
        hive: None,
    };
    let mut frames = load.frames(&session);
    let (sender, receiver) = mpsc::channel(1);
    sender.send(Bytes::from(first.encode_to_vec())).await.expect("room for the first");
    let pushing = tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.expect("a channel");
        let path = http::uri::PathAndQuery::from_static("/rbee.v1.HiveService/PushTelemetry");
        grpc.client_streaming(Request::new(ReceiverStream::new(receiver)), path, AsTheyAre).await
    });
    loop {
        pace.due().await;
        if sender.send(frames.next(opened.elapsed())).await.is_err() {
            break;
        }
        counts.push();
    }
    let ended = pushing.await.map(|answer| answer.map(|_| ()));
    panic!("the push ended: {ended:?}");
}

pub async fn watch(address: String, counts: Arc<Counts>, class: Duration, timed: bool) {
    let (mut messages, mut room) = (open(connect(&address).await, class).await, Room::default());
    while let Some(Ok(message)) = messages.next().await {
        let mut workers = 0;
        for (_, update) in parts(&message).filter(|(number, _)| *number == UPDATE) {
            for (number, part) in parts(update) {
                match number {
                    WORKERS => workers += 1,
                    COLUMNS => {
                        room.read(part).expect("columns that can be read");
                        workers += room.slots().len() as u64;
                    }
                    BEATS if timed && counts.times() => counts.time(sampled(part)),
                    _ => {}
                }
            }
        }
        counts.deliver(workers, message.len());
    }
}

async fn open(channel: Channel, class: Duration) -> Streaming<Bytes> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.expect("a channel");
    let min_interval = Some(common::duration(class));
    let request = WatchRequest { min_interval, columns: true, ..WatchRequest::default() };
    let path = http::uri::PathAndQuery::from_static("/rbee.v1.FleetService/Watch");
    let request = Request::new(tokio_stream::once(Bytes::from(request.encode_to_vec())));
    grpc.streaming(request, path, AsTheyAre).await.expect("watch").into_inner()
}

/// A watcher that does not read what it asked for.
pub async fn stall(address: &str) -> Streaming<Bytes> {
    let narrow = endpoint(address).initial_stream_window_size(NARROW).initial_connection_window_size(NARROW);
    open(narrow.connect().await.expect("connect"), Duration::ZERO).await
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

/// Bytes out and in as they are.
#[derive(Debug, Clone, Copy)]
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
