//! The record is kept current, and nobody is told what is not news.

use super::*;
use crate::gpus::{GpuRound, Outcome};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

fn about() -> About {
    let reasons = vec!["no memory controller".to_owned()];
    let record = proto::Hive { cpu_count: 2, health_reasons: reasons.clone(), ..proto::Hive::default() };
    let record = Arc::new(watch::Sender::new(Arc::new(record)));
    let templates = Arc::new(Templates::new(None));
    About {
        record,
        reasons: Arc::new(reasons),
        state_dir: "/s".into(),
        templates,
        draining: watch::Sender::new(false).subscribe(),
    }
}

fn quiet() -> Round {
    Round::empty(Instant::now(), SystemTime::now())
}

fn host() -> HostView {
    let stats = proto::HostStats { cpu_pct: Some(12.5), ..proto::HostStats::default() };
    HostView { stats: Some(stats), cpus: Some(8), ..HostView::default() }
}

#[test]
fn a_look_at_the_machine_is_in_the_record_and_the_same_look_is_no_news() {
    let about = about();
    let mut told = about.subscribe();
    about.update(&quiet(), &GpuView::default(), &host(), Held::default(), &mut Listed::default());
    assert!(told.has_changed().unwrap());
    let record = told.borrow_and_update().clone();
    assert_eq!((record.host.clone(), record.cpu_count), (host().stats, 8));
    assert_eq!(record.health_status(), HealthStatus::Healthy);
    about.update(&quiet(), &GpuView::default(), &host(), Held::default(), &mut Listed::default());
    assert!(!told.has_changed().unwrap());
}

#[test]
fn a_full_disk_makes_the_hive_degraded_and_what_it_lacks_does_not() {
    let about = about();
    let view = HostView { untold: vec!["/proc/stat cannot be read".into()], ..host() };
    about.update(&quiet(), &GpuView::default(), &view, Held::default(), &mut Listed::default());
    let record = about.subscribe().borrow().clone();
    assert_eq!(record.health_status(), HealthStatus::Healthy);
    assert_eq!(record.health_reasons, ["no memory controller", "/proc/stat cannot be read"]);
    let full = HostView { troubles: vec!["the file system under /s is full".into()], ..host() };
    about.update(&quiet(), &GpuView::default(), &full, Held::default(), &mut Listed::default());
    let record = about.subscribe().borrow().clone();
    assert_eq!(record.health_status(), HealthStatus::Degraded);
    assert_eq!(record.health_reasons, ["the file system under /s is full", "no memory controller"]);
}

#[test]
fn the_driver_is_named_by_version_and_by_what_it_cannot_tell() {
    let about = about();
    let round = GpuRound {
        outcome: Outcome::Answered,
        driver_version: Some("550.54".into()),
        notes: vec!["no use per process".into()],
        ..GpuRound::default()
    };
    let view = GpuView { round: Arc::new(round), answered: Some(Instant::now()) };
    about.update(&quiet(), &view, &HostView::default(), Held::default(), &mut Listed::default());
    let record = about.subscribe().borrow().clone();
    assert_eq!(record.gpu_driver_version.as_deref(), Some("550.54"));
    assert_eq!(record.health_reasons, ["no memory controller", "no use per process"]);
    assert_eq!((record.health_status(), record.cpu_count, &record.host), (HealthStatus::Healthy, 2, &None));
}

#[tokio::test]
async fn looks_are_followed_without_rounds_and_their_end_does_not_end_the_record() {
    let about = about();
    let mut told = about.subscribe();
    let (rounds, news_rounds) = watch::channel(Arc::new(quiet()));
    let (looks, news_host) = watch::channel(Arc::default());
    let (_gpus, news_gpus) = watch::channel(Arc::default());
    let (_grants, news_grants) = watch::channel(Arc::default());
    let news = News { rounds: news_rounds, gpus: news_gpus, host: news_host, grants: news_grants };
    let following = tokio::spawn(about.follow(news, |_| Held::default(), CancellationToken::new()));
    looks.send_replace(Arc::new(host()));
    told.wait_for(|record| record.host.is_some()).await.unwrap();
    drop(looks);
    rounds.send_replace(Arc::new(Round { failed: Some("no procfs".into()), ..quiet() }));
    told.wait_for(|record| record.health_status() == HealthStatus::Degraded).await.unwrap();
    drop(rounds);
    following.await.unwrap();
}

#[test]
fn the_kernel_is_named_with_its_release() {
    let kernel = kernel();
    assert!(kernel.split(' ').count() >= 2, "{kernel}");
}

#[test]
fn warmth_alone_is_no_news_before_the_next_look_at_the_machine() {
    let about = about();
    let mut told = about.subscribe();
    let warm = |celsius| {
        let gpu = proto::Gpu { uuid: "GPU-1".into(), temperature_celsius: Some(celsius), ..proto::Gpu::default() };
        Round { gpus: vec![gpu], ..quiet() }
    };
    about.update(&warm(40.0), &GpuView::default(), &host(), Held::default(), &mut Listed::default());
    assert_eq!(told.borrow_and_update().gpus[0].temperature_celsius, Some(40.0));
    about.update(&warm(41.0), &GpuView::default(), &host(), Held::default(), &mut Listed::default());
    assert!(!told.has_changed().unwrap());
    let later = HostView { stats: Some(proto::HostStats::default()), ..host() };
    about.update(&warm(42.0), &GpuView::default(), &later, Held::default(), &mut Listed::default());
    assert_eq!(told.borrow_and_update().gpus[0].temperature_celsius, Some(42.0));
    let cold = Round { gpus: vec![proto::Gpu { uuid: "GPU-1".into(), ..proto::Gpu::default() }], ..quiet() };
    about.update(&cold, &GpuView::default(), &later, Held::default(), &mut Listed::default());
    assert_eq!(told.borrow().gpus[0].temperature_celsius, None, "what the driver does not say any more goes at once");
}

#[test]
fn what_is_held_is_told_with_the_gpu_that_it_is_held_on() {
    let about = about();
    let mut told = about.subscribe();
    let gpu = |uuid: &str| proto::Gpu { uuid: uuid.to_owned(), ..Default::default() };
    let round = Round { gpus: vec![gpu("GPU-1"), gpu("GPU-2")], ..quiet() };
    let hold = proto::Hold { reservation: "r".to_owned(), gpu_uuid: "GPU-2".to_owned(), ..Default::default() };
    let bytes = BTreeMap::from([("GPU-2".to_owned(), 7)]);
    let held = Held { holds: vec![hold.clone()], last_token: 4, aborted: vec!["r0".into()], bytes };
    about.update(&round, &GpuView::default(), &host(), held, &mut Listed::default());
    let record = told.borrow_and_update().clone();
    assert_eq!((record.gpus[0].held_bytes, record.gpus[1].held_bytes), (0, 7));
    assert_eq!((record.last_fencing_token, &record.holds[..]), (4, &[hold][..]));
    assert_eq!(record.aborted_reservations, ["r0"]);
    about.update(&round, &GpuView::default(), &host(), Held::default(), &mut Listed::default());
    let record = told.borrow_and_update().clone();
    assert_eq!((record.gpus[1].held_bytes, record.holds.len()), (0, 0));
}
