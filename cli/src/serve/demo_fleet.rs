//! The demo workers of `rbee up`: started, recognised again after a restart, and ended.

use common::WorkerId;
use std::path::Path;

/// Their group.
pub const GROUP: &str = "demo";
/// What they pretend to serve, in turn.
const MODELS: [&str; 3] = ["llama-3.2-1b", "qwen3-8b", "mistral-7b"];
/// The hidden verb that they run.
const VERB: &str = "demo-worker";

/// What to ask for the demo worker number `index`, from 0. It is the same on every start, so that a worker that an
/// earlier `up` left behind can be taken over.
pub fn request(index: u32, program: &str, lock: &Path) -> proto::StartWorkerRequest {
    let model = MODELS[index as usize % MODELS.len()];
    let lock = lock.display().to_string();
    let command = [program, VERB, "--lock", &lock, "--profile", &index.to_string(), "--model", model];
    proto::StartWorkerRequest {
        group: GROUP.to_owned(),
        instance: (index + 1).to_string(),
        command: command.map(str::to_owned).to_vec(),
        working_directory: "/".to_owned(),
        model: Some(model.to_owned()),
        take_over: true,
        ..Default::default()
    }
}

/// Whether a worker is one of ours, whoever of us started it.
pub fn is_demo(id: &WorkerId, spec: &proto::WorkerSpec) -> bool {
    id.group() == GROUP && spec.command.get(1).is_some_and(|verb| verb == VERB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_workers_differ_and_are_recognised() {
        let [first, second] = [0, 1].map(|index| request(index, "/bin/rbee", Path::new("/s/rbee.slice.lock")));
        assert_ne!(first.model, second.model);
        assert_eq!(first.instance, "1");
        assert_eq!(first, request(0, "/bin/rbee", Path::new("/s/rbee.slice.lock")));
        let spec = proto::WorkerSpec { command: first.command, ..Default::default() };
        assert!(is_demo(&WorkerId::new("demo", "1").unwrap(), &spec));
        assert!(!is_demo(&WorkerId::new("llm", "1").unwrap(), &spec));
        let own = proto::WorkerSpec { command: vec!["python3".into()], ..Default::default() };
        assert!(!is_demo(&WorkerId::new("demo", "1").unwrap(), &own), "a worker that somebody put into our group");
    }
}
