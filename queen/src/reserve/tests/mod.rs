//! Reservations against hives made up for the purpose, over real connections.

mod choosing;
mod fake;
mod keeping;
mod keys;
mod two_steps;

use super::{Answered, Refused, Reserving, Ways, Wish};
use crate::Config;
use crate::bound::Bound;
use crate::fleet::Fleet;
use crate::fleet::sample::SECOND;
use crate::tunnel::NoTunnel;
use fake::FakeHive;
use proto::claim::What;
use proto::push_telemetry_request::Frame;
use proto::{Activity, Claim, ProcessStats, PushTelemetryRequest, RegisterRequest, ReserveRequest, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often something is looked at that sends no event.
const LOOK: Duration = Duration::from_millis(5);

/// A queen without a port: she knows what she is told, and reaches some hives.
struct Queen {
    fleet: Arc<Fleet>,
    reserving: Arc<Reserving>,
}

impl Queen {
    /// One that has been running for longer than she needs to know everything.
    fn new(hives: &[FakeHive]) -> Self {
        Self::started(hives, Instant::now().checked_sub(Config::default().grace).unwrap())
    }

    fn started(hives: &[FakeHive], at: Instant) -> Self {
        Self::with(hives, at, &Config::default())
    }

    fn with(hives: &[FakeHive], at: Instant, config: &Config) -> Self {
        let fleet = Arc::new(Fleet::new(config, "q1".into(), at));
        let reached = hives.to_vec();
        let ways = Ways::new(move |id| {
            let hive = reached.iter().find(|hive| hive.id == *id);
            hive.map(|hive| hive.channel.clone()).ok_or_else(|| NoTunnel::Absent(id.clone()))
        });
        let places = Bound::new(config.max_reserving);
        let reserving = Arc::new(Reserving::new(fleet.clone(), ways, config.max_age, config.grace, places));
        let queen = Self { fleet, reserving };
        hives.iter().for_each(|hive| queen.hear(hive));
        queen
    }

    /// Takes in what a hive reports now.
    fn hear(&self, hive: &FakeHive) {
        self.hear_record(hive.record(), hive);
    }

    fn hear_record(&self, record: proto::Hive, hive: &FakeHive) {
        let now = Instant::now();
        let request = RegisterRequest { hive: Some(record), ..RegisterRequest::default() };
        let session = self.fleet.register(now, request, "t").unwrap().session;
        let frame = Some(Frame::Snapshot(Snapshot { rows: hive.rows(), last: true }));
        let sampled_at = Some(common::timestamp(std::time::SystemTime::now()));
        let frame = PushTelemetryRequest { session, sequence: 1, sampled_at, frame, ..PushTelemetryRequest::default() };
        self.fleet.apply(now, frame).unwrap();
    }

    async fn ask(&self, request: ReserveRequest) -> Result<Answered, Refused> {
        within("an answer to Reserve", self.reserving.reserve(Wish::parse(request).unwrap())).await
    }

    async fn reserve(&self, claims: Vec<What>) -> Result<Answered, Refused> {
        self.ask(request("", claims)).await
    }
}

fn request(key: &str, claims: Vec<What>) -> ReserveRequest {
    let claims = claims.into_iter().map(|what| Claim { what: Some(what) }).collect();
    ReserveRequest { claims, key: key.to_owned(), ..ReserveRequest::default() }
}

fn named(name: &str) -> What {
    What::Worker(name.to_owned())
}

fn any() -> What {
    What::AnyWorker(proto::WorkerClaim { idle: true, ..Default::default() })
}

fn vram(gib: u64) -> What {
    What::Vram(proto::VramClaim { bytes: gib << 30, ..Default::default() })
}

fn idle() -> ProcessStats {
    ProcessStats { activity: Activity::Idle.into(), ..ProcessStats::default() }
}

fn busy() -> ProcessStats {
    ProcessStats { activity: Activity::Busy.into(), ..ProcessStats::default() }
}

/// What is held: "box/llm/1" or "box/GPU-1", in the order of the claims.
fn held(answered: &Answered) -> Vec<String> {
    let name = |part: &proto::ReservedHold| {
        let hold = part.hold.as_ref().unwrap();
        format!("{}/{}{}", part.hive, hold.worker, hold.gpu_uuid)
    };
    answered.reservation.holds.iter().map(name).collect()
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Looks again and again until it is so; how long that took.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    let looking = async {
        while !is_so() {
            tokio::time::sleep(LOOK).await;
        }
    };
    within(what, looking).await;
    begun.elapsed()
}
