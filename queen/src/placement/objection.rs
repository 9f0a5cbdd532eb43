//! What can speak against a worker or a GPU: the facts while they are judged, one sentence each when somebody asks.

use crate::fleet::Measured;
use crate::fleet::room::{Room, Unfit};
use proto::{Activity, ActivityBasis, Freshness, GpuSampleState, ObjectionKind, ProcessStats, WorkerState};
use std::fmt;
use std::time::Duration;

/// So many names of a worker's models are told.
const NAMES_TOLD: usize = 4;

/// One objection. Borrows from what is judged: to find somebody, no sentence is made.
#[derive(Debug, Clone, Copy)]
pub enum Objection<'a> {
    /// There is no good sample of it.
    Unsampled,
    /// Its last good sample is older than is accepted.
    TooOld { age: Duration, max_age: Duration },
    /// It is STALE or LOST, and samples in doubt were not asked for.
    Doubtful { freshness: Freshness, broken: bool },
    /// A `WorkerState` as it came.
    NotRunning(i32),
    /// Its probe says so.
    NotReady,
    /// It is busy, by its activity.
    Busy(&'a Measured),
    /// Its GPU use is not zero.
    GpuInUse(f64),
    /// Whether it is idle is not known.
    Unknown(Option<&'a Measured>),
    /// It has not been idle for as long as is asked for.
    IdleTooShort { idle: Option<Duration>, least: Duration },
    /// None of these names fits.
    OtherModel { model: Option<&'a str>, names: &'a [Box<str>], wanted: &'a str },
    /// There is no GPU on its hive, or not the one that it uses.
    NoGpu,
    /// A GPU has less room than is asked for.
    NoRoom { uuid: &'a str, room: Room, required: u64, headroom: u64 },
    /// A GPU is out of placement.
    Unfit { uuid: &'a str, unfit: Unfit<'a> },
    /// A reservation holds it.
    Held(&'a proto::Hold),
}

impl Objection<'_> {
    /// As the wire tells it.
    pub fn to_wire(self) -> proto::Objection {
        proto::Objection { kind: self.kind().into(), sentence: self.to_string() }
    }

    fn kind(&self) -> ObjectionKind {
        match self {
            Self::Unsampled | Self::TooOld { .. } | Self::Doubtful { .. } => ObjectionKind::TooOld,
            Self::NotRunning(_) => ObjectionKind::NotRunning,
            Self::NotReady => ObjectionKind::NotReady,
            Self::Busy(_) | Self::GpuInUse(_) => ObjectionKind::Busy,
            Self::Unknown(_) => ObjectionKind::ActivityUnknown,
            Self::IdleTooShort { .. } => ObjectionKind::IdleTooShort,
            Self::OtherModel { .. } => ObjectionKind::OtherModel,
            Self::NoGpu => ObjectionKind::NoGpu,
            Self::NoRoom { .. } => ObjectionKind::NoRoom,
            Self::Unfit { unfit: Unfit::Draining | Unfit::Stopping, .. } => ObjectionKind::Draining,
            Self::Unfit { unfit: Unfit::Divided, .. } => ObjectionKind::NoRoom,
            Self::Unfit { .. } => ObjectionKind::GpuUnknown,
            Self::Held(_) => ObjectionKind::Held,
        }
    }
}

impl fmt::Display for Objection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsampled => write!(f, "there is no good sample of it yet"),
            Self::TooOld { age, max_age } => {
                let (age, max_age) = (Seconds(*age), Seconds(*max_age));
                write!(f, "last good sample is {age} old, at most {max_age} are accepted")
            }
            Self::Doubtful { freshness, broken } => doubt(f, *freshness, *broken),
            Self::NotRunning(state) => match WorkerState::try_from(*state) {
                Ok(state) => write!(f, "its state is {}, not RUNNING", short(state.as_str_name(), "WORKER_STATE_")),
                Err(_) => write!(f, "its state is {state}, not RUNNING"),
            },
            Self::NotReady => write!(f, "it runs, but says that it is not ready"),
            Self::Busy(stats) => busy(f, &stats.row()),
            Self::GpuInUse(util) => write!(f, "its GPU use is {util:.1} %, and only a measured 0 counts"),
            Self::Unknown(stats) => unknown(f, *stats),
            Self::IdleTooShort { idle: Some(idle), least } => {
                write!(f, "idle for {}, at least {} are asked for", Seconds(*idle), Seconds(*least))
            }
            Self::IdleTooShort { idle: None, least } => {
                write!(f, "it is not idle, and to be so for at least {} is asked for", Seconds(*least))
            }
            Self::OtherModel { model, names, wanted } => other_model(f, *model, names, wanted),
            Self::NoGpu => write!(f, "its hive knows of no GPU that it could use"),
            Self::NoRoom { uuid, room, required, headroom } => no_room(f, uuid, room, *required, *headroom),
            Self::Unfit { uuid, unfit } => out_of_placement(f, uuid, unfit),
            Self::Held(hold) => held(f, hold),
        }
    }
}

