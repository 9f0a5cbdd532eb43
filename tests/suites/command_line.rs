//! Bad input and faults as a person meets them on the command line: each with a clear sentence, the right exit code and
//! nothing lost.

use harness::{Output, Scene, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn refused(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code, Some(code), "stdout {:?} stderr {:?}", output.stdout, output.stderr);
    for part in parts {
        assert!(output.stderr.contains(part), "{part:?} is not in {:?}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

#[tokio::test]
async fn bad_starts_are_refused_with_a_sentence_and_leave_nothing() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let run = |args: &[&str]| scene.run(args);
    refused(&run(&["--cpu", "fast", "--", "sleep", "9"]), 1, &["cpu", "fast", "200%"]);
    refused(&run(&["--memory", "4X", "--", "sleep", "9"]), 1, &["memory", "4X", "4G"]);
    refused(&run(&["--memory", "-1G", "--", "sleep", "9"]), 2, &[]);
    refused(&run(&["--name", "../x", "--", "sleep", "9"]), 1, &["../x", "a-z"]);
    refused(&run(&["--name", "", "--", "sleep", "9"]), 2, &["--name"]);
    refused(&run(&["--group", "", "--", "sleep", "9"]), 2, &["--group"]);
    refused(&run(&["--", "/no/such/binary"]), 1, &["/no/such/binary"]);
    refused(&run(&["--group", &"g".repeat(65), "--", "sleep", "9"]), 1, &["64"]);
    refused(&run(&["--name", "memory.max", "--", "sleep", "9"]), 1, &["memory"]);
    refused(&run(&["--", "no-such-program-anywhere"]), 1, &["no-such-program-anywhere"]);
    let text = scene.dir().join("not-a-program");
    std::fs::write(&text, "just text").expect("write a file");
    refused(&run(&["--", text.to_str().expect("UTF-8")]), 1, &["not-a-program", "ermission"]);
    refused(&run(&["--", "sh", "-c", "echo farewell; exit 3"]), 1, &["3", "farewell"]);
    refused(&run(&[]), 2, &[]);
    let listed = scene.json(&["ps", "-o", "json"]);
    assert_eq!(listed.get("workers"), None, "nothing was left behind: {listed}");
}

#[tokio::test]
async fn l8_a_second_start_of_a_live_name_touches_nothing() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    assert_eq!(scene.run(&["--group", "llm", "--name", "1", "--", "sleep", "1000"]).code, Some(0));
    refused(&scene.run(&["--group", "llm", "--name", "1", "--", "sleep", "1000"]), 1, &["llm/1"]);
    let one = || async {
        scene.json(&["ps", "-o", "json"]).get("workers").and_then(|w| w.as_array().map(Vec::len)).filter(|n| *n == 1)
    };
    eventually("one worker, not two", SOON, one).await;
}

#[test]
fn without_a_queen_every_verb_says_so() {
    let scene = Scene::new();
    for verb in [
        &["ps"][..],
        &["hives"],
        &["idle"],
        &["find", "--model", "m"],
        &["find", "--vram", "1G"],
        &["forget", "box"],
        &["models"],
        &["describe", "x"],
    ] {
        refused(&scene.rbee(verb), 4, &[&scene.url()]);
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let scene = Scene::new();
    refused(&scene.rbee(&["no-such-verb"]), 2, &["no-such-verb"]);
    refused(&scene.rbee(&["find"]), 2, &[]);
    refused(&scene.rbee(&["queen", "--listen", "nonsense"]), 2, &["nonsense"]);
    let parts = ["stale-after 3s (the default) is longer than lost-after 2s"];
    refused(&scene.rbee(&["queen", "--listen", "127.0.0.1:0", "--lost-after", "2s"]), 2, &parts);
}

#[test]
fn an_address_that_others_can_reach_is_refused_without_insecure() {
    let scene = Scene::new();
    refused(&scene.rbee(&["queen", "--listen", "0.0.0.0:0"]), 1, &["0.0.0.0", "--insecure"]);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let address = format!("127.0.0.1:{}", scene.port());
    refused(&scene.rbee(&["queen", "--listen", &address]), 1, &[&address]);
}

#[tokio::test]
async fn a_slice_has_one_hive() {
    let scene = Scene::new();
    let hive = scene.hive(&[]).await;
    let mut twin = scene.hive_command("box", &[]);
    let output = twin.output().expect("run the twin");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&hive.process.pid().to_string()), "the holder's pid is named: {text}");
}

