//! Waiting for a worker to be ready, for a caller who wants to know that it is.

use super::Inner;
use super::entry::Standing;
use super::request::Plan;
use super::start::{StartError, last_words};
use crate::roster::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

/// How long a caller waits who does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(600);
/// Programs that listen on a port sooner or later, whatever else their command line says.
const SERVERS: [&str; 6] =
    ["llama-server", "ollama", "vllm", "sglang", "text-generation-launcher", "text-generation-server"];
/// Their modules, as Python is told to run them.
const MODULES: [&str; 3] = ["vllm.entrypoints", "sglang.launch_server", "llama_cpp.server"];

/// What is waited for, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Awaited {
    /// Somebody will tell when it is ready: its engine or its port. Else it is as soon as it has not ended at once.
    answer: bool,
    limit: Duration,
}

impl Awaited {
    pub fn new(request: &proto::StartWorkerRequest, plan: &Plan) -> Self {
        Self { answer: expects_answer(request), limit: plan.wait_timeout.unwrap_or(WAIT_DEFAULT) }
    }
}

/// Whether this worker has, or is going to have, an engine or a port that can be asked.
fn expects_answer(request: &proto::StartWorkerRequest) -> bool {
    match request.probe() {
        // Nobody is going to ask.
        proto::Probe::None => false,
        proto::Probe::Unspecified | proto::Probe::Auto => request.endpoint.is_some() || serves(&request.command),
        _ => true,
    }
}

/// Whether a command line names a port, or a program that cannot be without one.
fn serves(command: &[String]) -> bool {
    command.iter().any(|argument| {
        let program = argument.rsplit('/').next().unwrap_or(argument);
        argument == "--port"
            || argument.starts_with("--port=")
            || SERVERS.contains(&program)
            || MODULES.iter().any(|module| argument.starts_with(module))
    })
}

/// Waits until the worker is ready. NOT_READY: not in time, and it goes on.
///
/// # Errors
/// It ended before that, and is not started again; or the hive is stopping, and it goes on.
pub async fn until_ready(
    inner: &Inner,
    member: &Arc<Member>,
    standing: &mut Receiver<Standing>,
    awaited: Awaited,
    log_from: proto::LogPosition,
) -> Result<proto::Readiness, StartError> {
    let ready = proto::Readiness::Ready;
    if awaited.answer {
        // One that somebody starts again meanwhile is waited for in its next run.
        let news = standing.wait_for(|standing| standing.gone || standing.readiness == ready);
        let told = tokio::select! {
            () = inner.stopping.cancelled() => return Err(StartError::Unready(member.id.clone())),
            told = tokio::time::timeout(awaited.limit, news) => told.map(|news| news.map(|news| news.clone())),
        };
        if let Ok(Ok(Standing { gone: true, ended, .. })) = told {
            let cause = ended.unwrap_or_default();
            return Err(StartError::EndedUnready {
                id: member.id.clone(),
                message: super::leave::sentence(&cause),
                log: last_words(inner, &member.id, log_from),
            });
        }
    }
    let mut table = inner.table();
    let Some(entry) = table.entry(&member.id, member.slot) else { return Ok(proto::Readiness::NotReady) };
    // From here on its restart policy holds.
    entry.probation = false;
    let told = entry.standing.borrow().readiness;
    Ok(if told == ready || !awaited.answer { ready } else { proto::Readiness::NotReady })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expects(command: &str, probe: proto::Probe, port: Option<u32>) -> bool {
        expects_answer(&proto::StartWorkerRequest {
            command: command.split(' ').map(str::to_owned).collect(),
            probe: probe.into(),
            endpoint: port.map(|port| proto::Endpoint { port, ..Default::default() }),
            ..Default::default()
        })
    }

    #[test]
    fn a_worker_with_an_engine_or_a_port_is_waited_for() {
        use proto::Probe::{Auto, None as Nobody, Unspecified, Vllm};
        assert!(expects("serve", Vllm, None));
        assert!(expects("serve", Unspecified, Some(1)));
        assert!(expects("/opt/llama-server -m x", Auto, None));
        assert!(expects("python3 -m vllm.entrypoints.openai.api_server", Auto, None));
        assert!(expects("python3 serve.py --port=8000", Unspecified, None));
        assert!(!expects("sleep 300", Auto, None));
        assert!(!expects("llama-server --port 1", Nobody, Some(1)));
    }
}
