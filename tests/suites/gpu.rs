//! GPUs end to end: what drivers say, through the helper, the hive and the queen, to what `rbee` prints.
// Everything in this file is a test or a part of one.
#![allow(clippy::unwrap_used)]

use harness::{FakeGpus, Hive, Queen, Scene, eventually};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);
const GIB: u64 = 1 << 30;

/// A queen, a hive on a machine with fake GPUs, and one worker.
struct Machine {
    gpus: FakeGpus,
    scene: Scene,
    pid: u64,
    _hive: Hive,
    _queen: Queen,
}

impl Machine {
    async fn new(prepare: impl FnOnce(FakeGpus) -> FakeGpus) -> Self {
        let scene = Scene::new();
        let gpus = prepare(FakeGpus::new(scene.dir(), "gpus = 1\n"));
        let queen = scene.queen(&[]).await;
        let hive = scene.hive_from(gpus.hive_command(&scene), "box").await;
        let run = ["-o", "json", "--group", "llm", "--name", "1", "--model", "m", "--", "sleep", "1000"];
        let started: Value = serde_json::from_str(&scene.run(&run).stdout).unwrap();
        let pid = started.pointer("/worker/spec/pid").and_then(Value::as_u64).unwrap();
        Self { gpus, scene, pid, _hive: hive, _queen: queen }
    }

    fn hive(&self) -> Option<Value> {
        let output = self.scene.rbee(&["gpus", "-o", "json"]);
        serde_json::from_str::<Value>(&output.stdout).ok()?.pointer("/hives/0").cloned()
    }

    fn gpus(&self) -> Vec<Value> {
        self.hive().and_then(|hive| hive.get("gpus")?.as_array().cloned()).unwrap_or_default()
    }

    fn stats(&self) -> Option<Value> {
        self.scene.json(&["ps", "-o", "json"]).pointer("/workers/0/stats").cloned()
    }

    /// Events about GPUs so far: kind, GPU, message.
    fn events(&self) -> Vec<(String, String, String)> {
        let output = self.scene.rbee(&["events", "-o", "jsonl"]);
        let event = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let line = line.get("event").unwrap_or(&line).clone();
            let kind = line.get("kind")?.as_str()?.strip_prefix("LIFE_EVENT_KIND_GPU_")?.to_owned();
            let text = |key| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            Some((kind, text("gpuUuid"), text("message")))
        };
        output.stdout.lines().filter_map(event).collect()
    }

    fn kinds(&self) -> Vec<String> {
        self.events().into_iter().map(|(kind, _, _)| kind).collect()
    }

    /// Whether a placement of so much finds this machine's worker.
    fn has_room(&self, size: &str) -> bool {
        self.scene.rbee(&["find", "--model", "m", "--vram", size]).code == Some(0)
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        eventually(what, SOON, || async { look(self) }).await.0
    }
}

