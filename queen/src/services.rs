//! Every service on one router: gRPC, grpc-web over HTTP/1.1 and HTTP/2, reflection, health, and the pages beside
//! them.

use crate::guard::{self, Guard};
use crate::page;
use crate::rpc::bounded::Bounded;
use crate::rpc::fleet::Looking;
use crate::rpc::push::PushFirst;
use crate::rpc::scheduler::Scheduler;
use crate::rpc::telemetry::Ingest;
use crate::rpc::watch::WatchFirst;
use crate::rpc::{REQUEST_BYTES, Shared};
use axum::Router;
use proto::fleet_service_server::FleetServiceServer;
use proto::hive_service_server::HiveServiceServer;
use proto::scheduler_service_server::SchedulerServiceServer;
use std::sync::Arc;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;
use tonic_reflection::server::Builder;
use tonic_web::GrpcWebLayer;

/// The router.
pub async fn router(shared: Shared, guard: Guard) -> Result<Router, tonic_reflection::server::Error> {
    let ingest =
        HiveServiceServer::new(Ingest::new(shared.clone())).max_decoding_message_size(shared.config.max_frame_bytes);
    let ingest = PushFirst::new(ingest, shared.clone());
    let looking = FleetServiceServer::new(Looking::new(shared.clone())).max_decoding_message_size(REQUEST_BYTES);
    let looking = Bounded::new(looking);
    let scheduler =
        SchedulerServiceServer::new(Scheduler::new(shared.clone())).max_decoding_message_size(REQUEST_BYTES);
    let scheduler = Bounded::new(scheduler);
    let (reporter, health) = health_reporter();
    let names = [
        proto::hive_service_server::SERVICE_NAME,
        proto::fleet_service_server::SERVICE_NAME,
        proto::scheduler_service_server::SERVICE_NAME,
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
        .add_service(WatchFirst::new(looking, shared))
        .add_service(scheduler)
        .add_service(health)
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?)
        .into_axum_router()
        .reset_fallback()
        .layer(GrpcWebLayer::new());
    let checked = axum::middleware::from_fn_with_state(Arc::new(guard), guard::check);
    Ok(page::pages().merge(grpc).layer(checked))
}
