//! The moving fields of a worker, one by one: their order, units and limits, and where `ProcessStats` and `Columns` keep
//! them. Everything else here goes by their numbers.

use proto::{Column, Columns, ProcessStats};

/// How many moving fields there are.
pub const FIELDS: usize = 29;

const PAGE: f64 = 4096.0;
const KIB: f64 = 1024.0;
const HUNDREDTH: f64 = 0.01;
const TENTH: f64 = 0.1;
/// Above this a number is not believed: 2^52 quanta keep every product exact in an `f64`.
const BELIEVABLE: i64 = 1 << 52;
/// Enum numbers above this are kept as "unspecified" by neither end: they are tolerated up to here.
const ENUM_MAX: i64 = 1 << 16;

/// Their names, in order.
pub const NAMES: [&str; FIELDS] = [
    "cpu_pct",
    "memory_current",
    "rss",
    "io_read",
    "io_write",
    "gpu_util_pct",
    "vram",
    "vram_total",
    "process_count",
    "gpu_sample_state",
    "activity",
    "activity_basis",
    "idle_since",
    "anon",
    "working_set",
    "memory_peak",
    "swap",
    "cpu_throttled_pct",
    "cpu_pressure_pct",
    "memory_pressure_pct",
    "io_pressure_pct",
    "task_count",
    "oom_kills",
    "engine_sample_state",
    "requests_running",
    "requests_waiting",
    "kv_cache_pct",
    "tokens_per_second",
    "readiness",
];

/// Those that somebody asks for by themselves.
pub mod at {
    /// `cpu_pct`.
    pub const CPU_PCT: usize = 0;
    /// `gpu_util_pct`.
    pub const GPU_UTIL_PCT: usize = 5;
    /// `vram_bytes`.
    pub const VRAM: usize = 6;
    /// `gpu_sample_state`.
    pub const GPU_SAMPLE_STATE: usize = 9;
    /// `activity`.
    pub const ACTIVITY: usize = 10;
    /// `idle_since`.
    pub const IDLE_SINCE: usize = 12;
    /// `readiness`.
    pub const READINESS: usize = 28;
}

/// Their numbers in `ProcessStats`, in the same order.
pub const FIELD_NUMBERS: [u32; FIELDS] =
    [1, 2, 3, 4, 5, 7, 8, 9, 12, 11, 13, 15, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];

/// Values of a field are below this.
pub fn limit(field: usize) -> i64 {
    match field {
        9..=11 | 23 | 28 => ENUM_MAX,
        12 => (crate::time::LAST_SECOND + 1) * 1_000,
        _ => BELIEVABLE,
    }
}

/// The fields of a row as whole numbers. What is NaN, infinite, negative or beyond belief becomes absent.
pub fn read(stats: &ProcessStats) -> [Option<i64>; FIELDS] {
    let idle = stats.idle_since.as_ref().and_then(crate::from_timestamp);
    let idle_ms = idle.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map(|d| d.as_millis() as f64);
    [
        scaled(stats.cpu_pct, HUNDREDTH),
        pages(stats.memory_current_bytes),
        pages(stats.rss_bytes),
        rate(stats.io_read_bytes_per_second),
        rate(stats.io_write_bytes_per_second),
        scaled(stats.gpu_util_pct, TENTH),
        pages(stats.vram_bytes),
        pages(stats.vram_total_bytes),
        stats.process_count.map(i64::from),
        named(stats.gpu_sample_state),
        named(stats.activity),
        named(stats.activity_basis),
        scaled(idle_ms, 1.0),
        pages(stats.anon_bytes),
        pages(stats.working_set_bytes),
        pages(stats.memory_peak_bytes),
        pages(stats.swap_bytes),
        scaled(stats.cpu_throttled_pct, TENTH),
        scaled(stats.cpu_pressure_pct, TENTH),
        scaled(stats.memory_pressure_pct, TENTH),
        scaled(stats.io_pressure_pct, TENTH),
        stats.task_count.map(i64::from),
        stats.oom_kills.map(i64::from),
        named(stats.engine_sample_state),
        stats.requests_running.map(i64::from),
        stats.requests_waiting.map(i64::from),
        scaled(stats.kv_cache_pct, TENTH),
        scaled(stats.tokens_per_second, TENTH),
        named(stats.readiness),
    ]
}