/// 64-bit numbers are strings in protobuf's JSON.
fn number(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A process that belongs to no worker; ended with the test.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[tokio::test]
async fn slices_of_a_gpu_are_gpus_of_their_own() {
    let machine = Machine::new(|gpus| gpus).await;
    let pid = machine.pid;
    machine.gpus.say(&format!(
        "mig = 0\nslice = 0 0 {}\nslice = 0 1 {}\nslice_process = 0 0 {pid} {}\n",
        10 * GIB,
        20 * GIB,
        3 * GIB
    ));
    let gpus = machine.until("one GPU and two slices", |m| Some(m.gpus()).filter(|gpus| gpus.len() == 3)).await;
    assert_eq!((number(&gpus[0], "memoryTotalBytes"), number(&gpus[0], "memoryUsedBytes")), (Some(24 * GIB), None));
    assert!(gpus[1..].iter().all(|slice| slice["parentUuid"] == gpus[0]["uuid"]), "{gpus:?}");
    assert_eq!(number(&gpus[1], "memoryUsedBytes"), Some(3 * GIB));
    assert!(text(&gpus[1], "uuid").starts_with("MIG-"));
    let stats = machine
        .until("the worker on its slice", |m| m.stats().filter(|stats| number(stats, "vramBytes") == Some(3 * GIB)))
        .await;
    assert_eq!(text(&stats, "gpuSampleState"), "GPU_SAMPLE_STATE_UNSUPPORTED");
    assert_eq!((stats.get("gpuUtilPct"), stats.pointer("/gpus/0/utilPct")), (None, None), "unknown, not zero");
    assert_eq!(stats.pointer("/gpus/0/uuid"), gpus[1].get("uuid"));
    assert_eq!(number(&stats, "vramTotalBytes"), Some(10 * GIB));
    machine.until("room on its slice", |m| m.has_room("6G").then_some(())).await;
    assert!(!machine.has_room("8G"), "neither the other slice nor the whole GPU is its place");
    let gpu_with_room = machine.scene.rbee(&["find", "--vram", "8G", "-o", "name"]).stdout;
    assert_eq!(gpu_with_room.trim(), format!("box/{}", text(&gpus[2], "uuid")), "the whole GPU is no place of its own");
    let why = machine.scene.rbee(&["find", "--vram", "8G", "--explain"]).stdout;
    assert!(why.contains("divided (MIG)") && why.contains("3.0 GiB in use"), "{why}");

    let run = |name: &str, size: &str| {
        let words = ["-o", "json", "--group", "llm", "--name", name, "--vram", size, "--", "sleep", "1000"];
        machine.scene.run(&words)
    };
    let placed: Value = serde_json::from_str(&run("2", "20G").stdout).unwrap();
    assert_eq!(placed.pointer("/worker/spec/gpuUuids/0"), gpus[2].get("uuid"), "{placed}");
    let refused = run("3", "21G");
    assert!(refused.code == Some(1) && refused.stderr.contains("MIG"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_gpu_tells_how_it_is_and_strangers_on_it_are_named() {
    let machine = Machine::new(|gpus| gpus).await;
    let stranger = Stranger::new();
    let (pid, other) = (machine.pid, stranger.0.id());
    machine.gpus.say(&format!(
        "temperature = 0 71\npower = 0 310250\npower_limit = 0 350000\necc = 0 2\nutil = 0 55\n\
         process = 0 {pid} {GIB} 20\nclient = 0 {pid} {}\nprocess = 0 {other} {} 35\n",
        2 * GIB,
        5 * GIB
    ));
    let gpu = machine
        .until("a stranger on the GPU", |m| m.gpus().into_iter().find(|gpu| gpu.pointer("/foreign/0").is_some()))
        .await;
    assert_eq!((gpu["temperatureCelsius"].as_f64(), gpu["powerWatts"].as_f64()), (Some(71.0), Some(310.25)));
    assert_eq!((gpu["powerLimitWatts"].as_f64(), number(&gpu, "eccUncorrected")), (Some(350.0), Some(2)));
    assert_eq!(text(&gpu, "vendor"), "GPU_VENDOR_NVIDIA");
    let foreign = gpu["foreign"].as_array().unwrap();
    assert_eq!((foreign.len(), number(&foreign[0], "pid")), (1, Some(u64::from(other))));
    assert_eq!((text(&foreign[0], "name"), number(&foreign[0], "vramBytes")), ("sleep", Some(5 * GIB)));
    assert_eq!(text(&machine.hive().unwrap(), "gpuDriverVersion"), "550.54.15");
    let own = machine.until("the worker's part", |m| m.stats().filter(|stats| stats.get("vramBytes").is_some())).await;
    assert_eq!(number(&own, "vramBytes"), Some(2 * GIB), "its list as a client of MPS says more, and is not added");
    assert_eq!(own["gpuUtilPct"].as_f64(), Some(20.0));
}

#[tokio::test]
async fn numbers_that_cannot_be_true_are_absent() {
    let machine = Machine::new(|gpus| gpus).await;
    let pid = machine.pid;
    machine.gpus.say(&format!("util = 0 garbage\nused = 0 unavailable\nprocess = 0 {pid} unavailable 101\n"));
    let stats = machine
        .until("the GPU without numbers", |m| m.stats().filter(|stats| stats.pointer("/gpus/0").is_some()))
        .await;
    assert_eq!((stats.get("vramBytes"), stats.get("gpuUtilPct")), (None, None), "{stats}");
    let silent = |gpu: &Value| number(gpu, "memoryUsedBytes").is_none() && gpu.get("utilPct").is_none();
    machine.until("nothing about the GPU", |m| m.gpus().into_iter().find(silent)).await;
    assert_eq!(machine.scene.rbee(&["idle"]).code, Some(3), "unknown is never idle");
}

#[tokio::test]
async fn an_old_driver_tells_what_it_can_and_the_rest_is_said_to_be_missing() {
    let newer = ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3"];
    let machine = Machine::new(|gpus| gpus.without(&newer)).await;
    machine.gpus.say(&format!("driver = 470.57\nprocess = 0 {} {GIB} 40\n", machine.pid));
    let stats = machine
        .until("memory of the worker", |m| m.stats().filter(|stats| number(stats, "vramBytes") == Some(GIB)))
        .await;
    assert_eq!(stats["gpuUtilPct"].as_f64(), Some(40.0));
    let hive = machine.hive().unwrap();
    assert_eq!(hive.pointer("/gpus/0/memoryTotalBytes"), None);
    assert!(hive["healthReasons"].to_string().contains("older than 510"), "{hive}");
    assert!(!machine.has_room("1G"), "memory that is not known is no room");
}

#[tokio::test]
async fn errors_and_lost_gpus_are_events_once_each() {
    let machine = Machine::new(|gpus| gpus).await;
    let working = format!("gpus = 2\nprocess = 1 {} {GIB} 0\nxid = 1 79 first\n", machine.pid);
    machine.gpus.say(&working);
    let events = machine.until("the XID", |m| Some(m.events()).filter(|events| !events.is_empty())).await;
    let uuid = "GPU-00000000-0000-0000-0000-000000000001";
    assert_eq!((events[0].0.as_str(), events[0].1.as_str()), ("ERROR", uuid));
    assert!(events[0].2.starts_with("XID 79: "), "{events:?}");

    machine.gpus.say(&format!("{working}lost = 1\n"));
    machine.until("the loss", |m| (m.kinds() == ["ERROR", "LOST"]).then_some(())).await;
    let gpu = machine.until("its error", |m| m.gpus().into_iter().find(|gpu| gpu.get("error").is_some())).await;
    assert_eq!((text(&gpu, "uuid"), number(&gpu, "memoryUsedBytes")), (uuid, None));
    let stats = machine.stats().unwrap();
    assert_eq!((stats.get("gpuUtilPct"), stats.get("vramBytes")), (None, None), "not idle because it is lost");

    // Then it is not even listed: the same episode.
    machine.gpus.say("gpus = 1\n");
    let unlisted = |m: &Machine| m.gpus().into_iter().any(|gpu| text(&gpu, "error").contains("not listed"));
    machine.until("still shown as missing", |m| unlisted(m).then_some(())).await;
    let stats = machine.stats().unwrap();
    assert_eq!((stats.get("gpuUtilPct"), machine.scene.rbee(&["idle"]).code), (None, Some(3)), "{stats}");
    machine.gpus.say(&working);
    machine.until("its return", |m| (m.kinds() == ["ERROR", "LOST", "RECOVERED"]).then_some(())).await;
}

#[tokio::test]
async fn a_hung_driver_is_out_of_placement_after_ten_seconds_and_told_once() {
    let machine = Machine::new(|gpus| gpus).await;
    let working = format!("process = 0 {} {GIB} 0\n", machine.pid);
    machine.gpus.say(&working);
    machine.until("room", |m| m.has_room("8G").then_some(())).await;
    machine.gpus.say("hang = all\n");
    let hung = std::time::Instant::now();
    let state = |m: &Machine| m.hive().map(|hive| text(&hive, "gpuSampleState").to_owned());
    let timeout = |m: &Machine| state(m).filter(|state| state == "GPU_SAMPLE_STATE_TIMEOUT");
    machine.until("no answer for 10 s", timeout).await;
    assert!(hung.elapsed() > Duration::from_secs(8), "{:?}", hung.elapsed());
    assert!(!machine.has_room("1G"), "out of placement");
    assert_eq!(machine.gpus().len(), 1, "what the machine has stays known");
    machine.until("the stall", |m| (m.kinds() == ["STALLED"]).then_some(())).await;
    machine.gpus.say(&working);
    machine.until("the answer", |m| (m.kinds() == ["STALLED", "RECOVERED"]).then_some(())).await;
    machine.until("room again", |m| m.has_room("8G").then_some(())).await;
}

#[tokio::test]
async fn nvidia_and_amd_stand_side_by_side_and_either_alone() {
    let pdev = "0000:03:00.0";
    let machine = Machine::new(|gpus| {
        gpus.add_amd(0, pdev);
        gpus
    })
    .await;
    machine.gpus.say("gpus = 1\nutil = 0 5\n");
    let gpus = machine.until("both", |m| Some(m.gpus()).filter(|gpus| gpus.len() == 2)).await;
    assert_eq!((text(&gpus[0], "vendor"), text(&gpus[1], "vendor")), ("GPU_VENDOR_NVIDIA", "GPU_VENDOR_AMD"));
    let amd = &gpus[1];
    assert_eq!((text(amd, "uuid"), text(amd, "name")), ("PCI-0000:03:00.0", "AMD Instinct MI210"));
    assert_eq!((number(amd, "memoryTotalBytes"), number(amd, "memoryUsedBytes")), (Some(64 * GIB), Some(GIB)));
    assert_eq!((amd["utilPct"].as_f64(), amd["temperatureCelsius"].as_f64()), (Some(12.0), Some(51.0)));
    machine.until("room on the AMD GPU", |m| m.has_room("60G").then_some(())).await;

    let alone = Machine::new(|gpus| {
        gpus.add_amd(0, pdev);
        gpus.without_nvidia()
    })
    .await;
    let gpus = alone.until("the AMD GPU", |m| Some(m.gpus()).filter(|gpus| gpus.len() == 1)).await;
    assert_eq!(text(&gpus[0], "vendor"), "GPU_VENDOR_AMD");
    assert_eq!(text(&alone.hive().unwrap(), "gpuSampleState"), "GPU_SAMPLE_STATE_OK");
}
