//! How long a forwarded call may take: what its caller said, else what that kind of call needs.

use crate::rpc::invalid;
use std::time::Duration;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Calls that only look something up.
pub const LOOK: Duration = Duration::from_secs(10);
/// Over and above a grace: the hive gives a kill 10 s, and GPU memory as long to be released.
pub const AFTER_GRACE: Duration = Duration::from_secs(30);
/// The grace of a stop that names none, as the hive has it.
pub const GRACE: Duration = Duration::from_secs(30);
/// A start that is not waited for: the hive answers when the program has been executed.
pub const START: Duration = Duration::from_secs(30);
/// How long a start is waited for that does not say, as the hive has it.
pub const WAIT: Duration = Duration::from_secs(600);
/// No unary call lasts longer, whatever its caller says: as long as a hive waits for a worker to become ready, and what
/// follows.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600 + 60);
/// A stream has begun after this long, or is given up.
pub const OPENING: Duration = Duration::from_secs(10);

/// What the caller said, by its `grpc-timeout`; `None` when it said nothing.
///
/// # Errors
/// INVALID_ARGUMENT for a text that is no time: 1 to 8 digits and one of H, M, S, m, u, n.
pub fn asked(metadata: &MetadataMap) -> Result<Option<Duration>, Status> {
    let Some(value) = metadata.get("grpc-timeout") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let parsed = parse(text).map(Some);
    parsed.ok_or_else(|| invalid::field("grpc-timeout", "use 1 to 8 digits and one of H, M, S, m, u, n"))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// A length of time of a request, or what stands for none. One that is no length is the hive's to refuse.
pub fn or(length: Option<&prost_types::Duration>, default: Duration) -> Duration {
    length.and_then(common::from_duration).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        for (text, wanted) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("90S", Some(Duration::from_secs(90))),
            ("200m", Some(Duration::from_millis(200))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("+1S", None),
            ("123456789S", None),
            ("1ß", None),
        ] {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }
}