/// Takes numbers out of a row that cannot be true, and counts them.
pub fn drop_lies(stats: &mut ProcessStats) -> u64 {
    fn keep<T>(field: &mut Option<T>, believed: Option<i64>) -> u64 {
        u64::from(believed.is_none() && field.take().is_some())
    }
    let believed = read(stats);
    keep(&mut stats.cpu_pct, believed[0])
        + keep(&mut stats.memory_current_bytes, believed[1])
        + keep(&mut stats.rss_bytes, believed[2])
        + keep(&mut stats.io_read_bytes_per_second, believed[3])
        + keep(&mut stats.io_write_bytes_per_second, believed[4])
        + keep(&mut stats.gpu_util_pct, believed[5])
        + keep(&mut stats.vram_bytes, believed[6])
        + keep(&mut stats.vram_total_bytes, believed[7])
        + keep(&mut stats.idle_since, believed[12])
        + keep(&mut stats.anon_bytes, believed[13])
        + keep(&mut stats.working_set_bytes, believed[14])
        + keep(&mut stats.memory_peak_bytes, believed[15])
        + keep(&mut stats.swap_bytes, believed[16])
        + keep(&mut stats.cpu_throttled_pct, believed[17])
        + keep(&mut stats.cpu_pressure_pct, believed[18])
        + keep(&mut stats.memory_pressure_pct, believed[19])
        + keep(&mut stats.io_pressure_pct, believed[20])
        + keep(&mut stats.kv_cache_pct, believed[26])
        + keep(&mut stats.tokens_per_second, believed[27])
}

/// Writes the fields back into a row; per-GPU rows stay as they are.
pub fn write(get: impl Fn(usize) -> Option<i64>, stats: &mut ProcessStats) {
    for field in 0..FIELDS {
        write_one(field, get(field), stats);
    }
}

/// Writes one field back into a row.
#[inline]
pub fn write_one(field: usize, value: Option<i64>, stats: &mut ProcessStats) {
    let hundredths = || value.map(hundredths);
    let tenths = || value.map(tenths);
    let kib = || value.map(|value| value as f64 * KIB);
    let bytes = || value.map(bytes);
    let count = || value.and_then(|value| u32::try_from(value).ok());
    let number = || value.and_then(|value| i32::try_from(value).ok()).unwrap_or(0);
    match field {
        0 => stats.cpu_pct = hundredths(),
        1 => stats.memory_current_bytes = bytes(),
        2 => stats.rss_bytes = bytes(),
        3 => stats.io_read_bytes_per_second = kib(),
        4 => stats.io_write_bytes_per_second = kib(),
        5 => stats.gpu_util_pct = tenths(),
        6 => stats.vram_bytes = bytes(),
        7 => stats.vram_total_bytes = bytes(),
        8 => stats.process_count = count(),
        9 => stats.gpu_sample_state = number(),
        10 => stats.activity = number(),
        11 => stats.activity_basis = number(),
        12 => stats.idle_since = value.map(instant),
        13 => stats.anon_bytes = bytes(),
        14 => stats.working_set_bytes = bytes(),
        15 => stats.memory_peak_bytes = bytes(),
        16 => stats.swap_bytes = bytes(),
        17 => stats.cpu_throttled_pct = tenths(),
        18 => stats.cpu_pressure_pct = tenths(),
        19 => stats.memory_pressure_pct = tenths(),
        20 => stats.io_pressure_pct = tenths(),
        21 => stats.task_count = count(),
        22 => stats.oom_kills = count(),
        23 => stats.engine_sample_state = number(),
        24 => stats.requests_running = count(),
        25 => stats.requests_waiting = count(),
        26 => stats.kv_cache_pct = tenths(),
        27 => stats.tokens_per_second = tenths(),
        _ => stats.readiness = number(),
    }
}

