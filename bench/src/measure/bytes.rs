//! Bytes of one batch of 100 workers.

use crate::fleet::{Form, Load, WORKERS};
use crate::table::Table;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use proto::push_telemetry_request::Frame;

/// gRPC's five bytes before each message.
const FRAMING: usize = 5;

pub fn run(table: &mut Table) {
    let (document, full) = (Load::new(0, WORKERS, Form::Document), Load::new(0, WORKERS, Form::Full));
    let json = serde_json::to_string(&document.heartbeat(1)).expect("JSON").len() as f64;
    let canonical = canonical(&document);
    let ours = frame(&document, 100);
    table.ours("100 workers, the document's fields, all changed", ours, "bytes", Some(1_600.0), false);
    table.peer(
        "100 workers, the document's fields, all changed",
        "JSON, as the document has it",
        json,
        "bytes",
        ours / json,
        None,
    );
    table.ours("100 workers, all fields of ours, all changed", frame(&full, 100), "bytes", Some(4_000.0), false);
    table.ours("100 workers, the document's fields, 5 % changed", frame(&document, 5), "bytes", Some(200.0), false);
    table.ours("100 workers, the document's fields, as canonical JSON", canonical, "bytes", Some(100_000.0), true);
}

fn frame(load: &Load, share: usize) -> f64 {
    let request = proto::PushTelemetryRequest {
        session: "hive-00000/123/0123456789abcdef".into(),
        sequence: 86_400,
        monotonic_ms: 86_400_000,
        before_register_ms: 0,
        sampled_at: Some(common::timestamp(std::time::SystemTime::now())),
        frame: Some(Frame::Batch(load.batch(0, share))),
        hive: None,
    };
    (request.encoded_len() + FRAMING) as f64
}

/// One answer with these workers as any client of `-o json` gets it.
fn canonical(load: &Load) -> f64 {
    let answer = proto::ListWorkersResponse { workers: load.listed(), ..proto::ListWorkersResponse::default() };
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("the contract");
    let message = pool.get_message_by_name("rbee.v1.ListWorkersResponse").expect("its answer");
    let dynamic = DynamicMessage::decode(message, answer.encode_to_vec().as_slice()).expect("an answer");
    let text = serde_json::to_string(&dynamic).expect("JSON");
    assert_eq!(text.matches("\"spec\"").count(), WORKERS as usize, "every worker");
    text.len() as f64
}
