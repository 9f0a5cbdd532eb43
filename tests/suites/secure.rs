//! The real binary with TLS and tokens: queen, hive and client verbs as separate processes; what is refused, and that
//! no token is ever seen. And a queen at the end of her file descriptors.

#[path = "../../queen/tests/rpc/papers.rs"]
mod papers;

use harness::{Output, Process, Queen, Scene, Watcher, eventually};
use nix::sys::signal::Signal;
use papers::{Papers, SECRET};
use proto::WatchRequest;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(30);
/// So many files may the starved queen have open.
const FILES: usize = 48;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// A queen with the papers' certificate and tokens, and her URL.
async fn secure_queen(scene: &Scene, papers: &Papers) -> (Queen, String) {
    let (cert, key, tokens) = (papers.cert(), papers.key(), papers.tokens());
    let flags = ["--tls-cert", text(&cert), "--tls-key", text(&key), "--token-dir", text(&tokens)];
    (scene.queen(&flags).await, format!("https://127.0.0.1:{}", scene.port()))
}

/// A command of the real binary that trusts the papers' authority and shows this token.
fn shown(scene: &Scene, papers: &Papers, url: &str, token: &str) -> Command {
    let mut command = scene.command();
    command.env("RBEE_QUEEN", url).env("RBEE_TLS_CA", papers.ca()).env("RBEE_TOKEN_FILE", papers.token(token));
    command
}

fn output(mut command: Command, args: &[&str]) -> Output {
    let output = command.args(args).output().expect("run rbee");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(!output.stdout.contains(SECRET) && !output.stderr.contains(SECRET), "{output:?}");
    output
}

fn hive_command(scene: &Scene, papers: &Papers, url: &str, token: &str) -> Command {
    let mut command = shown(scene, papers, url, token);
    command.env_remove("RBEE_SOCKET");
    command.args(["hive", "--name", "box", "--slice", scene.slice(), "--state-dir"]).arg(scene.state_dir("box"));
    command
}

/// Nothing of any token stands where others can read it.
fn unseen(process: &Process) {
    let line = std::fs::read(format!("/proc/{}/cmdline", process.pid())).expect("its command line");
    assert!(!String::from_utf8_lossy(&line).contains(SECRET));
    assert!(!process.log().contains(SECRET), "{}", process.log());
}

#[tokio::test]
async fn queen_hive_and_verbs_meet_over_tls_with_tokens() {
    let (scene, papers) = (Scene::new(), Papers::new());
    for name in ["viewer.eve", "operator.ann", "hive.box", "hive.other"] {
        papers.give(name);
    }
    let (queen, url) = secure_queen(&scene, &papers).await;
    let hive = scene.hive_from(hive_command(&scene, &papers, &url, "hive.box"), "box").await;
    let run = ["run", "--group", "llm", "--name", "1", "--model", "m", "--", "sleep", "600"];
    let started = output(shown(&scene, &papers, &url, "operator.ann"), &run);
    assert_eq!(started.code, Some(0), "{}", started.stderr);

    let listed = || async {
        let seen = output(shown(&scene, &papers, &url, "viewer.eve"), &["ps", "-o", "name"]);
        (seen.code == Some(0) && seen.stdout == "box/llm/1\n").then_some(())
    };
    eventually("the viewer sees the worker", SOON, listed).await;
    let mut watch = shown(&scene, &papers, &url, "viewer.eve");
    watch.args(["watch", "-o", "jsonl"]);
    let watch = Process::start(watch, &scene.dir().join("watch.log"));
    eventually("the watch tells it", SOON, || async { watch.log().contains("\"llm\"").then_some(()) }).await;

    let nobody = {
        let mut command = shown(&scene, &papers, &url, "viewer.eve");
        command.env_remove("RBEE_TOKEN_FILE");
        output(command, &["ps"])
    };
    assert!(nobody.code == Some(1) && nobody.stderr.contains("--token-file"), "{nobody:?}");
    let given = {
        let mut command = shown(&scene, &papers, &url, "viewer.eve");
        command.env_remove("RBEE_TOKEN_FILE").env("RBEE_TOKEN", format!("{SECRET}viewer.eve"));
        output(command, &["ps", "-o", "name"])
    };
    assert_eq!(given.stdout, "box/llm/1\n", "{given:?}");
    let stranger = output(shown(&scene, &Papers::new(), &url, "../../nowhere"), &["ps"]);
    assert!(stranger.code == Some(1) && stranger.stderr.contains("nowhere"), "{stranger:?}");
    let untrusted = {
        let mut command = shown(&scene, &Papers::new(), &url, "viewer.eve");
        command.env("RBEE_TOKEN_FILE", papers.token("viewer.eve")).env("RBEE_TLS_CA", "/nowhere/ca.pem");
        output(command, &["ps"])
    };
    assert!(untrusted.code == Some(1) && untrusted.stderr.contains("/nowhere/ca.pem"), "{untrusted:?}");
    let clear = output(shown(&scene, &papers, "http://queen.lab:7833", "viewer.eve"), &["ps"]);
    assert!(clear.code == Some(2) && clear.stderr.contains("not sent in the clear"), "{clear:?}");
    for process in [&queen.process, &hive.process, &watch] {
        unseen(process);
    }
}

