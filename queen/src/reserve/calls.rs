//! The four calls of `GrantService`, each with a deadline, to several hives side by side.

use crate::tunnel::{NoTunnel, was_not_sent};
use common::HiveId;
use proto::grant_service_client::GrantServiceClient;
use proto::{Hold, HoldRequest, ListHoldsRequest, ReleaseHoldRequest, RenewHoldRequest};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A hive that has not answered by then counts as unreachable; what it grants afterwards ends by itself.
const ANSWER: Duration = Duration::from_millis(1_200);

type Open = dyn Fn(&HiveId) -> Result<Channel, NoTunnel> + Send + Sync;

/// The ways to the hives.
#[derive(Clone)]
pub struct Ways(Arc<Open>);

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ways")
    }
}

/// Why a hive did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// It said so.
    Refused {
        /// How.
        code: Code,
        /// In its own words.
        sentence: String,
        /// Which wishes it named as the reason, by their position; empty when it did not.
        wishes: Vec<usize>,
    },
    /// It cannot be asked, or did not answer in time; it may have done it.
    Silent(String),
}

impl From<Status> for No {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                Self::Silent(status.message().to_owned())
            }
            Code::Unimplemented => Self::Silent("it is too old to grant anything".to_owned()),
            code => {
                let details = status.get_details_bad_request();
                let fields = details.into_iter().flat_map(|details| details.field_violations);
                let wishes = fields.filter_map(|violation| position(&violation.field)).collect();
                Self::Refused { code, sentence: status.message().to_owned(), wishes }
            }
        }
    }
}

/// The position in "wishes[1].worker".
fn position(field: &str) -> Option<usize> {
    field.strip_prefix("wishes[")?.split(']').next()?.parse().ok()
}

impl Ways {
    /// `open` finds the channel to a hive, without waiting.
    pub fn new(open: impl Fn(&HiveId) -> Result<Channel, NoTunnel> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// Whether a hive can be called at all.
    pub fn leads_to(&self, hive: &HiveId) -> bool {
        (self.0)(hive).is_ok()
    }

    /// Asks each hive for its holds; answers in any order.
    pub async fn hold(&self, requests: Vec<(HiveId, HoldRequest)>) -> Vec<(HiveId, Result<Vec<Hold>, No>)> {
        let ask = |mut client: GrantServiceClient<Channel>, request| async move {
            client.hold(request).await.map(|answer| answer.into_inner().holds)
        };
        self.all(requests, ask).await
    }

    /// Moves the end of a reservation's holds on each hive.
    pub async fn renew(
        &self,
        hives: impl IntoIterator<Item = HiveId>,
        id: &str,
        ttl: Duration,
        confirm: bool,
    ) -> Vec<(HiveId, Result<Vec<Hold>, No>)> {
        let ttl = Some(common::duration(ttl));
        let request = RenewHoldRequest { reservation: id.to_owned(), ttl, confirm };
        let ask = |mut client: GrantServiceClient<Channel>, request| async move {
            client.renew_hold(request).await.map(|answer| answer.into_inner().holds)
        };
        self.all(hives.into_iter().map(|hive| (hive, request.clone())), ask).await
    }

    /// Gives a reservation's holds on each hive back; answers how many those were. `aborting`: its second step has failed.
    pub async fn release(
        &self,
        hives: impl IntoIterator<Item = HiveId>,
        id: &str,
        aborting: bool,
    ) -> Vec<(HiveId, Result<u32, No>)> {
        let request = ReleaseHoldRequest { reservation: id.to_owned(), aborting };
        let ask = |mut client: GrantServiceClient<Channel>, request| async move {
            client.release_hold(request).await.map(|answer| answer.into_inner().released)
        };
        self.all(hives.into_iter().map(|hive| (hive, request.clone())), ask).await
    }

    /// What each hive has granted just now.
    pub async fn list(&self, hives: impl IntoIterator<Item = HiveId>) -> Vec<(HiveId, Result<Vec<Hold>, No>)> {
        let ask = |mut client: GrantServiceClient<Channel>, request| async move {
            client.list_holds(request).await.map(|answer| answer.into_inner().holds)
        };
        self.all(hives.into_iter().map(|hive| (hive, ListHoldsRequest {})), ask).await
    }

    /// Asks all of them; once more whose tunnel was left before the call was sent.
    async fn all<Q, A, F>(
        &self,
        requests: impl IntoIterator<Item = (HiveId, Q)>,
        ask: impl Fn(GrantServiceClient<Channel>, Q) -> F + Clone + Send + 'static,
    ) -> Vec<(HiveId, Result<A, No>)>
    where
        Q: Clone + Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let (mut answers, mut asking) = (Vec::new(), JoinSet::new());
        for (hive, request) in requests {
            let (ways, ask) = (self.clone(), ask.clone());
            let client = move |hive: &HiveId| (ways.0)(hive).map(GrantServiceClient::new);
            match client(&hive) {
                Err(error) => answers.push((hive, Err(No::Silent(error.to_string())))),
                Ok(first) => {
                    asking.spawn(async move {
                        let name = hive.clone();
                        let answer = async move {
                            match ask(first, request.clone()).await {
                                Err(status) if was_not_sent(&status) => match client(&name) {
                                    Ok(again) => ask(again, request).await,
                                    Err(_) => Err(status),
                                },
                                answer => answer,
                            }
                        };
                        (hive, within(answer).await)
                    });
                }
            }
        }
        while let Some(joined) = asking.join_next().await {
            // A call that broke down has said nothing; whoever counts the answers finds it missing.
            answers.extend(joined.ok());
        }
        answers
    }
}

async fn within<A>(answer: impl Future<Output = Result<A, Status>>) -> Result<A, No> {
    match timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(No::from),
        Err(_) => Err(No::Silent(format!("it has not answered within {} ms", ANSWER.as_millis()))),
    }
}
