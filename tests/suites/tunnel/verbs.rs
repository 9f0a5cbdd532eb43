//! The command line from anywhere: the hive of this machine over its socket, any other through the queen.

use crate::place::{Place, SOON};
use harness::{Hive, Output, Process, Scene, eventually};

/// Runs rbee as on a machine that has no hive.
fn from_afar(scene: &Scene, args: &[&str]) -> Output {
    let nowhere = scene.dir().join("nowhere.sock");
    let mut all = vec!["--socket", nowhere.to_str().unwrap()];
    all.extend_from_slice(args);
    scene.rbee(&all)
}

/// The exit code of a follower that has to end by itself, and all that it said.
async fn ends(scene: &Scene, args: &[&str]) -> (Option<i32>, String) {
    let mut command = scene.command();
    command.env("RBEE_SOCKET", scene.dir().join("nowhere.sock")).args(args);
    let log = tempfile::NamedTempFile::new_in(scene.dir()).unwrap();
    let mut process = Process::start(command, log.path());
    let look = || std::future::ready(process.ended());
    let (code, _) = eventually("the follower ends", SOON, look).await;
    (code, process.log())
}

/// A second hive beside "box", with the same templates.
async fn den(scene: &Scene) -> Hive {
    let templates = scene.dir().join("templates");
    let mut command = scene.command();
    command.env_remove("RBEE_SOCKET").args(["hive", "--name", "den", "--queen", &scene.url()]);
    command.args(["--slice", &format!("den-{}", scene.slice())]).arg("--state-dir").arg(scene.state_dir("den"));
    command.arg("--template-dir").arg(templates);
    scene.hive_from(command, "den").await
}