#[tokio::test]
async fn a_follower_that_may_not_look_is_told_so_and_ends() {
    let (scene, papers) = (Scene::new(), Papers::new());
    papers.give("viewer.eve");
    let (_queen, url) = secure_queen(&scene, &papers).await;
    let viewer = || shown(&scene, &papers, &url, "viewer.eve");
    let nobody = || {
        let mut command = viewer();
        command.env_remove("RBEE_TOKEN_FILE");
        command
    };
    for (name, mut command, args, why) in [
        ("a viewer's logs", viewer(), ["logs", "-f", "box/llm/1"], "needs the role operator"),
        ("nobody's logs", nobody(), ["logs", "-f", "box/llm/1"], "--token-file"),
        ("nobody's events", nobody(), ["events", "-f", "--hive=box"], "--token-file"),
    ] {
        command.args(args);
        let mut follower = Process::start(command, &scene.dir().join(name));
        let look = || std::future::ready(follower.ended());
        let (code, _) = eventually(name, SOON, look).await;
        let said = follower.log();
        assert!(code == Some(1) && said.contains(why) && !said.contains(SECRET), "{name}: {code:?}, {said}");
        assert!(!said.contains("trying again"), "{said}");
    }
}

#[tokio::test]
async fn a_hive_with_another_hives_token_is_told_whose_it_is() {
    let (scene, papers) = (Scene::new(), Papers::new());
    for name in ["hive.box", "hive.other"] {
        papers.give(name);
    }
    let (queen, url) = secure_queen(&scene, &papers).await;
    // The token's file is read for each connection: the right one in its place is enough.
    std::fs::create_dir(scene.dir().join("own")).expect("a directory");
    let own = scene.dir().join("own/token");
    papers::replace(&own, &format!("{SECRET}hive.other"));
    let mut command = hive_command(&scene, &papers, &url, "hive.box");
    command.env("RBEE_TOKEN_FILE", &own);
    let hive = scene.hive_from(command, "box").await;
    let refused = || async { hive.process.log().contains("this token is hive other's").then_some(()) };
    eventually("the hive is refused", SOON, refused).await;
    papers::replace(&own, &format!("{SECRET}hive.box"));
    let reporting = || async { hive.process.log().contains("reporting queen=").then_some(()) };
    eventually("the hive reports", SOON, reporting).await;
    for process in [&queen.process, &hive.process] {
        unseen(process);
    }
}

