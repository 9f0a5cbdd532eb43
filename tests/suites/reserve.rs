//! Reservations with the real binary: a queen or two, a hive with a made-up GPU driver, `rbee reserve` and what follows.
// Everything in this file is a test or a part of one.
#![allow(clippy::unwrap_used)]

use harness::{FakeGpus, Hive, Output, Queen, Scene, eventually};
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(40);

/// How often two schedulers race.
fn rounds() -> usize {
    if std::env::var_os("LONG").is_some() { 1_000 } else { 20 }
}

/// One machine with a GPU of 24 GiB and one idle worker, and as many queens as asked for.
struct Machine {
    /// The first is the machine's own; of the others only the ports are used.
    scenes: Vec<Scene>,
    queens: Vec<Queen>,
    hive: Hive,
    _gpus: FakeGpus,
}

impl Machine {
    async fn new(queens: usize) -> Self {
        let scenes: Vec<Scene> = (0..queens).map(|_| Scene::new()).collect();
        let scene = &scenes[0];
        let gpus = FakeGpus::new(scene.dir(), "gpus = 1\n");
        let mut running = Vec::new();
        for scene in &scenes {
            running.push(scene.queen(&[]).await);
        }
        let mut command = gpus.hive_command(scene);
        for other in &scenes[1..] {
            command.args(["--queen", &other.url()]);
        }
        let hive = scene.hive_from(command, "box").await;
        let run = ["--group", "llm", "--name", "1", "--model", "m", "--", "sleep", "100000"];
        assert_eq!(scene.run(&run).code, Some(0));
        let machine = Self { scenes, queens: running, hive, _gpus: gpus };
        for at in 0..queens {
            machine
                .until("an idle worker and a GPU", at, |scene| {
                    let idle = scene.rbee(&["idle", "-o", "name"]).stdout.contains("box/llm/1");
                    let gpu = scene.rbee(&["gpus", "-o", "name"]).stdout.contains("GPU-");
                    (idle && gpu).then_some(())
                })
                .await;
            // A hive that is not attached yet cannot be asked.
            machine
                .until("a first reservation", at, |scene| {
                    let tried = reserve(scene, &["--vram", "1G", "--ttl", "1s"])?;
                    release(scene, &tried);
                    Some(())
                })
                .await;
        }
        machine
    }

    fn scene(&self) -> &Scene {
        &self.scenes[0]
    }

    async fn until<T>(&self, what: &str, queen: usize, look: impl Fn(&Scene) -> Option<T>) -> T {
        let scene = &self.scenes[queen];
        eventually(what, SOON, || async { look(scene) }).await.0
    }

    async fn nothing_is_held(&self, queen: usize) {
        let empty = |scene: &Scene| {
            let listed = scene.rbee(&["reservations", "-o", "name"]);
            (listed.code == Some(0) && listed.stdout.is_empty()).then_some(())
        };
        self.until("nothing is held", queen, empty).await;
    }
}

/// The id of a reservation, when it is made.
fn reserve(scene: &Scene, words: &[&str]) -> Option<String> {
    let all: Vec<&str> = ["reserve", "-o", "name"].iter().chain(words).copied().collect();
    let output = scene.rbee(&all);
    (output.code == Some(0)).then(|| output.stdout.trim().to_owned())
}

fn release(scene: &Scene, id: &str) -> Output {
    scene.rbee(&["release", id])
}

fn worker(scene: &Scene, instance: &str) -> Option<Value> {
    let listed: Value = serde_json::from_str(&scene.rbee(&["ps", "-o", "json"]).stdout).ok()?;
    let is_it = |worker: &&Value| worker.pointer("/spec/instance").and_then(Value::as_str) == Some(instance);
    listed.get("workers")?.as_array()?.iter().find(is_it).cloned()
}

#[tokio::test]
async fn memory_is_reserved_and_turns_into_the_worker_that_it_starts() {
    let machine = Machine::new(1).await;
    let scene = machine.scene();
    let answer = scene.json(&["reserve", "--vram", "20G", "--holder", "me", "--key", "k", "-o", "json"]);
    let id = answer.pointer("/reservation/id").and_then(Value::as_str).unwrap().to_owned();
    assert_eq!(answer.pointer("/reservation/holds/0/hold/vramBytes").and_then(Value::as_str), Some("21474836480"));
    let again = scene.json(&["reserve", "--vram", "20G", "--holder", "other", "--key", "k", "-o", "json"]);
    assert_eq!(again.pointer("/reservation/id").and_then(Value::as_str), Some(id.as_str()), "one key, one grant");
    assert_eq!(again.get("existing").and_then(Value::as_bool), Some(true));
    let full = scene.rbee(&["reserve", "--vram", "8G"]);
    assert!(full.code == Some(3) && full.stderr.contains("GiB free"), "{}", full.stderr);
    assert_eq!(scene.rbee(&["reserve", "--vram", "8G", "--key", "k"]).code, Some(1), "another wish with this key");
    assert_eq!(scene.rbee(&["renew", &id, "--ttl", "5m"]).code, Some(0));
    let run = ["--reservation", &id, "--group", "llm", "--name", "2", "--", "sleep", "1000"];
    let started = scene.run(&run);
    assert_eq!(started.code, Some(0), "{}", started.stderr);
    machine
        .until("the hold used by its worker", 0, |scene| {
            let listed = scene.json(&["reservations", "-o", "json"]);
            let used = listed.pointer("/reservations/0/holds/0/hold/usedBy").and_then(Value::as_str)? == "llm/2";
            used.then_some(())
        })
        .await;
    let told = release(scene, &id);
    assert!(told.stdout.contains("end with them"), "{}", told.stdout);
    assert_eq!(scene.rbee(&["stop", "box/llm/2"]).code, Some(0));
    machine.nothing_is_held(0).await;
}

