//! Who may ask for what. Before anything else looks at a request: is it meant for this queen (`host`), who sends it
//! (`tokens`), and may they (`role`). Files are looked at again while the queen runs (`renew`).

mod host;
mod refused;
mod renew;
mod role;
mod tokens;
mod until;

pub use refused::{Knocks, Reason};
pub use renew::{Renewal, renew};
pub use role::{Need, need};
pub use tokens::{Caller, TokensError};

use crate::Config;
use crate::metrics::Counts;
use crate::page;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use common::tls::{Identity, TlsError};
use host::Hosts;
use std::net::SocketAddr;
use std::sync::Arc;
use tokens::Tokens;
use tokio::sync::watch;
use tonic::Status;

/// The certificate that is shown at present, where there is one.
pub type Shown = Option<watch::Receiver<Identity>>;

/// Why a queen cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Its certificate.
    #[error("show a certificate")]
    Tls(#[source] TlsError),
    /// Its tokens.
    #[error("read the tokens")]
    Tokens(#[source] TokensError),
}

/// Where a request comes from: put into it by the port.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Decides about each request.
#[derive(Debug)]
pub struct Guard {
    hosts: Hosts,
    tokens: Option<watch::Receiver<Arc<Tokens>>>,
    counts: Arc<Counts>,
}

impl Guard {
    /// A guard of what listens on `bound`, and what keeps its files up to date.
    ///
    /// # Errors
    /// When a certificate, a key or a token cannot be used.
    pub fn new(bound: SocketAddr, config: &Config, counts: Arc<Counts>) -> Result<(Self, Renewal), GuardError> {
        let renewal = Renewal::open(config, Arc::clone(&counts))?;
        let hosts = Hosts::new(bound, config.insecure, &config.allowed_hosts, renewal.shown());
        let tokens = renewal.tokens();
        Ok((Self { hosts, tokens, counts }, renewal))
    }

    /// Who sends a request, if they may.
    fn admit(&self, request: &Request) -> Result<Caller, Reason> {
        let Some(tokens) = &self.tokens else { return Ok(Caller::Anyone) };
        let need = need(request.uri().path(), page::grpc(request.headers()).is_some());
        if need == Need::Nobody {
            return Ok(Caller::Anyone);
        }
        let caller = tokens.borrow().caller(request.headers())?;
        if caller.may(need) { Ok(caller) } else { Err(Reason::Role { needed: need }) }
    }
}

/// The layer.
pub async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let kind = page::grpc(request.headers()).cloned();
    if let Some(objection) = guard.hosts.objection(&request) {
        return refused::answer(kind.as_ref(), Status::permission_denied(objection));
    }
    let caller = match guard.admit(&request) {
        Ok(caller) => caller,
        Err(reason) => {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
            guard.counts.knocks.note(&reason, peer, request.uri().path());
            return refused::answer(kind.as_ref(), reason.into());
        }
    };
    let gone = caller.gone();
    request.extensions_mut().insert(caller);
    let Some(gone) = gone else { return next.run(request).await };
    // A token that is taken away takes the calls with it that were made with it.
    tokio::select! {
        response = next.run(request) => response.map(|body| until::body(body, kind.as_ref(), gone)),
        () = gone.cancelled() => refused::answer(kind.as_ref(), Reason::Unknown.into()),
    }
}
