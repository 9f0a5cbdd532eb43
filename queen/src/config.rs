//! What a queen is told from outside.

use common::tls::TlsFiles;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Everything a queen needs to know. Only the command line makes one from the real environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens: gRPC, grpc-web and pages on one port. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows an address that other machines can reach although TLS or tokens are missing.
    pub insecure: bool,
    /// The certificate that is shown, and its key. Without one the port speaks in the clear.
    pub tls: Option<TlsFiles>,
    /// The directory of tokens. With one every call needs a token, whatever address it comes from.
    pub token_dir: Option<PathBuf>,
    /// How often the files of both are looked at.
    pub reread: Duration,
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
    /// Questions above this size, in bytes, are refused.
    pub max_request_bytes: usize,
    /// The most that the headers of one request may hold, in bytes.
    pub max_header_bytes: u32,
    /// The most workers one hive may report.
    pub max_workers: u32,
    /// The most hives that are known at once.
    pub max_hives: usize,
    /// The most watches that are open at once.
    pub max_watchers: usize,
    /// The most different filters and masks that are watched at once; watchers that want the same share one. Each
    /// costs about 100 bytes, and its masked bytes, for every object that it shows.
    pub max_watch_classes: usize,
    /// The most connections in all: a hive has two, one for its telemetry and one for its tunnel. Needs as many file
    /// descriptors.
    pub max_connections: usize,
    /// The most connections of one address; this machine itself is not counted.
    pub max_connections_per_address: usize,
    /// The most calls at once on one connection.
    pub max_streams: u32,
    /// The most bytes of answers that wait for their readers, of all connections over HTTP/2 together; watches and streams
    /// from hives, which have bounds of their own, are not counted.
    pub max_unread_bytes: usize,
    /// The most unary calls that run at once.
    pub max_calls: usize,
    /// The most reservations that are being made at once, those whose callers have left among them.
    pub max_reserving: usize,
    /// The most unary calls that are on their way to hives; a stop is one for as long as its grace lasts.
    pub max_hive_calls: usize,
    /// The most streams of logs and events from hives that are open at once; each may hold 64 KiB. Of one hive there are
    /// 128 at most, half of the calls that its tunnel carries.
    pub max_hive_streams: usize,
    /// The most hives that are attached, so that they can be called; the telemetry of further ones goes on.
    pub max_tunnels: usize,
    /// Further values of the Host header that are answered, with or without a port. Names in the certificate are
    /// answered anyway.
    pub allowed_hosts: Vec<String>,
    /// Where procfs is mounted: what the queen itself uses is read there.
    pub proc_root: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7833)),
            insecure: false,
            tls: None,
            token_dir: None,
            reread: Duration::from_secs(5),
            stale: Duration::from_secs(3),
            lost: Duration::from_secs(10),
            remove: Duration::from_secs(90),
            bookmark: Duration::from_millis(2_500),
            max_age: Duration::from_secs(3),
            grace: Duration::from_secs(5),
            max_frame_bytes: 4 * 1024 * 1024,
            max_request_bytes: 64 * 1024,
            max_header_bytes: 16 * 1024,
            max_workers: 10_000,
            max_hives: 20_000,
            max_watchers: 1_000,
            max_watch_classes: 64,
            // Two for each hive, and some thousands of others.
            max_connections: 49_152,
            max_connections_per_address: 1_024,
            max_streams: 256,
            max_unread_bytes: 256 * 1024 * 1024,
            max_calls: 1_024,
            max_reserving: 512,
            max_hive_calls: 1_024,
            max_hive_streams: 1_024,
            max_tunnels: 20_000,
            allowed_hosts: Vec::new(),
            proc_root: "/proc".into(),
        }
    }
}
