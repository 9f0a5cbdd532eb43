//! Channels to a queen over TCP and to the hive of this machine over its unix socket, and calls with a deadline.

use crate::args::Global;
use crate::failure::{Failure, first_cause};
use crate::locate::Socket;
use common::link::{Bearer, Channel, LinkError};
use hyper_util::rt::TokioIo;
use proto::fleet_service_client::FleetServiceClient;
use proto::scheduler_service_client::SchedulerServiceClient;
use proto::worker_service_client::WorkerServiceClient;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// A queen or a hive that takes no connection for this long is given up.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that answers no ping for this long is dead; pings go out as often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Nobody is asked again sooner than this.
const ASKED_AGAIN_MIN: Duration = Duration::from_millis(100);
/// Larger answers are refused: some 60,000 workers in one.
pub const ANSWER_MAX: usize = 64 << 20;

/// The one queen that a client verb asks.
pub fn queen_url(global: &Global) -> Result<&str, Failure> {
    match global.queen.as_slice() {
        [one] => Ok(one),
        _ => Err(Failure::Usage("several queens are named, this command asks one: give one --queen URL".to_owned())),
    }
}

/// A channel to the queen.
pub async fn queen(global: &Global) -> Result<Channel, Failure> {
    let url = queen_url(global)?;
    let access = global.reach.access()?;
    let set = |endpoint: Endpoint| alive(endpoint.connect_timeout(CONNECT)).tcp_nodelay(true);
    match tokio::time::timeout(CONNECT, access.connect(url, set)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(LinkError::Connect(why))) => Err(unreachable(url, &why)),
        Ok(Err(error @ (LinkError::Address(_) | LinkError::Clear(_)))) => Err(Failure::Usage(error.to_string())),
        Ok(Err(error)) => Err(Failure::Failed(error.to_string())),
        Err(_) => Err(unreachable(url, "no connection within 5 s")),
    }
}

/// The fleet as the queen knows it.
pub async fn fleet(global: &Global) -> Result<FleetServiceClient<Channel>, Failure> {
    Ok(FleetServiceClient::new(queen(global).await?).max_decoding_message_size(ANSWER_MAX))
}

/// The queen's finds.
pub async fn scheduler(global: &Global) -> Result<SchedulerServiceClient<Channel>, Failure> {
    Ok(SchedulerServiceClient::new(queen(global).await?).max_decoding_message_size(ANSWER_MAX))
}

/// The hive behind a unix socket of this machine.
pub async fn hive(socket: &Socket) -> Result<WorkerServiceClient<Channel>, Failure> {
    let to = socket.clone();
    let dial = tower::service_fn(move |_| dial(to.clone()));
    // The name is never looked up: the connector goes to the socket.
    let endpoint = alive(Endpoint::from_static("http://hive"));
    let why = match tokio::time::timeout(CONNECT, endpoint.connect_with_connector(dial)).await {
        Ok(Ok(channel)) => {
            // The socket's own mode says who may call.
            let channel = InterceptedService::new(channel, Bearer::default());
            return Ok(WorkerServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX));
        }
        Ok(Err(error)) => first_cause(&error),
        Err(_) => "no connection within 5 s".to_owned(),
    };
    let shown = socket.path.display();
    Err(Failure::Failed(format!(
        "cannot reach a hive at {shown}: {why}; start one with `rbee up` or `rbee hive`, or name its socket with --socket"
    )))
}

/// Who listens is looked at when he is there: what a path names may change.
async fn dial(socket: Socket) -> std::io::Result<TokioIo<UnixStream>> {
    let stream = UnixStream::connect(&socket.path).await?;
    let user = stream.peer_cred()?.uid();
    if !socket.admits(user) {
        let told =
            format!("another user (uid {user}) listens there; if you trust whoever that is, name it with --socket");
        return Err(std::io::Error::other(told));
    }
    Ok(TokioIo::new(stream))
}

fn alive(endpoint: Endpoint) -> Endpoint {
    endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE).keep_alive_while_idle(true)
}

