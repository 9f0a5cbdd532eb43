//! Hives made up for these tests: a real server on loopback with a small ledger in memory, which can be slow, hang,
//! refuse, and (as a planted bug) look first and grant later.

use crate::fleet::sample::{self, row};
use crate::reserve::witnesses::is_witness;
use common::HiveId;
use proto::grant_service_client::GrantServiceClient;
use proto::grant_service_server::{GrantService, GrantServiceServer};
use proto::hold_wish::What;
use proto::{
    Gpu, Hold, HoldRequest, HoldResponse, ListHoldsRequest, ListHoldsResponse, ProcessStats, ReleaseHoldRequest,
    ReleaseHoldResponse, RenewHoldRequest, RenewHoldResponse, WorkerRow,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// How a hive behaves.
#[derive(Debug, Clone, Default)]
pub struct Mood {
    /// Each answer takes so long.
    pub slow: Duration,
    /// Nothing is answered once it has granted something.
    pub dead_after_hold: bool,
    /// Renewals are never answered, and not made.
    pub renews_nothing: bool,
    /// Every Hold is refused.
    pub refuses: bool,
    /// The planted bug: it looks whether something is free, and grants it a moment later.
    pub looks_first: bool,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub holds: Vec<(Hold, Instant)>,
    pub gpus: BTreeMap<String, u64>,
    pub workers: Vec<(u32, ProcessStats)>,
    pub mood: Mood,
    /// Every call, in words.
    pub calls: Vec<String>,
    pub aborted: Vec<String>,
    token: u64,
    dead: bool,
}

impl Ledger {
    fn expire(&mut self) {
        let now = Instant::now();
        let over = |(hold, end): &(Hold, Instant)| *end <= now && hold.used_by.is_empty();
        let unconfirmed =
            self.holds.iter().filter(|held| over(held)).filter(|(hold, _)| hold.tentative && hold.reservation_size > 1);
        self.aborted.extend(unconfirmed.map(|(hold, _)| hold.reservation.clone()));
        self.holds.retain(|held| !over(held));
    }

    fn of(&self, id: &str) -> Vec<Hold> {
        self.holds.iter().map(|(hold, _)| hold).filter(|hold| hold.reservation == id).cloned().collect()
    }

    fn check(&self, wish: &What, before: &[Hold]) -> Result<Hold, Status> {
        let held = || self.holds.iter().map(|(hold, _)| hold).chain(before);
        match wish {
            What::Worker(name) => {
                if !self.workers.iter().any(|(slot, _)| format!("llm/{slot}") == *name) {
                    return Err(Status::not_found(format!("no worker {name} runs here")));
                }
                if held().any(|hold| hold.worker == *name) {
                    return Err(Status::failed_precondition(format!("worker {name} is held already")));
                }
                Ok(Hold { worker: name.clone(), ..Hold::default() })
            }
            What::Key(_) => Ok(Hold::default()),
            What::Vram(wish) => {
                let taken: u64 = held().filter(|hold| hold.gpu_uuid == wish.gpu_uuid).map(|hold| hold.vram_bytes).sum();
                let free = self.gpus.get(&wish.gpu_uuid).copied().unwrap_or(0).saturating_sub(taken);
                if free < wish.bytes + wish.headroom_bytes {
                    return Err(Status::resource_exhausted(format!("{free} bytes are free on {}", wish.gpu_uuid)));
                }
                let (gpu_uuid, vram_bytes) = (wish.gpu_uuid.clone(), wish.bytes);
                Ok(Hold { gpu_uuid, vram_bytes, unused_vram_bytes: vram_bytes, ..Hold::default() })
            }
        }
    }

    fn decide(&self, request: &HoldRequest) -> Result<Vec<Hold>, Status> {
        let mut granted: Vec<Hold> = Vec::new();
        for (wish, part) in request.wishes.iter().zip(0..) {
            let hold = self.check(wish.what.as_ref().unwrap(), &granted)?;
            granted.push(Hold {
                part,
                reservation: request.reservation.clone(),
                holder: request.holder.clone(),
                key: request.key.clone(),
                wish: request.wish,
                reservation_size: request.reservation_size,
                tentative: true,
                ..hold
            });
        }
        Ok(granted)
    }

    fn grant(&mut self, holds: Vec<Hold>, ttl: Duration) -> Vec<Hold> {
        let end = Some(common::timestamp(SystemTime::now() + ttl));
        let mut granted = Vec::new();
        for hold in holds {
            self.token += 1;
            let hold = Hold { fencing_token: self.token, expire_time: end, ..hold };
            self.holds.push((hold.clone(), Instant::now() + ttl));
            granted.push(hold);
        }
        self.dead |= self.mood.dead_after_hold;
        granted
    }
}

/// A hive.
#[derive(Debug, Clone)]
pub struct FakeHive {
    pub id: HiveId,
    ledger: Arc<Mutex<Ledger>>,
    pub channel: Channel,
    _server: Arc<Ending>,
}

#[derive(Debug)]
struct Ending(CancellationToken);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[derive(Debug, Clone)]
struct Served(Arc<Mutex<Ledger>>);

impl Served {
    /// Notes a call; waits as the mood says.
    async fn begin(&self, call: String) {
        let (slow, dead) = {
            let mut ledger = self.0.lock().unwrap();
            ledger.calls.push(call);
            ledger.expire();
            (ledger.mood.slow, ledger.dead)
        };
        if dead {
            std::future::pending::<()>().await;
        }
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
    }
}

#[tonic::async_trait]
impl GrantService for Served {
    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let request = request.into_inner();
        let ttl = common::from_duration(request.ttl.as_ref().unwrap()).unwrap();
        self.begin(format!("hold {} {ttl:?}", request.wishes.len())).await;
        let decided = {
            let mut ledger = self.0.lock().unwrap();
            if ledger.mood.refuses {
                return Err(Status::resource_exhausted("this hive refuses"));
            }
            let same = |hold: &&Hold| !request.key.is_empty() && hold.key == request.key;
            let known: Vec<Hold> = ledger.holds.iter().map(|(hold, _)| hold).filter(same).cloned().collect();
            if let Some(first) = known.first() {
                let other = first.wish != request.wish;
                return if other {
                    Err(Status::already_exists("key"))
                } else {
                    Ok(Response::new(HoldResponse { holds: known }))
                };
            }
            let decided = ledger.decide(&request)?;
            if !ledger.mood.looks_first {
                let holds = ledger.grant(decided, ttl);
                return Ok(Response::new(HoldResponse { holds }));
            }
            decided
        };
        tokio::time::sleep(Duration::from_millis(2)).await;
        let holds = self.0.lock().unwrap().grant(decided, ttl);
        Ok(Response::new(HoldResponse { holds }))
    }

    async fn renew_hold(&self, request: Request<RenewHoldRequest>) -> Result<Response<RenewHoldResponse>, Status> {
        let request = request.into_inner();
        let ttl = common::from_duration(request.ttl.as_ref().unwrap()).unwrap();
        self.begin(format!("renew {} {ttl:?}", request.confirm)).await;
        if self.0.lock().unwrap().mood.renews_nothing {
            std::future::pending::<()>().await;
        }
        let mut ledger = self.0.lock().unwrap();
        for (hold, end) in ledger.holds.iter_mut().filter(|(hold, _)| hold.reservation == request.reservation) {
            *end = Instant::now() + ttl;
            hold.expire_time = Some(common::timestamp(SystemTime::now() + ttl));
            hold.tentative &= !request.confirm;
        }
        let holds = ledger.of(&request.reservation);
        if holds.is_empty() {
            Err(Status::not_found("it has expired"))
        } else {
            Ok(Response::new(RenewHoldResponse { holds }))
        }
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        let id = request.into_inner().reservation;
        self.begin("release".to_owned()).await;
        let mut ledger = self.0.lock().unwrap();
        let before = ledger.holds.len();
        ledger.holds.retain(|(hold, _)| hold.reservation != id || !hold.used_by.is_empty());
        let released = (before - ledger.holds.len()) as u32;
        Ok(Response::new(ReleaseHoldResponse { released }))
    }

    async fn list_holds(&self, _: Request<ListHoldsRequest>) -> Result<Response<ListHoldsResponse>, Status> {
        self.begin("list".to_owned()).await;
        let holds = self.0.lock().unwrap().holds.iter().map(|(hold, _)| hold.clone()).collect();
        Ok(Response::new(ListHoldsResponse { holds }))
    }
}

