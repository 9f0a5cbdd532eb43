//! Every service on one router: gRPC, grpc-web over HTTP/1.1 and HTTP/2, reflection, health, and the pages beside
//! them.

use crate::bound::Bounds;
use crate::guard::{self, Guard};
use crate::metrics::{self, Calls, Metrics};
use crate::page;
use crate::rpc::Shared;
use crate::rpc::bounded::Bounded;
use crate::rpc::browsers;
use crate::rpc::first::First;
use crate::rpc::fleet::Looking;
use crate::rpc::forward;
use crate::rpc::push::{self, PushTelemetry};
use crate::rpc::scheduler::Scheduler;
use crate::rpc::telemetry::Ingest;
use crate::rpc::watch::Watch;
use axum::Router;
use proto::fleet_service_server::FleetServiceServer;
use proto::hive_service_server::HiveServiceServer;
use proto::scheduler_service_server::SchedulerServiceServer;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;
use tonic_reflection::server::Builder;

/// What stands around the services.
#[derive(Debug)]
pub struct Around {
    /// Who may ask.
    pub guard: Guard,
    /// How many may ask at once.
    pub bounds: Bounds,
    /// Counts them.
    pub calls: Calls,
    /// Shows the counts.
    pub metrics: Metrics,
}

/// Register, and what Attach begins with, are answered within this: longer than a tunnel waits for what its hive says first.
const REGISTERED: Duration = Duration::from_secs(6);

/// The router.
pub async fn router(shared: Shared, around: Around) -> Result<Router, tonic_reflection::server::Error> {
    let Around { guard, bounds, calls, metrics } = around;
    let largest = shared.config.max_request_bytes;
    let frames = push::decoded(&shared.config);
    let ingest = HiveServiceServer::new(Ingest::new(shared.clone())).max_decoding_message_size(frames);
    let ingest = Bounded::lasting(ingest, frames, &bounds).begins_within(REGISTERED);
    let ingest = First::new(ingest, PushTelemetry::new(shared.clone()));
    let looking = FleetServiceServer::new(Looking::new(shared.clone())).max_decoding_message_size(largest);
    let looking = Bounded::unary(looking, &bounds);
    let scheduler = SchedulerServiceServer::new(Scheduler::new(shared.clone())).max_decoding_message_size(largest);
    let scheduler = Bounded::unary(scheduler, &bounds);
    let (reporter, health) = health_reporter();
    let names = [
        proto::hive_service_server::SERVICE_NAME,
        proto::fleet_service_server::SERVICE_NAME,
        proto::scheduler_service_server::SERVICE_NAME,
        proto::worker_service_server::SERVICE_NAME,
    ];
    for name in names {
        reporter.set_service_status(name, ServingStatus::Serving).await;
    }
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let grpc = Routes::new(ingest)
        .add_service(Bounded::lasting(forward::service(shared.clone(), &bounds), largest, &bounds))
        .add_service(First::new(looking, Watch::new(shared, bounds.request_bytes)))
        .add_service(scheduler)
        .add_service(health)
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?)
        .into_axum_router()
        .reset_fallback()
        .layer(axum::middleware::from_fn_with_state(calls, metrics::count))
        .layer(axum::middleware::from_fn(browsers::speak));
    let checked = axum::middleware::from_fn_with_state(Arc::new(guard), guard::check);
    Ok(page::pages(metrics).merge(grpc).layer(checked))
}
