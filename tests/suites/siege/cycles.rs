//! Kill the hive in the middle of something, start it again, ask the witness; over and over.

use crate::ledger::{Fate, Ledger, Process, mark, marked};
use crate::random::Random;
use harness::{Hive, Scene, alive, eventually, start_ticks, within};
use proto::worker_service_client::WorkerServiceClient;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Of each kind of hive.
const CYCLES: usize = 50;
const CYCLES_LONG: usize = 500;
/// The names that are fought over.
const NAMES: u64 = 6;
/// A killed hive has its workers again within this; more where the machine is busy with other tests.
const ADOPTED_WITHIN: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(30);
/// Processes that are nobody's worker and must see the end of it.
const BYSTANDERS: usize = 4;

type Client = WorkerServiceClient<Channel>;

/// What one attacker asked for when the hive died.
enum Asked {
    /// The pid that was answered.
    Start(Option<u32>),
    /// Whether an answer came.
    Stop(bool),
}

struct Siege {
    scene: Scene,
    /// Of every hive.
    flags: &'static [&'static str],
    random: Random,
    token: String,
    ledger: Ledger,
    slowest: Duration,
    counts: BTreeMap<&'static str, usize>,
}

#[tokio::test]
async fn l4_kills_at_any_point_lose_orphan_and_wrongly_signal_no_process() {
    besiege(&[]).await;
}

#[tokio::test]
async fn l4_nor_do_they_without_cgroups() {
    besiege(&["--cgroup-root", "/nowhere"]).await;
}

async fn besiege(flags: &'static [&'static str]) {
    let cycles = if crate::long() { CYCLES_LONG } else { CYCLES };
    let scene = Scene::new();
    let token = scene.slice().to_owned();
    let mut bystanders = Bystanders::gather();
    let mut siege = Siege {
        random: Random::seeded(),
        scene,
        flags,
        token,
        ledger: Ledger::default(),
        slowest: Duration::ZERO,
        counts: BTreeMap::new(),
    };
    let mut hive = siege.raise().await;
    for cycle in 0..cycles {
        siege.attack(&mut hive).await;
        hive = siege.raise().await;
        let wrong = siege.contradictions().await;
        assert!(wrong.is_empty(), "cycle {cycle}: {wrong:#?}\n{}", hive.process.log());
    }
    bystanders.are_unharmed();
    println!("{cycles} cycles, slowest adoption {:?}, {:?}", siege.slowest, siege.counts);
    assert!(siege.counts.values().all(|count| *count > 0) && siege.counts.len() == 5, "{:?}", siege.counts);
    siege.end(&mut hive).await;
}

/// Ended when they drop.
struct Bystanders(Vec<Child>);

impl Bystanders {
    fn gather() -> Self {
        let sleep = || Command::new("sleep").arg("3000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self((0..BYSTANDERS).map(|_| sleep()).collect())
    }

    fn are_unharmed(&mut self) {
        assert!(self.0.iter().all(|bystander| alive(bystander.id())), "a process that was no worker has ended");
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for bystander in &mut self.0 {
            let _ended = bystander.kill();
            let _reaped = bystander.wait();
        }
    }
}

impl Siege {
    /// Starts a hive, after up to two that are killed before they are up.
    async fn raise(&mut self) -> Hive {
        for _ in 0..self.random.below(3) {
            let command = self.scene.hive_command("box", self.flags);
            let mut unborn = harness::Process::start(command, &self.scene.dir().join("unborn.log"));
            tokio::time::sleep(self.random.pause(120)).await;
            unborn.kill();
            *self.counts.entry("hives killed before they were up").or_default() += 1;
        }
        let begun = Instant::now();
        let hive = self.scene.hive(self.flags).await;
        // A child of the killed one that had not executed its program yet dies a moment later, and holds its socket.
        let answers = || async { (self.try_pid().await? == hive.process.pid()).then_some(()) };
        eventually("the new hive answers, and not a remnant of the old one", SOON, answers).await;
        self.slowest = self.slowest.max(begun.elapsed());
        hive
    }

    /// Who answers on the socket.
    async fn try_pid(&self) -> Option<u32> {
        let address = format!("unix://{}", self.scene.socket("box").display());
        let mut client = WorkerServiceClient::connect(address).await.ok()?;
        Some(client.describe_hive(proto::DescribeHiveRequest::default()).await.ok()?.into_inner().pid)
    }

    async fn client(&self) -> Client {
        let address = format!("unix://{}", self.scene.socket("box").display());
        WorkerServiceClient::connect(address).await.expect("connect to the hive")
    }