impl FakeHive {
    /// With these workers `llm/1`, `llm/2` … and GPUs with so many GiB.
    pub async fn start(id: &str, workers: Vec<ProcessStats>, gpus: &[(&str, u64)]) -> Self {
        let gpus = gpus.iter().map(|(uuid, gib)| ((*uuid).to_owned(), gib << 30)).collect();
        let ledger = Ledger { gpus, workers: (1..).zip(workers).collect(), ..Ledger::default() };
        let ledger = Arc::new(Mutex::new(ledger));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let ending = CancellationToken::new();
        let stopped = ending.clone();
        let server = Server::builder().tcp_nodelay(true).add_service(GrantServiceServer::new(Served(ledger.clone())));
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                served = server.serve_with_incoming(incoming) => served.unwrap(),
            }
        });
        let (id, channel) = (HiveId::parse(id).unwrap(), endpoint.connect_lazy());
        Self { id, ledger, channel, _server: Arc::new(Ending(ending)) }
    }

    /// Its ledger as it is now, what has expired left out.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.expire();
        ledger
    }

    /// Changes how it behaves.
    pub fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.ledger().mood);
    }

    /// What it has granted, keys left out.
    pub fn holds(&self) -> Vec<Hold> {
        self.ledger().holds.iter().map(|(hold, _)| hold).filter(|hold| !is_witness(hold)).cloned().collect()
    }

    /// What it was asked, one after the other.
    pub fn calls(&self) -> Vec<String> {
        self.ledger().calls.clone()
    }

    /// A client of its own, as another queen would have it.
    pub fn client(&self) -> GrantServiceClient<Channel> {
        GrantServiceClient::new(self.channel.clone())
    }

    /// Its record, as it would report it now.
    pub fn record(&self) -> proto::Hive {
        let ledger = self.ledger();
        let held = |uuid: &String| {
            ledger.holds.iter().filter(|(h, _)| h.gpu_uuid == *uuid).map(|(h, _)| h.unused_vram_bytes).sum()
        };
        let gpu = |(uuid, total): (&String, &u64)| Gpu {
            uuid: uuid.clone(),
            memory_total_bytes: Some(*total),
            memory_used_bytes: Some(0),
            held_bytes: held(uuid),
            ..Gpu::default()
        };
        let told = ledger.holds.iter().map(|(hold, _)| hold).filter(|hold| !is_witness(hold));
        let holds = told.cloned().collect();
        proto::Hive {
            gpus: ledger.gpus.iter().map(gpu).collect(),
            holds,
            last_fencing_token: ledger.token,
            aborted_reservations: ledger.aborted.clone(),
            ..sample::hive(self.id.as_str())
        }
    }

    /// Its workers, as it would report them.
    pub fn rows(&self) -> Vec<WorkerRow> {
        self.ledger().workers.iter().map(|(slot, stats)| row(self.id.as_str(), *slot, stats.clone())).collect()
    }
}