fn unreachable(url: &str, why: &str) -> Failure {
    Failure::Unreachable(format!(
        "cannot reach the queen at {url}: {why}; start one with `rbee up`, or name another with --queen URL"
    ))
}

/// Waits for an answer, at most `limit`. `what` was asked, fit to follow "failed to".
pub async fn answer<T>(
    limit: Duration,
    what: &str,
    asking: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    in_time(limit, asking).await.map_err(|status| refused(what, &status))
}

/// The same with the status itself, for whoever decides by it whether to ask again. Of a stream it is the opening that
/// is waited for.
pub async fn in_time<T>(
    limit: Duration,
    asking: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, asking).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => {
            let limit = crate::show::units::time(limit);
            Err(Status::deadline_exceeded(format!("no answer within {limit}; give it longer with --timeout")))
        }
    }
}

/// The same for what changes something: when the connection breaks or no answer comes in time, nobody here knows whether
/// it was done. `look` is how to find out.
pub async fn deed<T>(
    limit: Duration,
    what: &str,
    look: &str,
    asking: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    in_time(limit, asking).await.map_err(|status| {
        let broke = std::error::Error::source(&status).is_some();
        match refused(what, &status) {
            Failure::Failed(words) | Failure::Unreachable(words) if broke => {
                Failure::Failed(format!("{words}; the connection broke, and it may have been done: {look}"))
            }
            Failure::Failed(words) if status.code() == Code::DeadlineExceeded => {
                Failure::Failed(format!("{words}; it may have been done: {look}"))
            }
            other => other,
        }
    })
}

/// Asks again while whoever answers is not ready yet and says when it will be, as a queen does that has just started;
/// for `limit` at most, and what comes then is the answer. `ask` must be harmless when repeated.
pub async fn asked_again<T, F>(limit: Duration, ask: impl Fn() -> F) -> Result<Response<T>, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let began = Instant::now();
    loop {
        let answer = ask().await;
        let Err(status) = &answer else { return answer };
        let named = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
        let Some(wait) = named.filter(|_| status.code() == Code::Unavailable) else { return answer };
        if began.elapsed() + wait >= limit {
            return answer;
        }
        tokio::time::sleep(wait.max(ASKED_AGAIN_MIN)).await;
    }
}

/// What a status means to whoever typed the command.
pub fn refused(what: &str, status: &Status) -> Failure {
    let words = format!("failed to {what}: {}", told(status));
    match status.code() {
        Code::NotFound => Failure::Nothing(words),
        Code::Unavailable => Failure::Unreachable(words),
        _ => Failure::Failed(words),
    }
}

/// The sentence in a status, or what its code says when there is none.
pub fn told(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(first_cause);
    match (cause, status.message()) {
        (Some(cause), _) => cause,
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    /// What is told when this comes of starting something.
    async fn told(asking: impl Future<Output = Result<Response<()>, Status>>) -> String {
        let done = deed(Duration::ZERO, "start it", "`rbee ps` tells", asking).await;
        done.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn what_was_not_answered_in_time_may_have_been_done() {
        let wanted = "failed to start it: no answer within 0.0s; give it longer with --timeout; it may have been done: \
                      `rbee ps` tells";
        assert_eq!(told(pending()).await, wanted);
        let late = told(ready(Err(Status::deadline_exceeded("hive box has not answered")))).await;
        assert_eq!(late, "failed to start it: hive box has not answered; it may have been done: `rbee ps` tells");
    }

    #[tokio::test]
    async fn what_was_refused_was_not_done_and_a_broken_connection_is_named() {
        for refusal in [Status::not_found("no"), Status::unavailable("no"), Status::invalid_argument("no")] {
            assert_eq!(told(ready(Err(refusal))).await, "failed to start it: no");
        }
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        let wanted = "failed to start it: reset; the connection broke, and it may have been done: `rbee ps` tells";
        assert_eq!(told(ready(Err(broken))).await, wanted);
    }
}