    /// Asks for several things at once, and kills the hive while it is at them.
    async fn attack(&mut self, hive: &mut Hive) {
        let client = self.client().await;
        let mut names: Vec<String> = (1..=NAMES).map(|number| format!("siege/{number}")).collect();
        let mut running = Vec::new();
        let marked = marked(&self.token);
        for _ in 0..=self.random.below(4) {
            let at = usize::try_from(self.random.below(names.len() as u64)).unwrap();
            let name = names.remove(at);
            let lead = self.random.pause(20);
            let lives = marked.get(&name).and_then(|processes| processes.iter().next().copied());
            let asked = match lives {
                Some(_) => tokio::spawn(stop(client.clone(), name.clone(), lead)),
                None => tokio::spawn(start(client.clone(), name.clone(), mark(&self.token), lead)),
            };
            running.push((name, lives, asked));
        }
        // A start is answered after 100 ms; most kills come before that.
        let most = if self.random.below(3) == 0 { 400 } else { 60 };
        tokio::time::sleep(self.random.pause(most)).await;
        hive.kill();
        for (name, lived, asked) in running {
            let answer = within("an attacker is let go", SOON, asked).await.unwrap();
            self.note(&name, lived, answer);
        }
    }

    /// `lived` is the process that an end was asked for.
    fn note(&mut self, name: &str, lived: Option<Process>, answer: Asked) {
        let (what, fate) = match answer {
            Asked::Start(Some(pid)) => {
                // Nobody but us ends it, so it is there to be looked at.
                let ticks = start_ticks(pid).unwrap_or_else(|| panic!("{name} was started as {pid} and is not there"));
                ("starts answered", Fate::Runs((pid, ticks)))
            }
            Asked::Stop(true) => ("stops answered", lived.map_or(Fate::Doomed, Fate::Stopped)),
            Asked::Start(None) => ("starts cut short", Fate::Begun),
            Asked::Stop(false) => ("stops cut short", Fate::Doomed),
        };
        *self.counts.entry(what).or_default() += 1;
        self.ledger.note(name, fate);
    }

    /// What is wrong once the new hive is up. What was cut short becomes what it turned out to be.
    async fn contradictions(&mut self) -> Vec<String> {
        let mut client = self.client().await;
        let begun = Instant::now();
        loop {
            let listed = listed(&mut client).await;
            let marked = marked(&self.token);
            let wrong = self.ledger.contradictions(&listed, &marked);
            // An end that the hive is just seeing out is not wrong yet.
            if wrong.is_empty() {
                for (name, processes) in &marked {
                    let first = processes.iter().next().copied();
                    if let (Some(process), Some(Fate::Begun)) = (first, self.ledger.fate(name)) {
                        self.ledger.note(name, Fate::Runs(process));
                    }
                }
                return wrong;
            }
            if begun.elapsed() > ADOPTED_WITHIN {
                return wrong;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Stops everything, and sees that nothing is left: no process, no cgroup, no record.
    async fn end(&mut self, hive: &mut Hive) {
        let mut client = self.client().await;
        for name in listed(&mut client).await.into_keys() {
            let request = proto::StopWorkerRequest { name, ..Default::default() };
            client.stop_worker(request).await.unwrap();
        }
        assert_eq!(marked(&self.token), BTreeMap::new());
        let workers = self.scene.state_dir("box").join("workers");
        let empty = || async { std::fs::read_dir(&workers).unwrap().next().is_none().then_some(()) };
        eventually("no record is left", SOON, empty).await;
        hive.process.stop();
        for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            assert!(!std::path::Path::new(mount).join(&self.token).exists(), "the slice is left at {mount}");
        }
    }
}

async fn listed(client: &mut Client) -> BTreeMap<String, u32> {
    let answer = client.list_workers(proto::WorkerServiceListWorkersRequest::default()).await.unwrap().into_inner();
    // What is only found in the slice has lost its story: that does not count as known.
    let specs = answer.workers.into_iter().filter_map(|worker| worker.spec);
    let specs = specs.filter(|spec| spec.origin() != proto::Origin::Found);
    specs.map(|spec| (format!("{}/{}", spec.group, spec.instance), spec.pid)).collect()
}

async fn start(mut client: Client, name: String, mark: (String, String), lead: Duration) -> Asked {
    tokio::time::sleep(lead).await;
    let (group, instance) = name.split_once('/').unwrap();
    let request = proto::StartWorkerRequest {
        group: group.to_owned(),
        instance: instance.to_owned(),
        command: vec!["sleep".to_owned(), "3000".to_owned()],
        env: [mark].into(),
        ..Default::default()
    };
    let answer = client.start_worker(request).await.ok();
    Asked::Start(answer.map(|answer| answer.into_inner().worker.and_then(|worker| worker.spec).unwrap().pid))
}

async fn stop(mut client: Client, name: String, lead: Duration) -> Asked {
    tokio::time::sleep(lead).await;
    let request = proto::StopWorkerRequest { name, stopped_by: "siege".to_owned(), ..Default::default() };
    Asked::Stop(client.stop_worker(request).await.is_ok())
}
