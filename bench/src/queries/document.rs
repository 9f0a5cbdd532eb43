//! The document's registry: a map of hives under one lock, every find a clone of everything that is then filtered.

use super::Being;
use crate::fleet::Worker;
use std::collections::HashMap;
use std::sync::RwLock;

/// Megabytes of every GPU, as the document assumes them.
const TOTAL_VRAM_MB: u64 = 24_576;

/// Its workers.
pub struct Document {
    workers: RwLock<HashMap<String, Vec<Worker>>>,
}

impl Document {
    pub fn new(beings: &[Being]) -> Self {
        let mut workers: HashMap<String, Vec<Worker>> = HashMap::new();
        for being in beings {
            workers.entry(format!("hive-{:05}", being.hive)).or_default().push(Worker {
                pid: 1_000 + being.slot as u32,
                group: "llm".to_owned(),
                instance: format!("{}", 8_080 + being.slot),
                cpu_pct: 12.5,
                rss_mb: 4_096,
                io_r_mb_s: 0.0,
                io_w_mb_s: 0.0,
                uptime_s: 3_600,
                gpu_util_pct: if being.idle { 0.0 } else { 55.0 },
                vram_mb: being.vram_used >> 20,
                total_vram_mb: TOTAL_VRAM_MB,
                model: Some(format!("model-{}", being.model)),
            });
        }
        Self { workers: RwLock::new(workers) }
    }

    fn all(&self) -> Vec<Worker> {
        self.workers.read().expect("nobody panicked").values().flat_map(|workers| workers.clone()).collect()
    }

    pub fn find_idle(&self) -> Vec<Worker> {
        self.all().into_iter().filter(|worker| worker.gpu_util_pct == 0.0).collect()
    }

    pub fn find_with_model(&self, model: &str) -> Vec<Worker> {
        self.all().into_iter().filter(|worker| worker.model.as_deref() == Some(model)).collect()
    }

    pub fn find_with_capacity(&self, megabytes: u64) -> Vec<Worker> {
        self.all().into_iter().filter(|worker| worker.vram_mb + megabytes < TOTAL_VRAM_MB).collect()
    }

    /// What the document does not have, written as its other finds could be at their best: nothing is cloned.
    pub fn best_fit(&self, megabytes: u64) -> Option<(String, u32)> {
        let workers = self.workers.read().expect("nobody panicked");
        let mut best: Option<(u64, &String, u32)> = None;
        for (hive, worker) in workers.iter().flat_map(|(hive, all)| all.iter().map(move |worker| (hive, worker))) {
            let free = worker.total_vram_mb - worker.vram_mb;
            if free >= megabytes && best.is_none_or(|(least, ..)| free < least) {
                best = Some((free, hive, worker.pid));
            }
        }
        best.map(|(_, hive, pid)| (hive.clone(), pid))
    }
}