#[tokio::test]
async fn finds_that_find_nothing_exit_with_3() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    refused(&scene.rbee(&["find", "--model", "llama"]), 3, &["llama"]);
    refused(&scene.rbee(&["find", "--vram", "8G"]), 3, &["8.0G", "--explain"]);
    refused(&scene.rbee(&["idle", "--explain"]), 3, &["idle"]);
    refused(&scene.rbee(&["describe", "nobody"]), 3, &["nobody"]);
    refused(&scene.rbee(&["forget", "nobody"]), 3, &["nobody"]);
}

#[tokio::test]
async fn a_model_is_found_by_its_exact_name() {
    let scene = Scene::new();
    let _queen = scene.queen(&[]).await;
    let _hive = scene.hive(&[]).await;
    let burn = "while True: pass";
    let started = scene.run(&[
        "--group",
        "llm",
        "--name",
        "8080",
        "--cpu",
        "50%",
        "--memory",
        "256M",
        "--",
        "python3",
        "-c",
        burn,
        "--model",
        "llama-3.2-1b",
    ]);
    assert_eq!(started.code, Some(0), "{}", started.stderr);
    let measured = || async {
        let listed = scene.json(&["ps", "-o", "json"]);
        let worker = listed.pointer("/workers/0")?.clone();
        worker.pointer("/stats/cpuPct")?.as_f64().filter(|cpu| *cpu > 5.0)?;
        Some(worker)
    };
    let (worker, _) = eventually("ps shows its CPU use", SOON, measured).await;
    assert_eq!(worker.pointer("/spec/model").and_then(|m| m.as_str()), Some("llama-3.2-1b"));
    assert_eq!(worker.pointer("/spec/limits/cpu").and_then(|m| m.as_str()), Some("50%"));
    let placement = worker.pointer("/spec/placement").expect("a placement").clone();
    let applied = placement.pointer("/applied/cpu.max").is_some();
    let refused_limits = placement.get("notApplied").and_then(|n| n.as_array()).map_or(0, Vec::len);
    assert!(applied || refused_limits >= 2, "a limit is applied or said not to be: {placement}");
    assert!(scene.rbee(&["find", "--model", "llama-3.2-1b"]).stdout.contains("llm/8080"));
    refused(&scene.rbee(&["find", "--model", "llama"]), 3, &[]);
    let why = scene.rbee(&["find", "--model", "llama", "--explain"]);
    assert!(
        why.code == Some(3) && why.stdout.contains(r#"its model is "llama-3.2-1b", not "llama""#),
        "{}",
        why.stdout
    );
    let why = scene.rbee(&["find", "--model", "llama-3.2-1b", "--vram", "1G", "--explain"]);
    assert!(why.code == Some(3) && why.stdout.contains("GPU"), "{}", why.stdout);
    refused(&scene.rbee(&["forget", "box"]), 1, &["was heard from"]);
    assert!(scene.rbee(&["find", "--model", "LLAMA*", "--match", "ignore-case"]).code == Some(3));
    assert!(scene.rbee(&["find", "--model", "llama*", "--match", "glob"]).stdout.contains("llm/8080"));
}

#[test]
fn completions_and_version_need_nobody() {
    let scene = Scene::new();
    assert!(scene.rbee(&["completions", "bash"]).stdout.contains("rbee"));
    assert!(scene.rbee(&["version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
}
