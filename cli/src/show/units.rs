//! Sizes and times as people write and read them.

use std::time::Duration;

const SIZES: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
const SECONDS_PER_DAY: u64 = 86_400;

/// "8G" → 8 589 934 592: K, M, G and T are powers of 1024, a bare number is bytes, fractions are fine.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: use bytes or a number with K, M, G or T, such as 512M or 8G");
    let trimmed = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i');
    let last = trimmed.chars().last().ok_or_else(wrong)?.to_ascii_uppercase();
    let power = SIZES.iter().find(|(letter, _)| *letter == last).map(|(_, power)| *power);
    let number = if power.is_some() { &trimmed[..trimmed.len() - 1] } else { trimmed };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << power.unwrap_or(0)).ok_or_else(wrong);
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = fraction * (1_u64 << power.ok_or_else(wrong)?) as f64;
    // 2^53: above it a fraction of a byte would be invented.
    if bytes.is_finite() && (0.0..9_007_199_254_740_992.0).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// "3s", "500ms", "1h30m" → that long. A bare number has no unit and is refused, except 0.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: use a number with ms, s, m, h or d, such as 500ms, 3s or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => SECONDS_PER_DAY as f64,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// 1536 → "1.5K", 4294967296 → "4.0G".
pub fn size(bytes: u64) -> String {
    let mut shown = format!("{bytes}B");
    for (letter, power) in SIZES {
        let unit = (1_u64 << power) as f64;
        let value = bytes as f64 / unit;
        // 0.9995 of a unit would be shown as 1024 of the smaller one.
        if value < 0.9995 {
            break;
        }
        shown = if value < 99.95 { format!("{value:.1}{letter}") } else { format!("{value:.0}{letter}") };
    }
    shown
}

/// A rate, with two characters for "nothing moves".
pub fn rate(bytes_per_second: f64) -> String {
    if bytes_per_second > 0.0 { format!("{}/s", size(bytes_per_second.ceil() as u64)) } else { "0".to_owned() }
}

/// 35.04 → "35.0".
pub fn percent(value: f64) -> String {
    format!("{value:.1}")
}

/// The two greatest units: "0.4s", "12s", "5m03s", "2h10m", "3d4h".
pub fn time(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", length.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..SECONDS_PER_DAY => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / SECONDS_PER_DAY, seconds / 3_600 % 24),
    }
}

/// An instant to the second, in UTC: "2025-10-30T18:30:00Z".
pub fn instant(at: &prost_types::Timestamp) -> String {
    prost_types::Timestamp { seconds: at.seconds, nanos: 0 }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("512m"), Ok(512 << 20));
        assert_eq!(parse_size("1.5K"), Ok(1536));
        assert_eq!(parse_size("8GiB"), Ok(8 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "G", "-1G", "1.5", "8X", "1e30T", "99999999999T", "nanG", "ä"] {
            assert!(parse_size(bad).is_err(), "{bad:?} -> {:?}", parse_size(bad));
        }
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2.5s"), Ok(Duration::from_millis(2_500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "3", "s", "3x", "-3s", "3 s", "1.2.3s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, 4 << 30, 200 << 30].map(size),
            ["0B", "1023B", "1.0K", "1.5K", "1.0M", "4.0G", "200G"]
        );
        assert_eq!(
            [0, 9, 75, 7_800, 273_600].map(|s| time(Duration::from_secs(s))),
            ["0.0s", "9.0s", "1m15s", "2h10m", "3d4h"]
        );
        assert_eq!([rate(0.0), rate(0.4), rate(2048.0)], ["0", "1B/s", "2.0K/s"]);
    }
}
