//! Canonical protobuf JSON of any message of the wire contract, written as `grpcurl` and `buf curl` write it.

use crate::args::Output;
use crate::failure::Failure;
use crate::terminal;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io;

/// Above this a double no longer tells one whole number from the next.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// How the text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Indented by two.
    Pretty,
    /// On one line.
    Line,
}

/// The message `rbee.v1.<name>` as JSON, without a line end.
pub fn text<M: prost::Message>(name: &str, message: &M, layout: Layout) -> Result<String, Failure> {
    let spell = || -> Result<String, Box<dyn std::error::Error>> {
        let descriptor = pool()?
            .get_message_by_name(&format!("rbee.v1.{name}"))
            .ok_or_else(|| format!("there is no message {name} in the wire contract"))?;
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        let mut bytes = Vec::new();
        let options = SerializeOptions::new();
        match layout {
            Layout::Pretty => {
                let formatter = Canonical(PrettyFormatter::new());
                let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
                dynamic.serialize_with_options(&mut writer, &options)?;
            }
            Layout::Line => {
                let mut writer = serde_json::Serializer::with_formatter(&mut bytes, Canonical(CompactFormatter));
                dynamic.serialize_with_options(&mut writer, &options)?;
            }
        }
        Ok(String::from_utf8(bytes)?)
    };
    spell().map_err(|error| Failure::Failed(format!("failed to write {name} as JSON: {error}")))
}

/// Prints a message indented.
pub fn print<M: prost::Message>(name: &str, message: &M) -> Result<(), Failure> {
    terminal::put(text(name, message, Layout::Pretty)? + "\n")
}

/// Prints a message on one line.
pub fn print_line<M: prost::Message>(name: &str, message: &M) -> Result<(), Failure> {
    terminal::put(text(name, message, Layout::Line)? + "\n")
}

/// Prints one message of a stream: indented with `-o json`, else on one line.
pub fn print_next<M: prost::Message>(output: Output, name: &str, message: &M) -> Result<(), Failure> {
    if output == Output::Json { print(name, message) } else { print_line(name, message) }
}

fn pool() -> Result<&'static DescriptorPool, prost_reflect::DescriptorError> {
    static POOL: std::sync::OnceLock<DescriptorPool> = std::sync::OnceLock::new();
    if let Some(pool) = POOL.get() {
        return Ok(pool);
    }
    let pool = DescriptorPool::decode(proto::DESCRIPTORS)?;
    Ok(POOL.get_or_init(|| pool))
}

/// Writes whole doubles without a point, as the reference implementations do; all else as the formatter within.
struct Canonical<F>(F);

impl<F: Formatter> Formatter for Canonical<F> {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
            self.0.write_i64(writer, value as i64)
        } else {
            self.0.write_f64(writer, value)
        }
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> proto::FindIdleWorkersResponse {
        let stats = proto::ProcessStats {
            cpu_pct: Some(35.0),
            gpu_util_pct: Some(0.0),
            memory_current_bytes: Some(4_294_967_296),
            activity: proto::Activity::Idle.into(),
            uptime: Some(prost_types::Duration { seconds: 3, nanos: 500_000_000 }),
            ..Default::default()
        };
        let spec = proto::WorkerSpec {
            hive: "box".into(),
            pid: 7,
            start_time: Some(prost_types::Timestamp { seconds: 1_761_849_000, nanos: 0 }),
            ..Default::default()
        };
        let worker = proto::Worker { spec: Some(spec), stats: Some(stats), ..Default::default() };
        proto::FindIdleWorkersResponse { workers: vec![worker], ..Default::default() }
    }

    #[test]
    fn json_is_canonical() {
        let told = text("FindIdleWorkersResponse", &answer(), Layout::Line).unwrap();
        assert_eq!(
            told,
            r#"{"workers":[{"spec":{"hive":"box","pid":7,"startTime":"2025-10-30T18:30:00Z"},"stats":{"cpuPct":35,"memoryCurrentBytes":"4294967296","uptime":"3.500s","gpuUtilPct":0,"activity":"ACTIVITY_IDLE"}}]}"#
        );
    }

    #[test]
    fn absent_is_left_out_and_zero_is_not() {
        let told = text("FindIdleWorkersResponse", &answer(), Layout::Pretty).unwrap();
        assert!(told.contains("\"gpuUtilPct\": 0"), "{told}");
        assert!(!told.contains("vramBytes"), "{told}");
        assert!(told.starts_with("{\n  \"workers\": [\n    {\n      \"spec\": {\n"), "{told}");
    }

    #[test]
    fn every_answer_has_a_name_in_the_contract() {
        for name in ["ListWorkersResponse", "ListHivesResponse", "GetWorkerResponse", "WatchResponse", "LifeEvent"] {
            assert!(text(name, &proto::ListWorkersRequest::default(), Layout::Line).is_ok(), "{name}");
        }
    }
}
