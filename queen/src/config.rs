//! What a queen is told from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Everything a queen needs to know. Only the command line makes one from the real environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens: gRPC, grpc-web and pages on one port. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows an address that other machines can reach although there is neither TLS nor a token.
    pub insecure: bool,
    /// A sample older than this makes its worker STALE.
    pub stale: Duration,
    /// A sample older than this makes its worker LOST.
    pub lost: Duration,
    /// A hive that has been silent for longer than this is removed with its workers.
    pub remove: Duration,
    /// From one bookmark of a watch to the next.
    pub bookmark: Duration,
    /// Finds leave out workers whose last good sample is older, unless the caller says otherwise.
    pub max_age: Duration,
    /// For this long after its start a queen says that it may not know yet, where it cannot be sure.
    pub grace: Duration,
    /// Frames above this size, in bytes, are refused. Hives cut their snapshots into chunks far below it.
    pub max_frame_bytes: usize,
    /// The most workers one hive may report.
    pub max_workers: u32,
    /// The most hives that are known at once.
    pub max_hives: usize,
    /// The most watches that are open at once.
    pub max_watchers: usize,
    /// The most different filters and masks that are watched at once; watchers that want the same share one. Each
    /// costs about 100 bytes, and its masked bytes, for every object that it shows.
    pub max_watch_classes: usize,
    /// Further values of the Host header that are answered, with or without a port.
    pub allowed_hosts: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7833)),
            insecure: false,
            stale: Duration::from_secs(3),
            lost: Duration::from_secs(10),
            remove: Duration::from_secs(90),
            bookmark: Duration::from_millis(2_500),
            max_age: Duration::from_secs(3),
            grace: Duration::from_secs(5),
            max_frame_bytes: 4 * 1024 * 1024,
            max_workers: 10_000,
            max_hives: 20_000,
            max_watchers: 1_000,
            max_watch_classes: 64,
            allowed_hosts: Vec::new(),
        }
    }
}