#[tokio::test]
async fn a_worker_elsewhere_is_started_followed_restarted_and_stopped() {
    let place = Place::new().await;
    let scene = &place.scene;
    let listed = from_afar(scene, &["templates"]);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    assert!(listed.stdout.contains("talker") && listed.stdout.contains("[lines=0..1000000]"), "{}", listed.stdout);
    assert!(listed.stdout.contains("did you mean command?"), "{}", listed.stdout);
    let started = from_afar(scene, &["start", "talker", "--set", "lines=2", "--group", "llm", "--name", "1"]);
    assert_eq!((started.code, started.stdout.as_str()), (Some(0), "box/llm/1\n"), "{}", started.stderr);
    let logs = || async {
        let logs = from_afar(scene, &["logs", "box/llm/1", "--tail", "1"]);
        logs.stdout.starts_with("line 2 of").then_some(())
    };
    eventually("its log is read from afar", SOON, logs).await;
    // Any unique run of whole parts will do once the queen has heard of it.
    let restart = || async { Some(from_afar(scene, &["restart", "llm/1"])).filter(|output| output.code == Some(0)) };
    let (restarted, _) = eventually("it is restarted by a part of its name", SOON, restart).await;
    assert!(restarted.stdout.contains("started again as pid"), "{}", restarted.stdout);
    let stopped = from_afar(scene, &["stop", "box/llm/1"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    assert_eq!(from_afar(scene, &["stop", "box/llm/1"]).code, Some(3), "twice is harmless, and told");
    assert_eq!(from_afar(scene, &["stop", "nowhere/llm/1"]).code, Some(3));
    let events = from_afar(scene, &["events"]);
    assert!(events.stdout.contains("started") && events.stdout.contains("exited"), "{}", events.stdout);
    assert_eq!(from_afar(scene, &["start", "nobody"]).code, Some(3));
    let bad = from_afar(scene, &["start", "talker", "--set", "lines=many"]);
    assert_eq!(bad.code, Some(1));
    assert!(bad.stderr.contains("parameters.lines") && bad.stderr.contains("whole number"), "{}", bad.stderr);
}

#[tokio::test]
async fn several_hives_are_told_apart() {
    let place = Place::new().await;
    let scene = &place.scene;
    let _den = den(scene).await;
    let both = || async {
        let listed = from_afar(scene, &["templates", "-o", "jsonl"]);
        (listed.stdout.lines().filter(|line| line.contains("\"talker\"")).count() == 2).then_some(())
    };
    eventually("both hives list their templates", SOON, both).await;
    let several = from_afar(scene, &["start", "talker"]);
    assert_eq!(several.code, Some(2));
    assert!(several.stderr.contains("--hive: box, den"), "{}", several.stderr);
    for hive in ["box", "den"] {
        let started = from_afar(scene, &["start", "talker", "--hive", hive]);
        assert_eq!((started.code, started.stdout), (Some(0), format!("{hive}/default/1\n")), "{}", started.stderr);
    }
    let merged = from_afar(scene, &["events", "-o", "jsonl"]);
    assert!(merged.stdout.contains("\"box\"") && merged.stdout.contains("\"den\""), "{}", merged.stdout);
    let one = from_afar(scene, &["events", "--hive", "den", "-o", "jsonl"]);
    assert!(!one.stdout.contains("\"box\"") && one.stdout.contains("\"den\""), "{}", one.stdout);
    // On the machine of "box", a name without a hive is a worker of "box" and of nobody else.
    assert_eq!(scene.rbee(&["stop", "default/1"]).code, Some(0));
    assert_eq!(scene.rbee(&["stop", "default/1"]).code, Some(3));
    assert_eq!(scene.rbee(&["stop", "den/default/1"]).code, Some(0));
}

#[tokio::test]
async fn a_hive_is_drained_and_described_from_afar() {
    let place = Place::new().await;
    let scene = &place.scene;
    let drained = from_afar(scene, &["drain", "box"]);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    let shown = || async { from_afar(scene, &["describe", "box"]).stdout.contains("draining").then_some(()) };
    eventually("describe says so", SOON, shown).await;
    let refused = from_afar(scene, &["start", "talker", "--hive", "box"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("draining"), "{}", refused.stderr);
    let local = scene.rbee(&["run", "--", "sleep", "1000"]);
    assert_eq!(local.code, Some(1), "{}", local.stdout);
    assert_eq!(from_afar(scene, &["undrain", "box"]).code, Some(0));
    assert_eq!(scene.rbee(&["run", "--", "sleep", "1000"]).code, Some(0));
    assert_eq!(from_afar(scene, &["drain", "nobody"]).code, Some(3));
    assert!(from_afar(scene, &["describe", "box"]).stdout.contains("remote start"));
}

#[tokio::test]
async fn what_cannot_be_followed_at_all_ends_the_follower() {
    let place = Place::new().await;
    for (args, why) in [
        (&["events", "-f", "--hive", "typo"][..], "no hive typo is known here"),
        (&["logs", "-f", "typo/llm/1"], "no hive typo is known here"),
        (&["logs", "-f", "box/llm/1"], "llm/1"),
    ] {
        let (code, said) = ends(&place.scene, args).await;
        assert!(code == Some(3) && said.contains(why), "{args:?}: {code:?}, {said}");
        assert!(!said.contains("trying again"), "{said}");
    }
}

#[tokio::test]
async fn a_follower_outlives_its_hive() {
    let mut place = Place::new().await;
    let scene = &place.scene;
    let mut command = scene.command();
    command.env("RBEE_SOCKET", scene.dir().join("nowhere.sock")).args(["events", "-f", "--hive", "box"]);
    let mut follower = Process::start(command, &scene.dir().join("follower.log"));
    assert_eq!(from_afar(scene, &["start", "talker", "--group", "llm", "--name", "1"]).code, Some(0));
    let told = |words: &'static str| {
        let log = follower.log();
        async move { log.contains(words).then_some(()) }
    };
    eventually("the start is told", SOON, || told("started       box/llm/1")).await;
    place.hive.kill();
    eventually("the follower misses its hive", SOON, || told("lost hive box; trying again")).await;
    let _again = scene.hive_from(scene.hive_command("box", &[]), "box").await;
    eventually("what the new hive did is told", SOON, || told("adopted       box/llm/1")).await;
    assert_eq!(follower.ended(), None);
}

#[tokio::test]
async fn what_cannot_be_reached_has_its_exit_code() {
    let scene = Scene::new();
    assert_eq!(from_afar(&scene, &["start", "talker"]).code, Some(4));
    assert_eq!(from_afar(&scene, &["drain", "box"]).code, Some(4));
    assert_eq!(from_afar(&scene, &["stop", "box/llm/1"]).code, Some(4));
    assert_eq!(from_afar(&scene, &["stop", "llm/1"]).code, Some(1), "nobody is here");
    assert_eq!(from_afar(&scene, &["events"]).code, Some(1));
}
