//! The hive's own record: what this machine is and how well it does, kept current from the rounds.

use crate::config::Config;
use crate::round::Round;
use crate::rpc::uplink::LinkState;
use crate::worker::Life;
use proto::{HealthStatus, OperationalStatus};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The record, and whoever waits for it to change.
#[derive(Clone)]
pub struct About {
    record: Arc<watch::Sender<Arc<proto::Hive>>>,
    reasons: Arc<Vec<String>>,
}

impl About {
    /// The record of a hive that has just opened.
    pub fn new(config: &Config, life: &Life) -> Self {
        let record = proto::Hive {
            id: config.id.to_string(),
            hostname: config.hostname.clone(),
            advertise: config.advertise.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            operational_status: OperationalStatus::Ready.into(),
            health_status: HealthStatus::Healthy.into(),
            boot_id: life.boot_id().to_owned(),
            slice: config.slice.clone(),
            socket: config.socket.display().to_string(),
            labels: config.labels.clone().into_iter().collect(),
            placement_level: life.placement_level().into(),
            cpu_count: std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory_total_bytes: memory_total(&config.proc_root.join("meminfo")),
            ..proto::Hive::default()
        };
        let about = Self {
            record: Arc::new(watch::Sender::new(Arc::new(record))),
            reasons: Arc::new(life.placement_reasons()),
        };
        about.update(&[], proto::GpuSampleState::Unspecified, None);
        about
    }

    /// The record, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Arc<proto::Hive>> {
        self.record.subscribe()
    }

    /// Keeps the record current until stopped.
    pub async fn follow(self, mut rounds: watch::Receiver<Arc<Round>>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                changed = rounds.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => return,
            }
            let round = rounds.borrow_and_update().clone();
            self.update(&round.gpus, round.gpu_state, round.failed.as_deref());
        }
    }

    /// What a caller on this machine is told.
    pub fn describe(&self, links: &[watch::Receiver<LinkState>]) -> proto::DescribeHiveResponse {
        let link = |state: &watch::Receiver<LinkState>| {
            let state = state.borrow();
            proto::QueenLink {
                url: state.url.clone(),
                connected: state.connected,
                error: state.error.clone().unwrap_or_default(),
            }
        };
        proto::DescribeHiveResponse {
            hive: Some(self.record.borrow().as_ref().clone()),
            pid: std::process::id(),
            queens: links.iter().map(link).collect(),
        }
    }

    fn update(&self, gpus: &[proto::Gpu], state: proto::GpuSampleState, failed: Option<&str>) {
        let mut reasons = self.reasons.as_ref().clone();
        match state {
            proto::GpuSampleState::Timeout => reasons.push("the GPU driver has not answered for 10 s".to_owned()),
            proto::GpuSampleState::Error => reasons.push("the GPU driver answers with errors".to_owned()),
            _ => {}
        }
        let degraded = failed.is_some() || reasons.len() > self.reasons.len();
        reasons.extend(failed.map(|why| format!("the last round of samples failed: {why}")));
        let health = if degraded { HealthStatus::Degraded } else { HealthStatus::Healthy };
        self.record.send_if_modified(|record| {
            let same = record.gpus == gpus
                && record.gpu_sample_state == i32::from(state)
                && record.health_reasons == reasons
                && record.health_status == i32::from(health);
            if !same {
                let record = Arc::make_mut(record);
                record.gpus = gpus.to_vec();
                record.gpu_sample_state = state.into();
                record.health_reasons = reasons;
                record.health_status = health.into();
            }
            !same
        });
    }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn memory_total(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
