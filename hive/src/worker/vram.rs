//! Which GPU has room for a worker, or for a hold of GPU memory. Pure. What was granted or promised to others and is not
//! used yet is taken, so nobody gets the same room twice; what a driver does not say is not there.

use crate::gpus::{Device, GpuView, Outcome, observed};
use common::vram::{Memory, due};
use std::fmt;
use std::time::{Duration, Instant};

/// Numbers older than this promise nothing.
const FRESH_FOR: Duration = Duration::from_secs(2);
/// So many GPUs are told of when none has room.
const TOLD_MAX: usize = 16;

/// Memory of a GPU that a worker was promised, or that a reservation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The GPU.
    pub uuid: String,
    /// Bytes that were asked for.
    pub asked: u64,
    /// Bytes that the worker has been seen to use there; 0 when nothing has been seen.
    pub used: u64,
    /// Held for somebody: there is no worker yet.
    pub held: bool,
}

impl Promise {
    /// What counts as taken, in bytes.
    pub fn due(&self) -> u64 {
        due(self.asked, self.used)
    }
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Bytes.
    pub bytes: u64,
    /// Bytes that must stay free beside them.
    pub headroom: u64,
    /// Positions of the only GPUs that may be chosen; `None`: any.
    pub among: Option<&'a [usize]>,
    /// Whether this hive may grant a GPU, by its UUID; else a sentence that says who does.
    pub owned: &'a dyn Fn(&str) -> Result<(), String>,
}

/// Why no GPU is chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// There is none, or none that the hive can see.
    #[error("this machine has no GPU, or no driver for one; see `rbee doctor`")]
    NoGpu,
    /// The driver has never answered.
    #[error("the GPU driver has not answered yet; try again in a moment, or see `rbee doctor`")]
    NotYet,
    /// It has, but too long ago.
    #[error("the GPU driver last answered {:.1} s ago, and numbers that old are not trusted; see `rbee doctor`", .0.as_secs_f64())]
    Stale(Duration),
    /// It answers with an error.
    #[error("the GPU driver answers with an error: {0}; see `rbee doctor`")]
    Failed(String),
    /// Every GPU has something against it.
    #[error("no GPU has {} free: {}", Size(*bytes), told(reasons))]
    Full {
        /// What was looked for, in bytes.
        bytes: u64,
        /// A sentence for each GPU.
        reasons: Vec<String>,
    },
}

/// The position of the GPU that has room and least to spare. `ours` tells whether a process, by its pid, belongs to a
/// worker of this hive.
pub fn pick(
    view: &GpuView,
    now: Instant,
    promises: &[Promise],
    ours: &dyn Fn(u32) -> bool,
    ask: Ask<'_>,
) -> Result<usize, NoRoom> {
    trusted(view, now)?;
    let allowed = |at: &usize| ask.among.is_none_or(|among| among.contains(at));
    let (mut fitting, mut reasons) = (Vec::new(), Vec::new());
    for at in (0..view.round.devices.len()).filter(allowed) {
        match room(view, at, promises, ask.headroom) {
            Ok(room) if room.free >= ask.bytes => fitting.push((room.free, at)),
            Ok(room) => reasons.push(format!("{}: {}", named(view, at), short(view, at, room, ours))),
            Err(reason) => reasons.push(format!("{}: {reason}", named(view, at))),
        }
    }
    fitting.sort_unstable();
    for (_, at) in fitting {
        match (ask.owned)(&view.round.devices[at].uuid) {
            Ok(()) => return Ok(at),
            Err(reason) => reasons.push(format!("{}: {reason}", named(view, at))),
        }
    }
    Err(NoRoom::Full { bytes: ask.bytes, reasons })
}

fn trusted(view: &GpuView, now: Instant) -> Result<(), NoRoom> {
    match (&view.round.outcome, view.answered) {
        (Outcome::NoGpu, _) => Err(NoRoom::NoGpu),
        (Outcome::Failed(why), _) => Err(NoRoom::Failed(why.clone())),
        (Outcome::Pending, _) | (_, None) => Err(NoRoom::NotYet),
        (Outcome::Answered, Some(at)) => match now.saturating_duration_since(at) {
            age if age > FRESH_FOR => Err(NoRoom::Stale(age)),
            _ if view.round.devices.is_empty() => Err(NoRoom::NoGpu),
            _ => Ok(()),
        },
    }
}

