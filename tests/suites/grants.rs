//! Grants end to end: held over the unix socket, kept over kills of the hive, turned into workers, told to the queen.
// Everything in this file is a test or a part of one.
#![allow(clippy::unwrap_used)]

use harness::{FakeGpus, Hive, Queen, Scene, eventually, grants};
use proto::hold_wish::What;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Code;

const SOON: Duration = Duration::from_secs(40);
const GIB: u64 = 1 << 30;
/// The fake driver's first GPU, which has 24 GiB.
const GPU: &str = "GPU-00000000-0000-0000-0000-000000000000";

/// A queen and a hive on a machine with one GPU.
struct Machine {
    gpus: FakeGpus,
    scene: Scene,
    hive: Hive,
    _queen: Queen,
}

impl Machine {
    async fn new() -> Self {
        let scene = Scene::new();
        let gpus = FakeGpus::new(scene.dir(), "gpus = 1\n");
        let queen = scene.queen(&[]).await;
        let hive = scene.hive_from(gpus.hive_command(&scene), "box").await;
        let machine = Self { gpus, scene, hive, _queen: queen };
        machine.gpu("its driver answers", |gpu| number(gpu, "memoryTotalBytes") == 24 * GIB).await;
        machine
    }

    /// SIGKILL, and another hive at once.
    async fn kill_the_hive(&mut self) {
        self.hive.kill();
        self.hive = self.scene.hive_from(self.gpus.hive_command(&self.scene), "box").await;
    }

    async fn hold(&self, reservation: &str, bytes: u64, ttl: Duration) -> Result<proto::Hold, tonic::Status> {
        let what = What::Vram(proto::VramWish { bytes, ..Default::default() });
        let request = proto::HoldRequest {
            reservation: reservation.to_owned(),
            wishes: vec![proto::HoldWish { what: Some(what) }],
            ttl: Some(common::duration(ttl)),
            ..Default::default()
        };
        let answer = grants(&self.scene.socket("box")).await.hold(request).await?;
        Ok(answer.into_inner().holds[0].clone())
    }

    async fn holds(&self) -> Vec<proto::Hold> {
        grants(&self.scene.socket("box")).await.list_holds(proto::ListHoldsRequest {}).await.unwrap().into_inner().holds
    }

    fn run(&self, name: &str, flags: &[&str]) -> harness::Output {
        let words = [&["-o", "json", "--group", "llm", "--name", name], flags, &["--", "sleep", "1000"]].concat();
        self.scene.run(&words)
    }

    /// Waits until the queen tells this of the GPU, and of the hive.
    async fn gpu(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let look = || async {
            let output = self.scene.rbee(&["gpus", "-o", "json"]);
            let hive = serde_json::from_str::<Value>(&output.stdout).ok()?.pointer("/hives/0").cloned()?;
            is(hive.pointer("/gpus/0")?).then_some(hive)
        };
        eventually(what, SOON, look).await.0
    }
}

