//! The agent. `worker/` keeps workers alive, `sample/` measures them, `rpc/` talks; they share only the words in
//! `roster` and `round`, and [`Hive`] joins them.

#[cfg(not(unix))]
compile_error!("the hive knows processes, signals and sockets as Unix has them; there is none for this system");

mod about;
mod config;
mod gpu_news;
pub mod gpus;
pub mod host;
pub mod ledger;
pub mod roster;
pub mod round;
pub mod rpc;
pub mod sample;
pub mod templates;
pub mod worker;

pub use config::Config;

use about::{About, News};
use gpus::GpuView;
use host::{HostConfig, HostView};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rpc::services::{Caller, Services};
use rpc::socket::{self, SocketError};
use rpc::tunnel::{IDLE, Served, Tunnel};
use rpc::uplink::{Sources, Uplink};
use sample::gpu::{self, GpuConfig};
use sample::{SampleConfig, Sampling};
use std::sync::Arc;
use templates::Templates;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use worker::{Claim, Life, LifeConfig, OpenError};

/// Why a hive cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum HiveError {
    /// Its slice, state directory or records.
    #[error("open the slice")]
    Open(#[source] OpenError),
    /// Its unix socket.
    #[error("listen on the unix socket")]
    Socket(#[source] SocketError),
    /// Its sampling thread.
    #[error("start the sampling thread")]
    Sampling(#[source] std::io::Error),
}

/// A hive that owns its slice and has taken its workers over.
pub struct Hive {
    config: Config,
    life: Life,
    /// What is known of the GPUs: the feed writes it, sampling and the lives of workers read it.
    gpus: watch::Sender<Arc<GpuView>>,
    listener: UnixListener,
    stopping: CancellationToken,
}

impl Hive {
    /// Locks the state directory and binds the socket; then locks the slice and adopts the workers in it. A start that
    /// is refused has touched nothing of another hive's. `stopping` ends everything that follows.
    pub async fn open(config: Config, stopping: CancellationToken) -> Result<Self, HiveError> {
        raise_open_files();
        let life = LifeConfig {
            hive: config.id.clone(),
            advertise: config.advertise.clone(),
            state_dir: config.state_dir.clone(),
            slice: config.slice.clone(),
            cgroup_root: config.cgroup_root.clone(),
            proc_root: config.proc_root.clone(),
            gpu_lock_dir: config.gpu_lock_dir.clone(),
        };
        let gpus = watch::Sender::default();
        let claim = Claim::take(&life).await.map_err(HiveError::Open)?;
        let listener = socket::bind(&config.socket).await.map_err(HiveError::Socket)?;
        let opened = Life::open_claimed(claim, life, gpus.subscribe(), stopping.clone()).await;
        let life = opened.map_err(|error| {
            socket::unbind(&config.socket);
            HiveError::Open(error)
        })?;
        life.begin_observing(config.observe.clone());
        Ok(Self { config, life, gpus, listener, stopping })
    }

    /// The workers of this hive.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Samples, reports and serves until stopped. Its workers run on.
    pub async fn run(self) -> Result<(), HiveError> {
        let Self { config, life, gpus, listener, stopping } = self;
        let gpu = GpuConfig {
            program: config.program.clone(),
            nvml_library: config.nvml_library.clone(),
            nvidia_smi: config.nvidia_smi.clone(),
            state_dir: config.state_dir.clone(),
            period: config.period,
            proc_root: config.proc_root.clone(),
        };
        let (gpu_events, gpu_news) = mpsc::channel(gpu::EVENTS_WAITING);
        let (gpu_views, about_gpus) = (gpus.subscribe(), gpus.subscribe());
        let gpu_task = gpu::feed(gpu, gpus, gpu_events, stopping.clone());
        let sample = SampleConfig {
            proc_root: config.proc_root.clone(),
            advertise: config.advertise.clone(),
            period: config.period,
        };
        let (Sampling { rounds, mut findings }, sampling) =
            sample::start(sample, life.roster(), gpu_views, stopping.clone()).map_err(HiveError::Sampling)?;
        let templates = Arc::new(Templates::new(config.template_dir.clone()));
        let about = About::new(&config, &life, templates.clone());
        let sources = Sources { roster: life.roster(), rounds: rounds.clone(), hive: about.subscribe() };

        let mut tasks = JoinSet::new();
        let journal = life.journal().id().to_owned();
        let uplink = |url: &String| Uplink::new(url.clone(), config.access.clone(), journal.clone(), sources.clone());
        let uplinks = config.queens.iter().map(uplink);
        let uplinks: Vec<Uplink> = uplinks.collect();
        let services = services(&life, templates, &about, &uplinks, &stopping);
        let called = services.clone();
        let served: Served = Arc::new(move || called.routes(Caller::Network));
        for (url, uplink) in config.queens.iter().zip(uplinks) {
            let tunnel = Tunnel::new(url.clone(), config.access.clone(), uplink.opened(), served.clone(), IDLE);
            tasks.spawn(uplink.run(stopping.clone()));
            tasks.spawn(tunnel.run(stopping.clone()));
        }
        let host: watch::Sender<Arc<HostView>> = watch::Sender::default();
        let news = News { rounds, gpus: about_gpus, host: host.subscribe(), grants: life.grants() };
        tasks.spawn(gpu_news::write_down(gpu_news, life.clone()));
        let lives = life.clone();
        let held = move |view: &Arc<GpuView>| lives.held(view);
        tasks.spawn(about.follow(news, held, stopping.clone()));
        tasks.spawn(host::run(host_config(&config), life.roster(), host, stopping.clone()));
        let learning = life.clone();
        tasks.spawn(async move {
            while let Some(finding) = findings.recv().await {
                learning.learn(finding);
            }
        });
        tasks.spawn(socket::serve(services.routes(Caller::Local), listener, stopping.clone()));

        while tasks.join_next().await.is_some() {}
        sampling.ended().await;
        if let Err(error) = gpu_task.await {
            tracing::error!(%error, "the gpu feed ended badly");
        }
        life.closed().await;
        Ok(())
    }
}

/// What is answered here, on the unix socket and in the tunnels.
fn services(
    life: &Life,
    templates: Arc<Templates>,
    about: &About,
    uplinks: &[Uplink],
    stopping: &CancellationToken,
) -> Services {
    let links: Vec<_> = uplinks.iter().map(Uplink::state).collect();
    let about = about.clone();
    let describe = Arc::new(move || about.describe(&links));
    Services { life: life.clone(), templates, about: describe, stopping: stopping.clone() }
}

fn host_config(config: &Config) -> HostConfig {
    HostConfig {
        proc_root: config.proc_root.clone(),
        sys_root: config.sys_root.clone(),
        state_dir: config.state_dir.clone(),
    }
}

/// As many open files as the hard limit allows: a sampled worker keeps a handful open. Workers get the limit that the
/// hive itself was started with.
fn raise_open_files() {
    worker::remember_open_files();
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

#[cfg(test)]
mod tests;
