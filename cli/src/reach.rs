//! The way to a worker or a hive, wherever it is: the hive of this machine over its unix socket, any other one through
//! the queen.

use crate::args::Global;
use crate::failure::Failure;
use crate::follow::anywhere;
use crate::locate::Socket;
use crate::verbs::{HiveClient, hives, ps};
use crate::{connect, locate, naming, terminal};
use common::{Backoff, WorkerId};

/// How a hive is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Over its unix socket.
    Socket(Socket),
    /// Over the queen, by its name.
    Queen(String),
}

/// A worker, or a name that may be one's.
#[derive(Debug)]
pub struct Reached {
    /// Who is asked.
    pub client: HiveClient,
    /// Its name, whole or as it was typed.
    pub name: String,
    /// How to get there again.
    pub way: Way,
}

/// A hive.
#[derive(Debug, Clone)]
pub struct ReachedHive {
    /// Who is asked.
    pub client: HiveClient,
    /// Its name.
    pub id: String,
    /// How to get there again.
    pub way: Way,
}

/// The worker that `wish` names. One of this machine first; where a hive is here, another machine's is meant only by its
/// whole name, so that stopping something twice stops nothing else. One that is on its way in or out, or has ended, is in
/// no list; its hive knows.
///
/// # Errors
/// `Nothing` when nobody is called so, `Usage` when several are, or what keeps a hive or queen from being reached.
pub async fn worker(global: &Global, wish: &str) -> Result<Reached, Failure> {
    let named = locate::hive_of(wish);
    let mut here = here(global, named).await;
    if let Ok(here) = &mut here
        && named.is_none_or(|hive| hive == here.id)
    {
        let workers = here.workers(global).await?;
        match naming::unique(wish, &workers) {
            Ok(worker) => return Ok(here.worker(naming::full(worker))),
            Err(Failure::Nothing(_)) if named.is_some() => return Ok(here.worker(wish.to_owned())),
            Err(Failure::Nothing(_)) => {}
            Err(several) => return Err(several),
        }
    }
    if named.is_some() {
        return elsewhere(global, wish.to_owned()).await;
    }
    let known = match ps::list(global, None).await {
        Ok(answer) => naming::unique(wish, &answer.workers).map(naming::full),
        Err(failure) => Err(failure),
    };
    match (here, known) {
        (Ok(here), _) if WorkerId::parse(wish).is_ok() => Ok(here.worker(wish.to_owned())),
        (Ok(here), Ok(name)) => Err(Failure::Usage(format!(
            "no worker of this machine ({}) is called {wish:?}; {name} is: say its whole name",
            here.id
        ))),
        (Err(_), Ok(name)) => elsewhere(global, name).await,
        (Err(failure), Err(Failure::Unreachable(_))) => Err(failure),
        (Ok(_), Err(Failure::Unreachable(_))) => {
            Err(Failure::Nothing(format!("no worker is called {wish:?} here; `rbee ps` lists them")))
        }
        (_, Err(failure)) => Err(failure),
    }
}

async fn elsewhere(global: &Global, name: String) -> Result<Reached, Failure> {
    let hive = locate::hive_of(&name).unwrap_or_default().to_owned();
    Ok(Reached { client: through_queen(global).await?, name, way: Way::Queen(hive) })
}

/// The hive of this name, or the one here.
///
/// # Errors
/// What keeps it from being reached.
pub async fn hive(global: &Global, wish: Option<&str>) -> Result<ReachedHive, Failure> {
    let here = here(global, wish).await;
    match (wish, here) {
        (None, here) => here,
        (Some(wish), Ok(here)) if here.id == wish => Ok(here),
        (Some(wish), _) => known(global, wish).await,
    }
}

/// A hive that the queen knows, through her.
pub async fn known(global: &Global, id: &str) -> Result<ReachedHive, Failure> {
    let client = through_queen(global).await?;
    Ok(ReachedHive { client, id: id.to_owned(), way: Way::Queen(id.to_owned()) })
}

/// The hives that the queen hears.
pub async fn heard(global: &Global) -> Result<Vec<proto::Hive>, Failure> {
    let mut all = hives::list(global).await?.hives;
    all.retain(|hive| hive.freshness() == proto::Freshness::Live);
    Ok(all)
}

async fn through_queen(global: &Global) -> Result<HiveClient, Failure> {
    Ok(HiveClient::new(connect::queen(global).await?).max_decoding_message_size(connect::ANSWER_MAX))
}

/// The hive of this machine.
pub async fn here(global: &Global, wish: Option<&str>) -> Result<ReachedHive, Failure> {
    let socket = locate::socket(global, wish).await?;
    let mut client = connect::hive(&socket).await?;
    let asking = client.describe_hive(proto::DescribeHiveRequest::default());
    let answer = connect::answer(global.timeout, "ask the hive here who it is", asking).await;
    let id = answer.map_err(locate::not_the_queen)?.hive.unwrap_or_default().id;
    Ok(ReachedHive { client, id, way: Way::Socket(socket) })
}

impl ReachedHive {
    async fn workers(&mut self, global: &Global) -> Result<Vec<proto::Worker>, Failure> {
        let asking = self.client.list_workers(proto::WorkerServiceListWorkersRequest::default());
        let answer = connect::answer(global.timeout, "list the workers of this machine", asking).await;
        Ok(answer.map_err(locate::not_the_queen)?.workers)
    }

    fn worker(&self, name: String) -> Reached {
        Reached { client: self.client.clone(), name, way: self.way.clone() }
    }
}

impl Way {
    /// Waits until the hive answers again; says so once when it goes and once when it is back.
    pub async fn again(&self, global: &Global) -> HiveClient {
        let name = match self {
            Self::Socket(socket) => format!("the hive at {}", socket.path.display()),
            Self::Queen(hive) => format!("hive {hive}"),
        };
        if !global.quiet {
            terminal::say(format_args!("rbee: lost {name}; trying again until it is back"));
        }
        let mut backoff = Backoff::default();
        loop {
            tokio::time::sleep(backoff.next(anywhere(), None)).await;
            if let Ok(client) = self.try_again(global).await {
                if !global.quiet {
                    terminal::say(format_args!("rbee: {name} is back"));
                }
                return client;
            }
        }
    }

    async fn try_again(&self, global: &Global) -> Result<HiveClient, Failure> {
        match self {
            Self::Socket(socket) => connect::hive(socket).await,
            Self::Queen(hive) => {
                let mut client = through_queen(global).await?;
                let asking = client.describe_hive(proto::DescribeHiveRequest { hive: hive.clone() });
                connect::answer(global.timeout, "ask the hive", asking).await?;
                Ok(client)
            }
        }
    }
}