fn doubt(f: &mut fmt::Formatter<'_>, freshness: Freshness, broken: bool) -> fmt::Result {
    let word = short(freshness.as_str_name(), "FRESHNESS_");
    let why = if broken { "the stream of its hive is broken" } else { "its hive has not been heard from" };
    write!(f, "it is {word}: {why}")
}

fn busy(f: &mut fmt::Formatter<'_>, stats: &ProcessStats) -> fmt::Result {
    let count = |number: Option<u32>| number.map_or("?".to_owned(), |number| number.to_string());
    match stats.activity_basis() {
        ActivityBasis::Engine => {
            let (running, waiting) = (count(stats.requests_running), count(stats.requests_waiting));
            write!(f, "it is busy: its engine has {running} requests running and {waiting} waiting")
        }
        ActivityBasis::Gpu => match stats.gpu_util_pct {
            Some(util) => write!(f, "it is busy: its GPU use is {util:.1} %"),
            None => write!(f, "it is busy, as its GPU use says"),
        },
        ActivityBasis::Cpu => match stats.cpu_pct {
            Some(cpu) => write!(f, "it is busy: its CPU use is {cpu:.1} %"),
            None => write!(f, "it is busy, as its CPU use says"),
        },
        ActivityBasis::Unspecified => write!(f, "it is busy, as its hive says"),
    }
}

fn unknown(f: &mut fmt::Formatter<'_>, stats: Option<&Measured>) -> fmt::Result {
    let state = stats.map(Measured::gpu_sample_state);
    match (stats, state) {
        (None, _) => write!(f, "whether it is idle is not known: it has no numbers yet"),
        (_, Some(state @ (GpuSampleState::Timeout | GpuSampleState::Stale | GpuSampleState::Error))) => {
            let word = short(state.as_str_name(), "GPU_SAMPLE_STATE_");
            write!(f, "whether it is idle is not known: its GPU numbers are {word}")
        }
        (Some(stats), _) if stats.activity() == Activity::Unspecified => {
            write!(f, "whether it is idle is not known: its hive does not say")
        }
        _ => write!(f, "whether it is idle is not known"),
    }
}

fn other_model(f: &mut fmt::Formatter<'_>, model: Option<&str>, names: &[Box<str>], wanted: &str) -> fmt::Result {
    let further = names.iter().map(AsRef::as_ref).filter(|name| Some(*name) != model);
    let all: Vec<&str> = model.into_iter().chain(further).collect();
    let told: Vec<String> = all.iter().take(NAMES_TOLD).map(|name| format!("{name:?}")).collect();
    match all.len().saturating_sub(NAMES_TOLD) {
        0 if told.is_empty() => write!(f, "its model has no name, and {wanted:?} is asked for"),
        0 => write!(f, "its model is {}, not {wanted:?}", told.join(" or ")),
        more => write!(f, "its model is {} or one of {more} further names, not {wanted:?}", told.join(" or ")),
    }
}