/// The memory of one GPU, in bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    free: u64,
    total: u64,
    /// Promised to workers here and not used yet.
    promised: u64,
    /// Held by reservations.
    held: u64,
    /// To be left free.
    headroom: u64,
}

fn room(view: &GpuView, at: usize, promises: &[Promise], headroom: u64) -> Result<Room, String> {
    let device = &view.round.devices[at];
    if let Some(error) = &device.error {
        return Err(format!("it cannot be used: {error}"));
    }
    if is_divided(view, device) {
        return Err("it is divided (MIG), and its slices are looked at one by one".to_owned());
    }
    let on_it = promises.iter().filter(|promise| promise.uuid == device.uuid);
    let (held, promised): (Vec<&Promise>, Vec<&Promise>) = on_it.partition(|promise| promise.held);
    let sum = |promises: Vec<&Promise>| promises.into_iter().map(Promise::due).fold(0, u64::saturating_add);
    let (held, promised) = (sum(held), sum(promised));
    let memory = Memory {
        total: device.memory_total_bytes,
        used: device.memory_used_bytes,
        observed: observed(&view.round, at),
        held: held.saturating_add(promised),
    };
    match (memory.total, memory.free(headroom)) {
        (Some(total), Some(free)) => Ok(Room { free, total, promised, held, headroom }),
        _ => Err("its driver does not tell how much memory is free".to_owned()),
    }
}

/// Whether others are slices of it.
pub fn is_divided(view: &GpuView, device: &Device) -> bool {
    view.round.devices.iter().any(|other| other.parent_uuid.as_ref() == Some(&device.uuid))
}

/// The number that people call a GPU by: its place among those that are no slices.
pub fn number(view: &GpuView, at: usize) -> Option<usize> {
    let whole = |device: &Device| device.parent_uuid.is_none();
    let devices = &view.round.devices;
    whole(devices.get(at)?).then(|| devices[..at].iter().filter(|device| whole(device)).count())
}

/// "GPU 0 (NVIDIA H100)".
pub fn named(view: &GpuView, at: usize) -> String {
    let device = &view.round.devices[at];
    let name = if device.name.is_empty() { &device.uuid } else { &device.name };
    match number(view, at) {
        Some(number) => format!("GPU {number} ({name})"),
        None => format!("slice {} ({name})", device.uuid),
    }
}

/// Why there is too little: "3.1 GiB free of 80.0 GiB, 2 foreign processes hold 70.0 GiB".
fn short(view: &GpuView, at: usize, room: Room, ours: &dyn Fn(u32) -> bool) -> String {
    let mut text = format!("{} free of {}", Size(room.free), Size(room.total));
    if room.headroom > 0 {
        text.push_str(&format!(" beside the {} that are to stay free", Size(room.headroom)));
    }
    let foreign = view.round.processes.iter().filter(|process| process.device == at && !ours(process.pid));
    let held: Vec<Option<u64>> = foreign.map(|process| process.vram_bytes).collect();
    if !held.is_empty() {
        let holding = if held.len() == 1 { "foreign process holds" } else { "foreign processes hold" };
        let count = held.len();
        let bytes = held.into_iter().flatten().fold(0, u64::saturating_add);
        text.push_str(&format!(", {count} {holding} {}", Size(bytes)));
    }
    if room.promised > 0 {
        text.push_str(&format!(", workers here were promised {} that they do not use yet", Size(room.promised)));
    }
    if room.held > 0 {
        text.push_str(&format!(", reservations hold {}", Size(room.held)));
    }
    text
}

fn told(reasons: &[String]) -> String {
    let rest = reasons.len().saturating_sub(TOLD_MAX);
    let mut text = reasons.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("; ");
    if rest > 0 {
        text.push_str(&format!("; and {rest} more"));
    }
    if text.is_empty() { "none is left to choose from".to_owned() } else { text }
}

/// Bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = if self.0 >= 1 << 30 { (1_u64 << 30, "GiB") } else { (1 << 20, "MiB") };
        // Rounded down: what is free is never told as more than it is.
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpus::{GpuRound, Process};
    use std::sync::Arc;

    const G: u64 = 1 << 30;

    fn device(uuid: &str, total: u64, used: u64) -> Device {
        Device {
            uuid: uuid.to_owned(),
            name: "NVIDIA H100".to_owned(),
            memory_total_bytes: Some(total),
            memory_used_bytes: Some(used),
            ..Device::default()
        }
    }

    fn view(devices: Vec<Device>, processes: Vec<Process>) -> (GpuView, Instant) {
        let now = Instant::now();
        let round = GpuRound { outcome: Outcome::Answered, devices, processes, ..GpuRound::default() };
        (GpuView { round: Arc::new(round), answered: Some(now) }, now)
    }

    fn process(pid: u32, device: usize, vram_bytes: Option<u64>) -> Process {
        Process { pid, device, vram_bytes, ..Process::default() }
    }

    fn promise(uuid: &str, asked: u64, used: u64) -> Promise {
        Promise { uuid: uuid.to_owned(), asked, used, held: false }
    }

    fn any(bytes: u64) -> Ask<'static> {
        Ask { bytes, headroom: 0, among: None, owned: &|_| Ok(()) }
    }

    const NOBODY: &dyn Fn(u32) -> bool = &|_| false;

    #[test]
    fn the_gpu_with_least_to_spare_is_chosen() {
        let (view, now) =
            view(vec![device("a", 80 * G, 0), device("b", 24 * G, 0), device("c", 16 * G, 10 * G)], vec![]);
        let at = |bytes| pick(&view, now, &[], NOBODY, any(bytes));
        assert_eq!((at(5 * G), at(8 * G), at(30 * G)), (Ok(2), Ok(1), Ok(0)));
        assert!(at(81 * G).is_err());
        assert_eq!(at(80 * G), Ok(0), "all of it is room enough");
    }

    #[test]
    fn what_was_promised_and_is_not_used_yet_is_taken() {
        let (view, now) = view(vec![device("a", 24 * G, 6 * G)], vec![process(1, 0, Some(6 * G))]);
        let at = |promises: &[Promise], bytes| pick(&view, now, promises, NOBODY, any(bytes));
        // 24 - 6 in use - (16 - 6) due.
        let half = [promise("a", 16 * G, 6 * G)];
        assert_eq!(at(&half, 8 * G), Ok(0));
        assert!(at(&half, 8 * G + 1).is_err());
        // One that uses more than it asked for takes what it uses, no more.
        assert_eq!(at(&[promise("a", 2 * G, 6 * G)], 18 * G), Ok(0));
        assert!(at(&[promise("a", 9 * G, 0), promise("a", 9 * G, 0)], G).is_err());
        assert_eq!(at(&[promise("b", 24 * G, 0)], 18 * G), Ok(0), "another GPU's");
        assert!(at(&[promise("a", u64::MAX, 0), promise("a", u64::MAX, 0)], 1).is_err(), "does not wrap around");
    }

    #[test]
    fn the_larger_of_what_device_and_processes_say_is_in_use() {
        let (view, now) = view(vec![device("a", 24 * G, G)], vec![process(1, 0, Some(10 * G)), process(2, 0, None)]);
        assert_eq!(pick(&view, now, &[], NOBODY, any(14 * G)), Ok(0));
        assert!(pick(&view, now, &[], NOBODY, any(15 * G)).is_err());
    }

    #[test]
    fn each_gpu_says_why_it_has_no_room() {
        let mut devices = vec![device("a", 80 * G, 77 * G), device("b", 80 * G, 0), device("c", 80 * G, 0)];
        devices[1].error = Some("GPU is lost".to_owned());
        devices[2].memory_used_bytes = None;
        devices.push(device("d", 40 * G, 0));
        devices.push(Device { parent_uuid: Some("d".to_owned()), ..device("MIG-1", 10 * G, 0) });
        let processes = vec![process(1, 0, Some(30 * G)), process(2, 0, Some(40 * G)), process(3, 0, Some(7 * G))];
        let (view, now) = view(devices, processes);
        let refused = pick(&view, now, &[promise("MIG-1", 4 * G, 0)], &|pid| pid == 3, any(50 * G)).unwrap_err();
        let words = refused.to_string();
        for wanted in [
            "no GPU has 50.0 GiB free: ",
            "GPU 0 (NVIDIA H100): 3.0 GiB free of 80.0 GiB, 2 foreign processes hold 70.0 GiB",
            "GPU 1 (NVIDIA H100): it cannot be used: GPU is lost",
            "GPU 2 (NVIDIA H100): its driver does not tell",
            "GPU 3 (NVIDIA H100): it is divided (MIG)",
            "slice MIG-1 (NVIDIA H100): 6.0 GiB free of 10.0 GiB, workers here were promised 4.0 GiB",
        ] {
            assert!(words.contains(wanted), "{wanted}: {words}");
        }
        assert_eq!(pick(&view, now, &[], NOBODY, any(8 * G)), Ok(4), "a slice is a GPU like any other");
    }

    #[test]
    fn only_those_that_are_named_are_chosen_from() {
        let (view, now) = view(vec![device("a", 8 * G, 0), device("b", 24 * G, 0)], vec![]);
        let among = |among: &[usize], bytes| pick(&view, now, &[], NOBODY, Ask { among: Some(among), ..any(bytes) });
        assert_eq!(among(&[1], G), Ok(1));
        let words = among(&[0], 9 * G).unwrap_err().to_string();
        assert!(words.contains("GPU 0") && !words.contains("GPU 1"), "{words}");
        assert!(among(&[], G).unwrap_err().to_string().contains("none is left"));
    }

    #[test]
    fn g1_what_is_held_is_taken_and_headroom_stays_free() {
        let (view, now) = view(vec![device("a", 24 * G, 0)], vec![]);
        let held = [Promise { held: true, ..promise("a", 10 * G, 0) }, promise("a", 4 * G, 0)];
        let at = |bytes, headroom| pick(&view, now, &held, NOBODY, Ask { headroom, ..any(bytes) });
        assert_eq!((at(10 * G, 0), at(8 * G, 2 * G)), (Ok(0), Ok(0)));
        let words = at(9 * G, 2 * G).unwrap_err().to_string();
        for wanted in ["8.0 GiB free of 24.0 GiB beside the 2.0 GiB", "promised 4.0 GiB", "reservations hold 10.0 GiB"]
        {
            assert!(words.contains(wanted), "{wanted}: {words}");
        }
    }

    #[test]
    fn g1_a_gpu_that_another_hive_grants_is_passed_over_and_says_so() {
        let (view, now) = view(vec![device("a", 8 * G, 0), device("b", 24 * G, 0)], vec![]);
        let owned = |uuid: &str| if uuid == "b" { Ok(()) } else { Err("granted by somebody else".to_owned()) };
        let at = |bytes| pick(&view, now, &[], NOBODY, Ask { owned: &owned, ..any(bytes) });
        assert_eq!(at(G), Ok(1));
        let words = at(25 * G).unwrap_err().to_string();
        assert!(words.contains("8.0 GiB free of 8.0 GiB"), "{words}");
        let one = Ask { among: Some(&[0]), owned: &owned, ..any(G) };
        let words = pick(&view, now, &[], NOBODY, one).unwrap_err().to_string();
        assert!(words.contains("GPU 0 (NVIDIA H100): granted by somebody else"), "{words}");
    }

    #[test]
    fn without_a_fresh_answer_nothing_is_promised() {
        let (fresh, now) = view(vec![device("a", 8 * G, 0)], vec![]);
        let refused = |view: &GpuView, now| pick(view, now, &[], NOBODY, any(G)).unwrap_err();
        assert!(pick(&fresh, now + FRESH_FOR, &[], NOBODY, any(G)).is_ok());
        let late = refused(&fresh, now + FRESH_FOR + Duration::from_millis(600));
        assert!(late.to_string().contains("2.6 s ago"), "{late}");
        assert_eq!(refused(&GpuView::default(), now), NoRoom::NotYet);
        let with = |outcome| {
            let round = GpuRound { outcome, ..GpuRound::default() };
            GpuView { round: Arc::new(round), answered: Some(now) }
        };
        assert_eq!(refused(&with(Outcome::NoGpu), now), NoRoom::NoGpu);
        assert_eq!(refused(&with(Outcome::Answered), now), NoRoom::NoGpu);
        assert_eq!(refused(&with(Outcome::Failed("x".to_owned())), now), NoRoom::Failed("x".to_owned()));
    }
}
