//! One test's machine: a state directory, a slice, a free port, and the queens and hives that run on them.

use crate::process::{Output, Process};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// How long a queen or hive may take until it answers.
const STARTING: Duration = Duration::from_secs(20);

/// Where the `rbee` binary of this build lies.
pub fn rbee_binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("target/<profile>");
    let binary = profile.join("rbee-under-test");
    assert!(binary.exists(), "{} is missing: run cargo build first", binary.display());
    binary
}

/// One test's machine.
#[derive(Debug)]
pub struct Scene {
    dir: TempDir,
    slice: String,
    port: u16,
}

/// A running queen.
#[derive(Debug)]
pub struct Queen {
    /// Its process.
    pub process: Process,
}

/// A running hive. What it left running when it drops, is ended.
#[derive(Debug)]
pub struct Hive {
    /// Its process.
    pub process: Process,
    name: String,
}

impl Scene {
    /// A fresh machine.
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        Self {
            dir: tempfile::Builder::new().prefix("rbee-test-").tempdir().expect("a directory"),
            slice: format!("rbee-test-{}-{number}.slice", std::process::id()),
            port,
        }
    }

    /// The queen's URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port that the queen listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the queen tells of herself.
    pub async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("connect");
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    /// The slice's name.
    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// The directory of this test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// State directory of a hive.
    pub fn state_dir(&self, hive: &str) -> PathBuf {
        self.dir.path().join(hive)
    }

    /// Unix socket of a hive.
    pub fn socket(&self, hive: &str) -> PathBuf {
        self.state_dir(hive).join("hive.sock")
    }

    /// A command of the real binary, aimed at this scene's queen and at the hive "box".
    pub fn command(&self) -> Command {
        let mut command = Command::new(rbee_binary());
        command.env("RBEE_QUEEN", self.url()).env("RBEE_SOCKET", self.socket("box")).env_remove("RBEE_LOG");
        // A fake GPU driver names processes as the test sees them, also where the test runs in a container.
        command.env("RBEE_TRUST_GPU_PIDS", "true");
        // The hives of other tests have the same fake GPUs.
        command.env("RBEE_GPU_LOCK_DIR", self.dir.path());
        command.current_dir(self.dir.path());
        command
    }

    /// Runs the real binary to its end.
    pub fn rbee(&self, args: &[&str]) -> Output {
        let output = self.command().args(args).stdin(Stdio::null()).output().expect("run rbee");
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs the real binary and takes its standard output as JSON. Panics unless it exits with 0.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.rbee(args);
        assert_eq!(output.code, Some(0), "rbee {args:?}: {}", output.stderr);
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error} in {}", output.stdout))
    }

    /// Starts a worker on the hive "box" and returns what `rbee run` printed.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut all = vec!["run"];
        all.extend_from_slice(args);
        self.rbee(&all)
    }

    /// Starts a queen, with more flags, and waits until it answers.
    pub async fn queen(&self, flags: &[&str]) -> Queen {
        let mut command = self.command();
        command.args(["queen", "--listen", &format!("127.0.0.1:{}", self.port)]).args(flags);
        let process = Process::start(command, &self.dir.path().join("queen.log"));
        let answered = || async { tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok() };
        crate::eventually("the queen listens", STARTING, answered).await;
        Queen { process }
    }

    /// The command that starts a hive called `name`.
    pub fn hive_command(&self, name: &str, flags: &[&str]) -> Command {
        self.hive_command_to(&self.url(), name, flags)
    }

    /// The command that starts a hive called `name` whose queen is at `url`.
    pub fn hive_command_to(&self, url: &str, name: &str, flags: &[&str]) -> Command {
        let mut command = self.command();
        command.env_remove("RBEE_SOCKET");
        command.args(["hive", "--name", name, "--slice", &self.slice, "--state-dir"]).arg(self.state_dir(name));
        command.args(["--queen", url]).args(flags);
        command
    }

    /// Starts a hive called "box", with more flags, and waits until its socket answers.
    pub async fn hive(&self, flags: &[&str]) -> Hive {
        self.hive_from(self.hive_command("box", flags), "box").await
    }

    /// Starts a hive by a command and waits until its socket answers.
    pub async fn hive_from(&self, command: Command, name: &str) -> Hive {
        let process = Process::start(command, &self.dir.path().join(format!("{name}.log")));
        let socket = self.socket(name);
        let answered = || async { tokio::net::UnixStream::connect(&socket).await.ok() };
        crate::eventually("the hive's socket answers", STARTING, answered).await;
        Hive { process, name: name.to_owned() }
    }

    /// Ends every worker of this scene: by its own slice, and where there are no cgroups by recorded pid and start time.
    fn end_workers(&self) {
        for dir in slice_dirs(&self.slice) {
            // Fails only when the slice is already gone, which is what is wanted.
            let _gone = std::fs::write(dir.join("cgroup.kill"), "1");
        }
        for record in records(self.dir.path()) {
            end_recorded(&record);
        }
        remove_slice(&self.slice);
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.end_workers();
    }
}

impl Hive {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

impl Queen {
    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// Every JSON file below a directory: the hives' records are among them.
fn records(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "json") {
                found.push(path);
            }
        }
    }
    found
}

/// Ends the session of a recorded worker that runs without a cgroup.
fn end_recorded(record: &Path) {
    let number = |value: &serde_json::Value, key: &str| value.get(key).and_then(serde_json::Value::as_u64);
    let Ok(text) = std::fs::read_to_string(record) else { return };
    let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return };
    let (Some(pid), Some(ticks)) = (number(&value, "pid"), number(&value, "start_ticks")) else { return };
    let same = u32::try_from(pid).ok().and_then(crate::start_ticks) == Some(ticks);
    if let (true, Ok(pid)) = (same, i32::try_from(pid)) {
        // A worker leads its own session, so its group is its own too.
        let _gone = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn slice_dirs(slice: &str) -> Vec<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .map(|m| Path::new(m).join(slice))
        .filter(|d| d.exists())
        .collect()
}

/// Removes the empty directories of a slice, innermost first.
fn remove_slice(slice: &str) {
    for root in slice_dirs(slice) {
        let mut dirs = vec![root.clone()];
        let mut at = 0;
        while let Some(dir) = dirs.get(at).cloned() {
            dirs.extend(
                std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()),
            );
            at += 1;
        }
        for dir in dirs.iter().rev() {
            for _ in 0..100 {
                if std::fs::remove_dir(dir).is_ok() || !dir.exists() {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}
