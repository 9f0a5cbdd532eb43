//! One file per verb that asks a queen or a hive and prints what it says.

mod completions;
mod config;
mod describe;
mod drain;
mod events;
mod explain;
mod find;
mod forget;
mod gpus;
pub mod hives;
mod idle;
mod logs;
mod models;
mod observe;
pub mod ps;
mod release;
mod reservations;
mod reserve;
mod restart;
mod run;
mod start;
mod stop;
mod templates;
mod version;
mod watch;

pub use run::parse_endpoint;
pub use version::VERSION;

use crate::args::{Global, Verb};
use crate::failure::Failure;
use crate::{demo, doctor, serve, simulate};
use common::link::Channel;

/// A client of the hive here.
pub type HiveClient = proto::worker_service_client::WorkerServiceClient<Channel>;

/// Does what was asked for.
pub async fn run(global: &Global, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Up(args) => serve::up(global, *args).await,
        Verb::Queen(args) => serve::queen::run(args).await,
        Verb::Hive(args) => serve::hive(global, args).await,
        Verb::Run(args) => run::run(global, *args).await,
        Verb::Start(args) => start::run(global, args).await,
        Verb::Templates(args) => templates::run(global, &args).await,
        Verb::Observe(args) => observe::run(global, args).await,
        Verb::Ps(args) => ps::run(global, &args).await,
        Verb::Hives => hives::run(global).await,
        Verb::Gpus => gpus::run(global).await,
        Verb::Models(args) => models::run(global, &args).await,
        Verb::Describe(args) => describe::run(global, &args.name).await,
        Verb::Idle(args) => idle::run(global, &args).await,
        Verb::Find(args) => find::run(global, &args).await,
        Verb::Reserve(args) => reserve::run(global, &args).await,
        Verb::Renew(args) => reserve::renew(global, &args).await,
        Verb::Release(args) => release::run(global, &args).await,
        Verb::Reservations => reservations::run(global).await,
        Verb::Forget(args) => forget::run(global, &args).await,
        Verb::Watch(args) => watch::run(global, args).await,
        Verb::Events(args) => events::run(global, &args).await,
        Verb::Logs(args) => logs::run(global, &args).await,
        Verb::Stop(args) => stop::run(global, &args).await,
        Verb::Restart(args) => restart::run(global, &args).await,
        Verb::Drain(args) => drain::run(global, &args, true).await,
        Verb::Undrain(args) => drain::run(global, &args, false).await,
        Verb::Doctor => doctor::run(global).await,
        Verb::Config(args) => config::run(global, &args.verb),
        Verb::Simulate(args) => simulate::run(global, args).await,
        Verb::Version => version::run(global),
        Verb::Completions(args) => completions::run(args.shell),
        Verb::DemoWorker(args) => demo::run(&args),
        Verb::GpuProbe(args) => serve::gpu_probe(&args),
    }
}