#[tokio::test]
async fn an_open_address_is_refused_with_what_is_missing() {
    let scene = Scene::new();
    let refused = scene.rbee(&["queen", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(1));
    for words in ["--tls-cert", "--tls-key", "--token-dir", "127.0.0.1", "--insecure"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let half = scene.rbee(&["queen", "--listen", "127.0.0.1:0", "--tls-cert", "/c.pem"]);
    assert!(half.code == Some(2) && half.stderr.contains("both --tls-cert and --tls-key"), "{half:?}");
    let none = scene.rbee(&["queen", "--listen", "127.0.0.1:0", "--token-dir", "/nowhere"]);
    assert!(none.code == Some(1) && none.stderr.contains("/nowhere"), "{none:?}");
}

#[tokio::test]
async fn bounds_come_from_the_file_and_the_environment_and_metrics_tell_them() {
    let scene = Scene::new();
    let file = scene.dir().join("queen.toml");
    std::fs::write(&file, "[queen]\nmax-hives = 7\nmax-watchers = 8\n").expect("write the file");
    let mut command = scene.command();
    command.env("RBEE_MAX_WATCHERS", "9").args(["queen", "--config", text(&file), "--listen"]);
    command.arg(format!("127.0.0.1:{}", scene.port()));
    let _queen = Process::start(command, &scene.dir().join("queen.log"));
    let answered = || async { TcpStream::connect(("127.0.0.1", scene.port())).await.ok() };
    eventually("the queen listens", SOON, answered).await;
    let page = scene.metrics().await;
    for line in ["{bound=\"hives\"} 7\n", "{bound=\"watchers\"} 9\n", "{bound=\"calls\"} 1024\n"] {
        assert!(page.contains(&format!("rbee_queen_bound_limit{line}")), "{page}");
    }
    std::fs::write(&file, "[queen]\nmax-hive = 7\n").expect("write the file");
    let refused = scene.rbee(&["queen", "--config", text(&file)]);
    assert!(refused.code == Some(1) && refused.stderr.contains("queen.toml:2:"), "{refused:?}");
    assert!(refused.stderr.contains("did you mean max-hives?"), "{refused:?}");
    promtool(&scene, &page);
}

/// What Prometheus' own checker says, where it is installed.
fn promtool(scene: &Scene, page: &str) {
    let file = scene.dir().join("metrics.txt");
    std::fs::write(&file, page).expect("write the page");
    let input = std::fs::File::open(&file).expect("open the page");
    match Command::new("promtool").args(["check", "metrics"]).stdin(input).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "promtool: {said}\n{page}");
        }
        Err(error) => eprintln!("promtool did not look at the page: {error}"),
    }
}

#[tokio::test]
async fn q5_with_no_file_descriptors_left_existing_streams_go_on() {
    let scene = Scene::new();
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {FILES}; exec \"$@\"");
    command.args(["-c", &limited, "sh"]).arg(harness::rbee_binary()).args(["queen", "--bookmark-every", "100ms"]);
    command.arg("--listen").arg(format!("127.0.0.1:{}", scene.port())).env_remove("RBEE_LOG");
    // By default she would take no more connections than files.
    command.env("RBEE_MAX_CONNECTIONS", "10000");
    let queen = Process::start(command, &scene.dir().join("queen.log"));
    let answered = || async { TcpStream::connect(("127.0.0.1", scene.port())).await.ok() };
    eventually("the queen listens", SOON, answered).await;
    let hive = scene.hive(&[]).await;
    let mut watcher = Watcher::open(&scene.url(), WatchRequest::default()).await;
    watcher.until("the hive", SOON, |watcher| watcher.hives.contains_key("box")).await;

    let mut greedy = Vec::new();
    for _ in 0..2 * FILES {
        greedy.push(TcpStream::connect(("127.0.0.1", scene.port())).await.expect("the kernel takes it"));
    }
    let starved = || async { queen.log().contains("cannot accept connections").then_some(()) };
    eventually("no descriptor is left", SOON, starved).await;
    let before = watcher.bookmarks.len();
    watcher
        .until("bookmarks that count the hive", SOON, |watcher| {
            watcher.bookmarks.iter().skip(before + 3).any(|bookmark| bookmark.hives_online == 1)
        })
        .await;
    assert!(!hive.process.log().contains("not reporting"), "{}", hive.process.log());
    drop(greedy);
    let again = || async { tokio::time::timeout(SOON, scene.metrics()).await.ok() };
    let (page, _) = eventually("the queen takes connections again", SOON, again).await;
    assert!(page.contains("rbee_queen_hives{freshness=\"live\"} 1\n"), "{page}");
    queen.signal(Signal::SIGTERM);
}
