//! Whether the queen has what there is: every hive, every worker, each with its model, and nothing else.

use common::link::Channel;
use proto::fleet_service_client::FleetServiceClient;
use proto::{ListHivesRequest, ListWorkersRequest};
use std::collections::BTreeMap;
use tonic::Status;

/// The most that a page holds.
const PAGE: i32 = 10_000;
/// So many names are told of what is wrong.
const SHOWN: usize = 5;

/// What the queen says there is, of hives whose name begins with `prefix`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Hives.
    pub hives: usize,
    /// Workers by name, with their models.
    pub workers: BTreeMap<String, String>,
}

impl Roll {
    /// Asks for everything.
    pub async fn call(client: &mut FleetServiceClient<Channel>, prefix: &str) -> Result<Self, Status> {
        let mut roll = Self::default();
        let mut hives = ListHivesRequest { page_size: PAGE, ..ListHivesRequest::default() };
        loop {
            let page = client.list_hives(hives.clone()).await?.into_inner();
            roll.hives += page.hives.iter().filter(|hive| hive.id.starts_with(prefix)).count();
            hives.page_token = page.next_page_token;
            if hives.page_token.is_empty() {
                break;
            }
        }
        let mut workers = ListWorkersRequest { page_size: PAGE, ..ListWorkersRequest::default() };
        loop {
            let page = client.list_workers(workers.clone()).await?.into_inner();
            for spec in page.workers.into_iter().filter_map(|worker| worker.spec) {
                if spec.hive.starts_with(prefix) {
                    let name = format!("{}/{}/{}", spec.hive, spec.group, spec.instance);
                    roll.workers.insert(name, spec.model.unwrap_or_default());
                }
            }
            workers.page_token = page.next_page_token;
            if workers.page_token.is_empty() {
                return Ok(roll);
            }
        }
    }

    /// What differs from what there is; empty when nothing does.
    pub fn faults(&self, hives: usize, workers: &BTreeMap<String, String>) -> Vec<String> {
        let mut faults = Vec::new();
        if self.hives != hives {
            faults.push(format!("the queen knows {} hives of {hives}", self.hives));
        }
        let differs = |name: &&String| self.workers.get(*name) != workers.get(*name);
        let missing: Vec<&String> = workers.keys().filter(|name| !self.workers.contains_key(*name)).collect();
        let extra: Vec<&String> = self.workers.keys().filter(|name| !workers.contains_key(*name)).collect();
        let old: Vec<&String> =
            self.workers.keys().filter(|name| workers.contains_key(*name)).filter(differs).collect();
        for (words, names) in [("missing", missing), ("gone, and still there", extra), ("another model", old)] {
            if !names.is_empty() {
                let few: Vec<&str> = names.iter().take(SHOWN).map(|name| name.as_str()).collect();
                faults.push(format!("{} workers {words}: {} …", names.len(), few.join(", ")));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(names: &[(&str, &str)]) -> BTreeMap<String, String> {
        names.iter().map(|(name, model)| ((*name).to_owned(), (*model).to_owned())).collect()
    }

    #[test]
    fn a_worker_that_is_missing_left_behind_or_old_is_found() {
        let there = workers(&[("a/llm/1", "m"), ("a/llm/2", "m")]);
        let roll = |names: &[(&str, &str)], hives| Roll { hives, workers: workers(names) };
        assert!(roll(&[("a/llm/1", "m"), ("a/llm/2", "m")], 1).faults(1, &there).is_empty());
        assert_eq!(roll(&[("a/llm/1", "m")], 1).faults(1, &there).len(), 1);
        assert_eq!(roll(&[("a/llm/1", "m"), ("a/llm/2", "x"), ("a/llm/3", "m")], 2).faults(1, &there).len(), 3);
    }
}
