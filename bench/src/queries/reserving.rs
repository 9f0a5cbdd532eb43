//! Reservations over the same fleet: every hive is one server in this process that grants what it is asked.

use proto::grant_service_server::{GrantService, GrantServiceServer};
use proto::hold_wish::What;
use proto::{
    Hold, HoldRequest, HoldResponse, ListHoldsRequest, ListHoldsResponse, ReleaseHoldRequest, ReleaseHoldResponse,
    RenewHoldRequest, RenewHoldResponse, ReserveRequest,
};
use queen::Bound;
use queen::fleet::Fleet;
use queen::reserve::{Answered, Refused, Reserving, Ways, Wish};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

/// Samples are as old as the run: that is not what is measured.
const MAX_AGE: Duration = Duration::from_secs(3_600);

#[derive(Default)]
struct Granting(Mutex<HashMap<String, Vec<Hold>>>);

#[tonic::async_trait]
impl GrantService for Granting {
    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let request = request.into_inner();
        let hold = |(wish, part): (proto::HoldWish, u32)| Hold {
            reservation: request.reservation.clone(),
            part,
            worker: if let Some(What::Worker(name)) = wish.what { name } else { String::new() },
            key: request.key.clone(),
            tentative: true,
            ..Hold::default()
        };
        let holds: Vec<Hold> = request.wishes.clone().into_iter().zip(0..).map(hold).collect();
        // All hives are this one: a key that is held on another must not hide what is held here.
        let is_key = request.wishes.iter().any(|wish| matches!(wish.what, Some(What::Key(_))));
        if !is_key {
            self.0.lock().expect("nobody panicked").insert(request.reservation.clone(), holds.clone());
        }
        Ok(Response::new(HoldResponse { holds }))
    }

    async fn renew_hold(&self, request: Request<RenewHoldRequest>) -> Result<Response<RenewHoldResponse>, Status> {
        let known = self.0.lock().expect("nobody panicked").get(&request.into_inner().reservation).cloned();
        let holds = known.into_iter().flatten().map(|hold| Hold { tentative: false, ..hold }).collect();
        Ok(Response::new(RenewHoldResponse { holds }))
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        let gone = self.0.lock().expect("nobody panicked").remove(&request.into_inner().reservation);
        Ok(Response::new(ReleaseHoldResponse { released: gone.map_or(0, |holds| holds.len() as u32) }))
    }

    async fn list_holds(&self, _: Request<ListHoldsRequest>) -> Result<Response<ListHoldsResponse>, Status> {
        Ok(Response::new(ListHoldsResponse::default()))
    }
}

/// A queen's half of reservations, and all hives, on this thread.
pub struct Reservations {
    runtime: Runtime,
    reserving: Arc<Reserving>,
}

impl Reservations {
    pub fn new(fleet: Arc<Fleet>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let channel = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let server = Server::builder().tcp_nodelay(true).add_service(GrantServiceServer::new(Granting::default()));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
            endpoint.tcp_nodelay(true).connect().await.expect("a connection on loopback")
        });
        let ways = Ways::new(move |_| Ok(channel.clone()));
        let places = Bound::new(queen::Config::default().max_reserving);
        let reserving = Arc::new(Reserving::new(fleet, ways, MAX_AGE, Duration::ZERO, places));
        Self { runtime, reserving }
    }

    /// An idle worker with a model is held and given back.
    pub fn idle_with(&self, model: &str, key: &str) {
        let answered = self.ask(model, key, None).expect("a worker that is free");
        self.runtime.block_on(self.reserving.release(&answered.reservation.id)).expect("what was held is given back");
    }

    /// All that fit are too old, and why is told.
    pub fn in_vain(&self) -> Refused {
        self.ask("model-7", "", Some(prost_types::Duration { seconds: 0, nanos: 1 })).expect_err("nothing is so young")
    }

    fn ask(&self, model: &str, key: &str, max_age: Option<prost_types::Duration>) -> Result<Answered, Refused> {
        let claim = proto::WorkerClaim { model: model.to_owned(), idle: true, max_age, ..Default::default() };
        let claim = proto::Claim { what: Some(proto::claim::What::AnyWorker(claim)) };
        let request = ReserveRequest { claims: vec![claim], key: key.to_owned(), ..ReserveRequest::default() };
        self.runtime.block_on(self.reserving.reserve(Wish::parse(request).expect("a wish")))
    }
}