#[tokio::test]
async fn a_held_worker_is_shown_and_not_found_idle() {
    let machine = Machine::new(1).await;
    let scene = machine.scene();
    let id = reserve(scene, &["--model", "m", "--idle"]).unwrap();
    let held = |scene: &Scene| {
        let by = worker(scene, "1")?.get("reservation")?.as_str()?.to_owned();
        (by == id).then_some(())
    };
    machine.until("the worker held", 0, held).await;
    assert!(scene.rbee(&["ps", "-o", "wide"]).stdout.contains(&id));
    let second = scene.rbee(&["reserve", "--worker", "llm/1"]);
    assert!(second.code == Some(3) && second.stderr.contains("is held by"), "{}", second.stderr);
    assert_eq!(release(scene, &id).code, Some(0));
    assert!(release(scene, &id).stdout.contains("was held no more"), "twice is harmless");
    assert!(reserve(scene, &["--worker", "llm/1"]).is_some(), "free before its record says so");
}

#[tokio::test]
async fn g4_an_expired_reservation_starts_nothing_and_its_room_is_back_within_a_second() {
    let machine = Machine::new(1).await;
    let scene = machine.scene();
    let begun = Instant::now();
    let ttl = Duration::from_secs(2);
    let id = reserve(scene, &["--vram", "20G", "--ttl", "2s"]).unwrap();
    machine.until("room again", 0, |scene| reserve(scene, &["--vram", "20G"])).await;
    let back = begun.elapsed();
    assert!(back >= ttl && back < ttl + Duration::from_secs(3), "{back:?}");
    let refused = scene.run(&["--reservation", &id, "--", "sleep", "1000"]);
    assert!(refused.code == Some(1) && refused.stderr.contains(&id), "{}", refused.stderr);
    assert_eq!(scene.rbee(&["renew", &id]).code, Some(3));
}

#[tokio::test]
async fn g8_two_schedulers_race_over_one_worker_through_two_queens() {
    let machine = Machine::new(2).await;
    for round in 0..rounds() {
        let run = |at: usize| {
            let mut command = machine.scenes[at].command();
            command.args(["reserve", "--worker", "box/llm/1", "-o", "name"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        };
        let outputs = [run(0), run(1)].map(|child| child.wait_with_output().unwrap());
        let won: Vec<usize> = (0..2).filter(|at| outputs[*at].status.success()).collect();
        assert_eq!(won.len(), 1, "round {round}: {outputs:?}");
        let id = String::from_utf8(outputs[won[0]].stdout.clone()).unwrap().trim().to_owned();
        // The queen that did not make it learns of it from the hive.
        let other = 1 - won[0];
        let known = |scene: &Scene| scene.rbee(&["reservations", "-o", "name"]).stdout.contains(&id).then_some(());
        machine.until("the reservation at the other queen", other, known).await;
        // Given back there, often before the one that made it has heard of it from the hive.
        assert_eq!(release(&machine.scenes[other], &id).code, Some(0));
        machine.nothing_is_held(0).await;
        machine.nothing_is_held(1).await;
    }
}

#[tokio::test]
async fn g6_a_queen_killed_between_the_steps_leaves_nothing_after_5_s() {
    let mut machine = Machine::new(2).await;
    // Again and again in the middle of reservations that nobody is answered.
    let mut calls = Vec::new();
    for _ in 0..8 {
        let mut command = machine.scenes[0].command();
        command.args(["reserve", "--vram", "1G", "--count", "3", "--ttl", "1h"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        calls.push(command.spawn().unwrap());
    }
    machine.queens[0].kill();
    let answered = calls.into_iter().filter_map(|call| call.wait_with_output().ok());
    let answered = answered.filter(|output| output.status.success()).count();
    let settled = |scene: &Scene| {
        let listed = scene.json(&["reservations", "-o", "json"]);
        let count = listed.get("reservations").and_then(Value::as_array).map_or(0, Vec::len);
        let hive = scene.json(&["describe", "box", "-o", "json"]);
        let tentative = hive.to_string().contains("\"tentative\":true");
        // One whose answer was on its way when the queen died is whole, and known by nobody but the hive.
        (!tentative && count >= answered).then_some(count)
    };
    let begun = Instant::now();
    let left = machine.until("no tentative hold", 1, settled).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let listed = machine.scenes[1].json(&["reservations", "-o", "json"]);
    let holds = |one: &Value| one.get("holds").and_then(Value::as_array).map_or(0, Vec::len);
    let all = listed.get("reservations").and_then(Value::as_array).cloned().unwrap_or_default();
    assert!(all.iter().all(|one| holds(one) == 3), "{left} left, all whole: {listed}");
}

#[tokio::test]
async fn g2_a_key_is_answered_once_also_after_the_queen_was_killed() {
    let mut machine = Machine::new(2).await;
    let words = ["--vram", "4G", "--key", "job-7", "--ttl", "5m"];
    let id = reserve(machine.scene(), &words).unwrap();
    let elsewhere = machine.until("the answer of the other queen", 1, |scene| reserve(scene, &words)).await;
    assert_eq!(elsewhere, id);
    machine.queens[0].kill();
    machine.queens[0] = machine.scenes[0].queen(&[]).await;
    let again = machine.until("the answer after her restart", 0, |scene| reserve(scene, &words)).await;
    assert_eq!(again, id);
    assert_eq!(machine.hive.name(), "box");
    assert_eq!(release(machine.scene(), &id).code, Some(0));
    machine.nothing_is_held(1).await;
}
