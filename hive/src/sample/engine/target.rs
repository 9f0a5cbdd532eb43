//! Whom to ask, and how: what matters of a worker for its engine. Pure.

use super::EngineConfig;
use super::address::Place;
use super::command_line::{Guess, guess};
use crate::roster::Member;
use crate::sample::sockets::owner::Claim;
use proto::{Engine, Origin, Probe, WorkerState};

/// What matters of a worker for its engine. Another one of these is another conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Pid and start time of its first process.
    pub incarnation: (i32, u64),
    /// What it was said to be, or what its command line says; `None` when its port must tell.
    pub guess: Option<Guess>,
    /// Where it is to be asked; `None` while no port is known.
    pub port: Option<u16>,
    /// The host that was given with the port, when it is not this machine's.
    host: Option<String>,
    /// It speaks TLS: connected to, but asked nothing.
    pub sealed: bool,
}

impl Target {
    /// `None`: it is asked nothing, because it does not run, or because that was wished, or because it has neither a
    /// port nor an engine that will open one.
    pub fn of(member: &Member, config: &EngineConfig) -> Option<Self> {
        let spec = &member.spec;
        let footing = member.footing.as_ref().filter(|_| member.state == WorkerState::Running)?;
        let told = match spec.probe() {
            Probe::None => return None,
            Probe::Unspecified | Probe::Auto => None,
            Probe::LlamaCpp => Some(Engine::LlamaCpp),
            Probe::Vllm => Some(Engine::Vllm),
            Probe::Sglang => Some(Engine::Sglang),
            Probe::Tgi => Some(Engine::Tgi),
            Probe::Ollama => Some(Engine::Ollama),
        };
        let guess = told.map_or_else(|| guess(&spec.command), |engine| Some(Guess::told(engine, &spec.command)));
        let endpoint = spec.endpoint.as_ref();
        let port = endpoint.and_then(|endpoint| u16::try_from(endpoint.port).ok()).filter(|port| *port > 0);
        let opens_one = told.is_some() || guess.is_some_and(|guess| guess.direct);
        if port.is_none() && !opens_one {
            return None;
        }
        let elsewhere = |host: &&str| !host.is_empty() && *host != config.advertise;
        Some(Self {
            incarnation: (footing.pid, footing.start_ticks),
            guess,
            port,
            host: endpoint.map(|endpoint| endpoint.host.as_str()).filter(elsewhere).map(str::to_owned),
            sealed: endpoint.is_some_and(|endpoint| endpoint.scheme == "https"),
        })
    }

    /// Its claim to the port, when that is one of this machine.
    pub fn claim(&self, member: &Member, config: &EngineConfig) -> Option<Claim> {
        let port = self.port.filter(|_| self.host.is_none())?;
        let spec = &member.spec;
        Some(Claim {
            proc_root: config.proc_root.clone(),
            name: format!("{}/{}/{}", spec.hive, spec.group, spec.instance),
            footing: member.footing.clone()?,
            observed: spec.origin() == Origin::Observed,
            port,
        })
    }

    /// Where to connect; `None` while no port is known.
    pub fn place(&self, config: &EngineConfig) -> Option<Place> {
        let root = config.proc_root.clone();
        let port = self.port?;
        Some(match &self.host {
            Some(host) => Place::at(host.clone(), port, root),
            None => Place::here(port, root),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::testing::member;
    use std::time::Duration;

    fn config() -> EngineConfig {
        EngineConfig { proc_root: "/proc".into(), advertise: "box.lan".into(), period: Duration::from_secs(1) }
    }

    fn worker(command: &str, endpoint: Option<(&str, &str, u32)>, probe: Probe) -> Member {
        let mut member = member(1, "llm", "a");
        member.spec.command = command.split(' ').map(str::to_owned).collect();
        member.spec.endpoint =
            endpoint.map(|(scheme, host, port)| proto::Endpoint { scheme: scheme.into(), host: host.into(), port });
        member.spec.probe = probe.into();
        member
    }

    fn target(command: &str, endpoint: Option<(&str, &str, u32)>, probe: Probe) -> Option<Target> {
        Target::of(&worker(command, endpoint, probe), &config())
    }

    #[test]
    fn a_worker_with_a_port_is_asked() {
        let found = target("serve", Some(("http", "box.lan", 8080)), Probe::Unspecified).unwrap();
        assert_eq!((found.port, found.host, found.guess, found.sealed), (Some(8080), None, None, false));
        let given = target("serve", Some(("https", "gpu.example", 443)), Probe::Auto).unwrap();
        assert_eq!((given.host.as_deref(), given.sealed), (Some("gpu.example"), true));
    }

    #[test]
    fn whoever_is_not_to_be_asked_is_not() {
        let port = Some(("http", "box.lan", 8080));
        assert_eq!(target("llama-server", port, Probe::None), None);
        assert_eq!(target("sleep 300", None, Probe::Auto), None);
        assert_eq!(
            target("sh -c llama-server", None, Probe::Auto).map(|found| found.port),
            None,
            "perhaps in a container"
        );
        let mut ended = worker("llama-server", port, Probe::Auto);
        ended.footing = None;
        assert_eq!(Target::of(&ended, &config()), None);
        let mut stopping = worker("llama-server", port, Probe::Auto);
        stopping.state = WorkerState::Stopping;
        assert_eq!(Target::of(&stopping, &config()), None);
    }

    #[test]
    fn an_engine_without_a_port_is_known_to_be_coming() {
        for found in [target("llama-server -m x", None, Probe::Auto), target("wrapped", None, Probe::Vllm)] {
            assert_eq!(found.unwrap().port, None);
        }
    }

    #[test]
    fn what_is_learnt_from_an_engine_changes_nothing_about_asking_it() {
        let mut learnt = worker("llama-server", Some(("http", "box.lan", 1)), Probe::Auto);
        let before = Target::of(&learnt, &config());
        learnt.spec.model_names = vec!["m".into()];
        learnt.spec.engine = Engine::LlamaCpp.into();
        assert_eq!(Target::of(&learnt, &config()), before);
    }
}