fn no_room(f: &mut fmt::Formatter<'_>, uuid: &str, room: &Room, required: u64, headroom: u64) -> fmt::Result {
    let (free, total, used, held) = (Size(room.free), Size(room.total), Size(room.used), Size(room.held));
    write!(f, "{uuid}: {free} free of {total}: {used} in use, {held} held; {} are asked for", Size(required))?;
    if headroom > 0 { write!(f, " beside {} of headroom", Size(headroom)) } else { Ok(()) }
}

fn out_of_placement(f: &mut fmt::Formatter<'_>, uuid: &str, unfit: &Unfit<'_>) -> fmt::Result {
    match unfit {
        Unfit::Draining => write!(f, "its hive is draining: it takes no further starts and grants"),
        Unfit::Stopping => write!(f, "its hive is stopping: it takes no further starts and grants"),
        Unfit::Driver(state) => {
            let why = match state {
                GpuSampleState::Timeout => "has not answered for 10 s",
                GpuSampleState::Stale => "last answered more than 2 s ago",
                _ => "answers with an error",
            };
            write!(f, "{uuid}: the GPU driver of its hive {why}")
        }
        Unfit::Broken(error) => write!(f, "{uuid}: it cannot be used: {error}"),
        Unfit::Divided => write!(f, "{uuid}: it is divided (MIG), and its slices are looked at one by one"),
        Unfit::Untold => write!(f, "{uuid}: its driver does not tell how much memory is free"),
    }
}

fn held(f: &mut fmt::Formatter<'_>, hold: &proto::Hold) -> fmt::Result {
    write!(f, "held by reservation {}", hold.reservation)?;
    if !hold.holder.is_empty() {
        write!(f, " of {}", hold.holder)?;
    }
    if hold.tentative { write!(f, ", which is being made") } else { Ok(()) }
}

/// The last word of an enum's name on the wire.
fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// "5.2 s", "3 s".
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{} s", self.0.as_secs())
        } else if self.0 < Duration::from_secs(60) {
            // Just above a whole number must not read as that number.
            write!(f, "{} s", (self.0.as_secs_f64() * 1_000.0).round() / 1_000.0)
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

/// "24.0 GiB".
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.iter().find(|(_, power)| self.0 >= 1 << power) {
            Some((unit, power)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << power) as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_sentence_has_the_numbers_that_decided() {
        let old = Objection::TooOld { age: Duration::from_millis(5_200), max_age: Duration::from_secs(3) };
        assert_eq!(old.to_string(), "last good sample is 5.2 s old, at most 3 s are accepted");
        let just = Objection::TooOld { age: Duration::from_millis(3_004), max_age: Duration::from_secs(3) };
        assert_eq!(just.to_string(), "last good sample is 3.004 s old, at most 3 s are accepted");
        let room = Room { total: 24 * GIB, used: 18 * GIB, held: 29 * GIB / 10, free: 31 * GIB / 10 };
        let full = Objection::NoRoom { uuid: "GPU-1", room, required: 8 * GIB, headroom: 0 };
        assert_eq!(
            full.to_string(),
            "GPU-1: 3.1 GiB free of 24.0 GiB: 18.0 GiB in use, 2.9 GiB held; 8.0 GiB are asked for"
        );
        let names: Vec<Box<str>> = (0..6).map(|at| format!("m{at}").into()).collect();
        let other = Objection::OtherModel { model: Some("m0"), names: &names, wanted: "x" };
        assert_eq!(
            other.to_string(),
            r#"its model is "m0" or "m1" or "m2" or "m3" or one of 2 further names, not "x""#
        );
        assert_eq!(Objection::NotRunning(4).to_string(), "its state is STOPPING, not RUNNING");
        let hold = proto::Hold { reservation: "r1".into(), holder: "alice".into(), ..Default::default() };
        assert_eq!(Objection::Held(&hold).to_string(), "held by reservation r1 of alice");
    }
}