/// Bit i: the rows do not have the same in field i.
pub fn differing(a: &ProcessStats, b: &ProcessStats) -> u32 {
    let same = [
        a.cpu_pct == b.cpu_pct,
        a.memory_current_bytes == b.memory_current_bytes,
        a.rss_bytes == b.rss_bytes,
        a.io_read_bytes_per_second == b.io_read_bytes_per_second,
        a.io_write_bytes_per_second == b.io_write_bytes_per_second,
        a.gpu_util_pct == b.gpu_util_pct,
        a.vram_bytes == b.vram_bytes,
        a.vram_total_bytes == b.vram_total_bytes,
        a.process_count == b.process_count,
        a.gpu_sample_state == b.gpu_sample_state,
        a.activity == b.activity,
        a.activity_basis == b.activity_basis,
        a.idle_since == b.idle_since,
        a.anon_bytes == b.anon_bytes,
        a.working_set_bytes == b.working_set_bytes,
        a.memory_peak_bytes == b.memory_peak_bytes,
        a.swap_bytes == b.swap_bytes,
        a.cpu_throttled_pct == b.cpu_throttled_pct,
        a.cpu_pressure_pct == b.cpu_pressure_pct,
        a.memory_pressure_pct == b.memory_pressure_pct,
        a.io_pressure_pct == b.io_pressure_pct,
        a.task_count == b.task_count,
        a.oom_kills == b.oom_kills,
        a.engine_sample_state == b.engine_sample_state,
        a.requests_running == b.requests_running,
        a.requests_waiting == b.requests_waiting,
        a.kv_cache_pct == b.kv_cache_pct,
        a.tokens_per_second == b.tokens_per_second,
        a.readiness == b.readiness,
    ];
    same.iter().enumerate().fold(0, |bits, (field, same)| bits | u32::from(!same) << field)
}

/// Percent from hundredths of it.
pub fn hundredths(value: i64) -> f64 {
    value as f64 / 100.0
}

/// Percent from tenths of it.
pub fn tenths(value: i64) -> f64 {
    value as f64 / 10.0
}

/// Bytes from pages.
pub fn bytes(value: i64) -> u64 {
    (value as u64).saturating_mul(PAGE as u64)
}

/// Milliseconds since the Unix epoch as the wire has instants.
pub fn instant(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: ms.div_euclid(1_000), nanos: (ms.rem_euclid(1_000) * 1_000_000) as i32 }
}

/// Where a batch keeps a field.
pub fn column(columns: &mut Columns, field: usize) -> &mut Option<Column> {
    match field {
        0 => &mut columns.cpu_pct,
        1 => &mut columns.memory_current,
        2 => &mut columns.rss,
        3 => &mut columns.io_read,
        4 => &mut columns.io_write,
        5 => &mut columns.gpu_util_pct,
        6 => &mut columns.vram,
        7 => &mut columns.vram_total,
        8 => &mut columns.process_count,
        9 => &mut columns.gpu_sample_state,
        10 => &mut columns.activity,
        11 => &mut columns.activity_basis,
        12 => &mut columns.idle_since,
        13 => &mut columns.anon,
        14 => &mut columns.working_set,
        15 => &mut columns.memory_peak,
        16 => &mut columns.swap,
        17 => &mut columns.cpu_throttled_pct,
        18 => &mut columns.cpu_pressure_pct,
        19 => &mut columns.memory_pressure_pct,
        20 => &mut columns.io_pressure_pct,
        21 => &mut columns.task_count,
        22 => &mut columns.oom_kills,
        23 => &mut columns.engine_sample_state,
        24 => &mut columns.requests_running,
        25 => &mut columns.requests_waiting,
        26 => &mut columns.kv_cache_pct,
        27 => &mut columns.tokens_per_second,
        _ => &mut columns.readiness,
    }
}

