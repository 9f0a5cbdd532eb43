//! The hive's own record: what this machine is and how well it does, kept current from the rounds, the GPUs and the looks
//! at the machine.

mod gpus;

use crate::config::Config;
use crate::gpus::GpuView;
use crate::host::HostView;
use crate::ledger::{Granted, Held};
use crate::round::Round;
use crate::rpc::uplink::LinkState;
use crate::templates::Templates;
use crate::worker::Life;
use gpus::Listed;
use proto::{HealthStatus, OperationalStatus};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the record is kept current from.
pub struct News {
    /// Rounds of samples.
    pub rounds: watch::Receiver<Arc<Round>>,
    /// What is known of the GPUs.
    pub gpus: watch::Receiver<Arc<GpuView>>,
    /// Looks at the machine.
    pub host: watch::Receiver<Arc<HostView>>,
    /// What is granted.
    pub grants: watch::Receiver<Arc<Granted>>,
}

/// The record, and whoever waits for it to change.
#[derive(Clone)]
pub struct About {
    record: Arc<watch::Sender<Arc<proto::Hive>>>,
    reasons: Arc<Vec<String>>,
    state_dir: Arc<str>,
    templates: Arc<Templates>,
    draining: watch::Receiver<bool>,
}

impl About {
    /// The record of a hive that has just opened. What it granted before is in it: what is held must not look free until
    /// the first round is over.
    pub fn new(config: &Config, life: &Life, templates: Arc<Templates>) -> Self {
        let (draining, held) = (life.draining_changes(), life.held(&Arc::default()));
        let record = proto::Hive {
            id: config.id.to_string(),
            hostname: config.hostname.clone(),
            advertise: config.advertise.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            operational_status: status(*draining.borrow()).into(),
            health_status: HealthStatus::Healthy.into(),
            boot_id: life.boot_id().to_owned(),
            slice: config.slice.clone(),
            socket: config.socket.display().to_string(),
            labels: config.labels.clone().into_iter().collect(),
            placement_level: life.placement_level().into(),
            cpu_count: std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            memory_total_bytes: memory_total(&config.proc_root.join("meminfo")),
            kernel: kernel(),
            remote_start: templates.is_on(),
            holds: held.holds,
            last_fencing_token: held.last_token,
            aborted_reservations: held.aborted,
            ..proto::Hive::default()
        };
        let reasons = life.placement_reasons();
        let record = proto::Hive { health_reasons: reasons.clone(), ..record };
        let record = Arc::new(watch::Sender::new(Arc::new(record)));
        let state_dir = config.state_dir.display().to_string().into();
        Self { record, reasons: Arc::new(reasons), state_dir, templates, draining }
    }

    /// The record, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Arc<proto::Hive>> {
        self.record.subscribe()
    }

    /// Keeps the record current until stopped. `held` tells what is granted, and how many bytes of each GPU are not used
    /// yet.
    pub async fn follow(
        mut self,
        mut news: News,
        held: impl Fn(&Arc<GpuView>) -> Held + Send,
        stopping: CancellationToken,
    ) {
        let mut listed = Listed::default();
        loop {
            tokio::select! {
                changed = news.rounds.changed() => if changed.is_err() { return },
                () = changed(&mut news.host) => {}
                () = changed(&mut self.draining) => {}
                () = changed(&mut news.grants) => {}
                () = stopping.cancelled() => return,
            }
            let round = news.rounds.borrow_and_update().clone();
            let host = news.host.borrow_and_update().clone();
            let view = news.gpus.borrow().clone();
            self.update(&round, &view, &host, held(&view), &mut listed);
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
            state_dir: self.state_dir.to_string(),
        }
    }

    /// Whoever waits is told only if something is new.
    fn update(&self, round: &Round, view: &GpuView, host: &HostView, held: Held, listed: &mut Listed) {
        // What costs truth or work, then what this machine cannot offer.
        let mut troubles = listed.troubles(round.gpu_state, view);
        troubles.extend(round.failed.iter().map(|why| format!("the last round of samples failed: {why}")));
        troubles.extend(host.troubles.iter().cloned());
        let health = if troubles.is_empty() { HealthStatus::Healthy } else { HealthStatus::Degraded };
        let lacks = [self.reasons.as_slice(), &view.round.notes, &host.untold];
        troubles.extend(lacks.into_iter().flatten().cloned());
        self.record.send_if_modified(|record| {
            let mut next = record.as_ref().clone();
            next.gpus.clone_from(&round.gpus);
            if next.host == host.stats {
                keep_warmth(&mut next.gpus, &record.gpus);
            }
            for gpu in &mut next.gpus {
                gpu.held_bytes = held.bytes.get(&gpu.uuid).copied().unwrap_or(0);
            }
            next.holds = held.holds;
            next.last_fencing_token = held.last_token;
            next.aborted_reservations = held.aborted;
            next.gpu_sample_state = round.gpu_state.into();
            next.gpu_driver_version.clone_from(&view.round.driver_version);
            next.host.clone_from(&host.stats);
            next.cpu_count = host.cpus.unwrap_or(next.cpu_count);
            next.health_reasons = troubles;
            next.health_status = health.into();
            next.operational_status = status(*self.draining.borrow()).into();
            next.remote_start = self.templates.is_on();
            let news = next != **record;
            if news {
                *record = Arc::new(next);
            }
            news
        });
    }
}

/// Temperature and power move with every look and decide nothing: they are renewed with the numbers of the machine, so
/// that they alone do not send the whole record each second.
fn keep_warmth(gpus: &mut [proto::Gpu], told: &[proto::Gpu]) {
    for gpu in gpus {
        let Some(told) = told.iter().find(|told| told.uuid == gpu.uuid) else { continue };
        gpu.temperature_celsius = gpu.temperature_celsius.and(told.temperature_celsius.or(gpu.temperature_celsius));
        gpu.power_watts = gpu.power_watts.and(told.power_watts.or(gpu.power_watts));
    }
}

fn status(draining: bool) -> OperationalStatus {
    if draining { OperationalStatus::Draining } else { OperationalStatus::Ready }
}

/// Waits for news; for ever when nobody tells any more.
async fn changed<T>(news: &mut watch::Receiver<T>) {
    if news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// "Linux 6.1.0-28-cloud-amd64"; empty where the system does not say.
fn kernel() -> String {
    let told = nix::sys::utsname::uname();
    told.map_or_else(
        |_| String::new(),
        |name| format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
    )
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn memory_total(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests;