/// 64-bit numbers are strings in protobuf's JSON; zero is left out.
fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(|value| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn g5_a_hold_outlives_a_killed_hive_and_becomes_a_worker() {
    let mut machine = Machine::new().await;
    let held = machine.hold("r-1", 20 * GIB, Duration::from_secs(600)).await.unwrap();
    assert_eq!((held.gpu_uuid.as_str(), held.vram_bytes), (GPU, 20 * GIB));
    let told = machine.gpu("the queen is told", |gpu| number(gpu, "heldBytes") == 20 * GIB).await;
    assert_eq!(told.pointer("/holds/0/reservation").and_then(Value::as_str), Some("r-1"), "{told}");
    machine.kill_the_hive().await;
    assert_eq!(machine.holds().await, std::slice::from_ref(&held));
    let refused = machine.run("1", &["--vram", "5G"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("reservations hold 20.0 GiB"), "{}", refused.stderr);
    let token = held.fencing_token.to_string();
    let placed: Value =
        serde_json::from_str(&machine.run("2", &["--reservation", "r-1", "--fencing-token", &token]).stdout).unwrap();
    assert_eq!(placed.pointer("/worker/spec/gpuUuids/0").and_then(Value::as_str), Some(GPU));
    machine.kill_the_hive().await;
    let used = machine.holds().await;
    assert_eq!((used[0].used_by.as_str(), used[0].unused_vram_bytes), ("llm/2", 20 * GIB));
    let pid = placed.pointer("/worker/spec/pid").and_then(Value::as_u64).unwrap();
    machine.gpus.say(&format!("gpus = 1\nprocess = 0 {pid} {} 0\n", 18 * GIB));
    machine.gpu("it uses what it was granted", |gpu| number(gpu, "heldBytes") == 2 * GIB).await;
    assert_eq!(machine.holds().await[0].unused_vram_bytes, 2 * GIB);
    assert_eq!(machine.hold("r-2", 5 * GIB, SOON).await.unwrap_err().code(), Code::ResourceExhausted);
    machine.gpus.say("gpus = 1\n");
    assert_eq!(machine.scene.rbee(&["stop", "llm/2"]).code, Some(0));
    machine.gpu("it is over", |gpu| number(gpu, "heldBytes") == 0).await;
    machine.hold("r-2", 24 * GIB, SOON).await.unwrap();
}

#[tokio::test]
async fn g4_an_expired_hold_is_room_within_a_second_and_starts_nothing() {
    let machine = Machine::new().await;
    let ttl = Duration::from_secs(2);
    machine.hold("r-1", 20 * GIB, ttl).await.unwrap();
    let held = Instant::now();
    assert_eq!(machine.hold("r-2", 20 * GIB, ttl).await.unwrap_err().code(), Code::ResourceExhausted);
    let again = || async { machine.hold("r-2", 20 * GIB, Duration::from_secs(600)).await.ok() };
    let new = eventually("its room is free", SOON, again).await.0;
    let late = held.elapsed().saturating_sub(ttl);
    assert!(late < Duration::from_secs(1), "{late:?} after its end");
    let refused = machine.run("1", &["--reservation", "r-1"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("r-1 is not known on this hive, or has expired"));
    assert!(machine.scene.rbee(&["ps", "-o", "name"]).stdout.is_empty());
    let older = (new.fencing_token - 1).to_string();
    let refused = machine.run("1", &["--reservation", "r-2", "--fencing-token", &older]);
    assert!(refused.stderr.contains("whose newest here is"), "{}", refused.stderr);
}

/// A tentative hold, one of two of its reservation.
async fn half(socket: &Path, reservation: &str, what: What) {
    let request = proto::HoldRequest {
        reservation: reservation.to_owned(),
        wishes: vec![proto::HoldWish { what: Some(what) }],
        ttl: Some(common::duration(Duration::from_secs(5))),
        reservation_size: 2,
        ..Default::default()
    };
    grants(socket).await.hold(request).await.unwrap();
}

#[tokio::test]
async fn g6_what_a_queen_confirmed_on_one_of_two_hives_ends_when_there_is_a_queen_again() {
    let Machine { gpus: _gpus, scene, hive: _hive, _queen: mut queen } = Machine::new().await;
    let other = Scene::new();
    let command = || other.hive_command_to(&scene.url(), "den", &[]);
    let mut den = other.hive_from(command(), "den").await;
    let mut run = other.command();
    run.env("RBEE_SOCKET", other.socket("den")).args(["run", "--group", "llm", "--name", "1", "--", "sleep", "1000"]);
    assert!(run.status().unwrap().success());
    let sockets = [scene.socket("box"), other.socket("den")];
    queen.kill();
    // What a queen does, up to the confirmation that she did not send.
    half(&sockets[0], "r-1", What::Vram(proto::VramWish { bytes: GIB, ..Default::default() })).await;
    half(&sockets[1], "r-1", What::Worker("llm/1".to_owned())).await;
    let ttl = Some(common::duration(Duration::from_secs(3600)));
    let confirm = proto::RenewHoldRequest { reservation: "r-1".to_owned(), ttl, confirm: true };
    grants(&sockets[0]).await.renew_hold(confirm).await.unwrap();
    let held = |at: usize| {
        let socket = sockets[at].clone();
        async move { grants(&socket).await.list_holds(proto::ListHoldsRequest {}).await.unwrap().into_inner().holds }
    };
    let gone = |at| async move { held(at).await.is_empty().then_some(()) };
    eventually("the end of the tentative one", SOON, || gone(1)).await;
    // Also when it was told by nobody before.
    den.kill();
    den = other.hive_from(command(), "den").await;
    assert_eq!(held(0).await.len(), 1);
    queen = scene.queen(&[]).await;
    eventually("the end of the confirmed one", SOON, || gone(0)).await;
    assert_eq!(scene.rbee(&["reservations", "-o", "name"]).stdout, "");
    let told = scene.json(&["describe", "den", "-o", "json"]);
    assert!(told.to_string().contains(r#""abortedReservations":["r-1"]"#), "{told}");
    drop((queen, den));
}

#[tokio::test]
async fn g3_tokens_rise_over_every_kill_of_the_hive() {
    let mut machine = Machine::new().await;
    let mut last = 0;
    for at in 0..3 {
        let held = machine.hold(&format!("r-{at}"), GIB, Duration::from_secs(600)).await.unwrap();
        assert!(held.fencing_token > last);
        last = held.fencing_token;
        machine.kill_the_hive().await;
        // The driver of a new hive has to answer first.
        machine.gpu("its driver answers", |gpu| number(gpu, "heldBytes") == (at + 1) * GIB).await;
    }
    assert_eq!(machine.holds().await.len(), 3);
}

#[tokio::test]
async fn g1_of_two_hives_on_a_machine_one_grants_its_gpu() {
    let machine = Machine::new().await;
    machine.hold("r-1", GIB, Duration::from_secs(600)).await.unwrap();
    let other = Scene::new();
    let mut command = machine.gpus.hive_command(&other);
    command.env("RBEE_GPU_LOCK_DIR", machine.scene.dir());
    let _second = other.hive_from(command, "box").await;
    let holder = format!("another hive of this machine grants it, process {} of user", machine.hive.process.pid());
    let refused = || async {
        let refused = other.run(&["--vram", "1G", "--", "sleep", "1000"]);
        assert_eq!(refused.code, Some(1));
        // Until its driver has answered it says that.
        refused.stderr.contains(&holder).then_some(())
    };
    eventually("the second one says who grants it", SOON, refused).await;
}