fn scaled(value: Option<f64>, unit: f64) -> Option<i64> {
    // Rounded first: what is believed here must be believed where it is read again.
    let rounded = (value.filter(|v| v.is_finite() && *v >= 0.0)? / unit).round();
    (rounded < BELIEVABLE as f64).then_some(rounded as i64)
}

/// Rounded, but never from something to nothing.
fn rate(value: Option<f64>) -> Option<i64> {
    let rounded = scaled(value, KIB)?;
    Some(if rounded == 0 && value.is_some_and(|v| v > 0.0) { 1 } else { rounded })
}

fn pages(bytes: Option<u64>) -> Option<i64> {
    scaled(bytes.map(|b| b as f64), PAGE)
}

/// An enum; unspecified is absent.
fn named(number: i32) -> Option<i64> {
    Some(i64::from(number)).filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn every_number_that_can_lie_is_dropped_when_it_does() {
        let mut stats = ProcessStats::default();
        write(|field| Some(field as i64 + 1), &mut stats);
        let all = ProcessStats { idle_since: None, ..stats.clone() };
        assert_eq!(drop_lies(&mut stats), 0);
        let lies = |value: &mut Option<f64>| *value = Some(f64::NAN);
        [&mut stats.cpu_pct, &mut stats.gpu_util_pct, &mut stats.cpu_throttled_pct].into_iter().for_each(lies);
        [&mut stats.cpu_pressure_pct, &mut stats.memory_pressure_pct, &mut stats.io_pressure_pct]
            .into_iter()
            .for_each(lies);
        [&mut stats.io_read_bytes_per_second, &mut stats.io_write_bytes_per_second].into_iter().for_each(lies);
        [&mut stats.kv_cache_pct, &mut stats.tokens_per_second].into_iter().for_each(lies);
        let far = |value: &mut Option<u64>| *value = Some(u64::MAX);
        [&mut stats.memory_current_bytes, &mut stats.rss_bytes, &mut stats.vram_bytes].into_iter().for_each(far);
        [&mut stats.vram_total_bytes, &mut stats.anon_bytes, &mut stats.working_set_bytes].into_iter().for_each(far);
        [&mut stats.memory_peak_bytes, &mut stats.swap_bytes].into_iter().for_each(far);
        stats.idle_since = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        assert_eq!(drop_lies(&mut stats), 19);
        let left = read(&stats).iter().flatten().count();
        assert_eq!(left, read(&all).iter().flatten().count() - 18);
    }

    #[test]
    fn what_is_just_believed_is_still_believed_once_it_is_rounded() {
        for below in [0, 1, 2_000, 4_096, 100_000] {
            let mut stats = ProcessStats { memory_current_bytes: Some(u64::MAX - below), ..ProcessStats::default() };
            drop_lies(&mut stats);
            let told = read(&stats);
            let mut again = ProcessStats::default();
            write(|field| told[field], &mut again);
            assert_eq!(read(&again), told, "{below}");
        }
    }

    /// Every field gets a value of its own here; one that `read`, `write` or `column` mixes up with another shows.
    #[test]
    fn every_field_has_its_number_and_differs_alone() {
        for (field, number) in FIELD_NUMBERS.into_iter().enumerate() {
            let mut stats = ProcessStats::default();
            write_one(field, Some(1), &mut stats);
            let (key, _) = prost::encoding::decode_key(&mut stats.encode_to_vec().as_slice()).unwrap();
            assert_eq!((key, differing(&stats, &ProcessStats::default())), (number, 1 << field));
        }
    }

    #[test]
    fn every_field_comes_back_where_it_was() {
        let mut stats = ProcessStats::default();
        write(|field| Some(field as i64 + 1), &mut stats);
        assert_eq!(read(&stats), std::array::from_fn(|field| Some(field as i64 + 1)));
        let mut columns = Columns::default();
        for field in 0..FIELDS {
            *column(&mut columns, field) = Some(Column { present: vec![], deltas: vec![field as i64] });
        }
        for field in 0..FIELDS {
            assert_eq!(column(&mut columns, field).take().unwrap().deltas, [field as i64]);
        }
    }
}
