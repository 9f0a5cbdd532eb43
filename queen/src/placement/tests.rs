//! What the three questions answer.

use super::*;
use crate::fleet::sample::{SECOND, Session, cpu, fleet, hive, one_hive, row};
use proto::{Activity, GpuUse, ProcessStats};

fn query(want: Want) -> Query {
    Query {
        filter: Filter::default(),
        max_age: SECOND * 3,
        stale_too: false,
        min_idle: None,
        limit: 0,
        order: FindOrder::Name,
        want,
    }
}

fn slots(fleet: &Fleet, now: Instant, query: &Query) -> Vec<String> {
    find(fleet, now, query).into_iter().filter_map(|worker| worker.spec).map(|spec| spec.instance).collect()
}

fn with(activity: Activity, gpu: Option<f64>) -> ProcessStats {
    ProcessStats { activity: activity.into(), gpu_util_pct: gpu, ..ProcessStats::default() }
}

#[test]
fn find_idle_workers_filters() {
    let now = Instant::now();
    let fleet = fleet(now);
    let stats = vec![
        with(Activity::Idle, None),
        with(Activity::Busy, Some(0.0)),
        with(Activity::Unknown, None),
        with(Activity::Idle, Some(0.0)),
        with(Activity::Busy, Some(0.5)),
        ProcessStats { gpu_sample_state: proto::GpuSampleState::Stale.into(), ..with(Activity::Unknown, Some(0.0)) },
    ];
    one_hive(&fleet, now, stats);
    assert_eq!(slots(&fleet, now, &query(Want::Idle)), ["1", "4"]);
    assert_eq!(
        slots(&fleet, now, &query(Want::UnusedGpu)),
        ["2", "4"],
        "unknown is not zero, nor is what was so before the driver hung"
    );
    assert_eq!(slots(&fleet, now, &Query { limit: 1, ..query(Want::Idle) }), ["1"]);
    let elsewhere = Filter { hive: "den".into(), ..Filter::default() };
    assert!(slots(&fleet, now, &Query { filter: elsewhere, ..query(Want::Idle) }).is_empty());
    assert!(slots(&fleet, now, &Query { min_idle: Some(SECOND), ..query(Want::Idle) }).is_empty());
    assert_eq!(slots(&fleet, now + SECOND, &Query { min_idle: Some(SECOND), ..query(Want::Idle) }), ["1", "4"]);
}

#[test]
fn only_running_workers_are_found() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = Session::open(&fleet, hive("box"), now).unwrap();
    let mut stopping = row("box", 1, with(Activity::Idle, None));
    stopping.state = WorkerState::Stopping.into();
    session.snapshot(now, vec![stopping]).unwrap();
    assert!(slots(&fleet, now, &query(Want::Idle)).is_empty());
}

#[test]
fn s1_no_find_returns_a_worker_older_than_max_age_whether_or_not_cleanup_ran() {
    let now = Instant::now();
    let fleet = fleet(now);
    let session = one_hive(&fleet, now, vec![with(Activity::Idle, Some(0.0))]);
    assert_eq!(slots(&fleet, now + SECOND * 3, &query(Want::Idle)).len(), 1);
    assert!(slots(&fleet, now + SECOND * 4, &query(Want::Idle)).is_empty());
    let patient = Query { max_age: SECOND * 30, stale_too: true, ..query(Want::Idle) };
    assert_eq!(slots(&fleet, now + SECOND * 30, &patient).len(), 1);
    assert!(slots(&fleet, now + SECOND * 31, &patient).is_empty());
    fleet.detach(now, &session.session, false);
    assert!(slots(&fleet, now, &query(Want::Idle)).is_empty(), "nobody vouches for it while the stream is broken");
}

#[test]
fn find_workers_with_model_matches() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = Session::open(&fleet, hive("box"), now).unwrap();
    let named = |slot, model: Option<&str>, names: &[&str]| {
        let mut row = row("box", slot, cpu(1.0));
        let spec = row.spec.get_or_insert_default();
        spec.model = model.map(str::to_owned);
        spec.model_names = names.iter().map(|name| (*name).to_owned()).collect();
        row
    };
    let rows = vec![named(1, Some("llama-3.2-1b"), &[]), named(2, None, &["Qwen3-8B", "qwen"]), named(3, None, &[])];
    session.snapshot(now, rows).unwrap();
    let ask = |name: &str, rule| slots(&fleet, now, &query(Want::Model { name: name.into(), rule, idle: false }));
    assert_eq!(ask("llama-3.2-1b", ModelRule::Exact), ["1"]);
    assert!(ask("llama", ModelRule::Exact).is_empty() && ask("qwen3-8b", ModelRule::Exact).is_empty());
    assert_eq!(ask("qwen", ModelRule::Exact), ["2"], "any of its names");
    assert_eq!(ask("qwen3-8b", ModelRule::IgnoreCase), ["2"]);
    assert_eq!(ask("llama-*", ModelRule::Glob), ["1"]);
    assert_eq!(ask("*", ModelRule::Glob), ["1", "2"], "no name, no match");
    assert!(
        slots(&fleet, now, &query(Want::Model { name: "qwen".into(), rule: ModelRule::Exact, idle: true })).is_empty()
    );
}

#[test]
fn globs_match_whole_names() {
    for (pattern, text, fits) in [
        ("*", "", true),
        ("a*c", "abcabc", true),
        ("a*c", "abcab", false),
        ("l?ama", "llama", true),
        ("?", "ä", true),
        ("**x*", "aax", true),
        ("", "a", false),
        ("llama", "llama2", false),
    ] {
        assert_eq!(ModelRule::Glob.fits(pattern, text), fits, "{pattern} {text}");
    }
}

#[test]
fn find_workers_with_capacity_checks_vram() {
    const GIB: u64 = 1 << 30;
    let now = Instant::now();
    let fleet = fleet(now);
    let gpu = |uuid: &str, total: Option<u64>, used| Gpu {
        uuid: uuid.into(),
        memory_total_bytes: total,
        memory_used_bytes: Some(used),
        ..Gpu::default()
    };
    let mut record = hive("box");
    record.gpus = vec![gpu("A", Some(24 * GIB), 20 * GIB), gpu("B", Some(24 * GIB), 4 * GIB), gpu("C", None, 0)];
    let mut session = Session::open(&fleet, record.clone(), now).unwrap();
    let on = |uuids: &[&str]| ProcessStats {
        gpus: uuids.iter().map(|uuid| GpuUse { uuid: (*uuid).into(), ..GpuUse::default() }).collect(),
        ..ProcessStats::default()
    };
    let rows = [on(&["A"]), on(&["A", "B"]), on(&[]), on(&["C"])];
    session.snapshot(now, (1..).zip(rows).map(|(slot, stats)| row("box", slot, stats)).collect()).unwrap();
    let ask = |required, headroom| slots(&fleet, now, &query(Want::Capacity { required, headroom, idle: false }));
    assert_eq!(ask(3 * GIB, 0), ["1", "2", "3"], "a total that is not known has no room");
    assert_eq!(ask(4 * GIB, 0), ["2", "3"], "used + required must stay below the total");
    assert!(ask(22 * GIB, 0).is_empty(), "room on two GPUs is not added up");
    assert_eq!(ask(19 * GIB, 0), ["2", "3"]);
    assert!(ask(19 * GIB, GIB).is_empty());
    assert!(ask(u64::MAX, u64::MAX).is_empty());
    let most =
        Query { order: FindOrder::MostFreeVram, ..query(Want::Capacity { required: 0, headroom: 0, idle: false }) };
    assert_eq!(slots(&fleet, now, &most), ["2", "3", "1"]);
    // A driver that does not answer vouches for no room.
    record.gpu_sample_state = proto::GpuSampleState::Timeout.into();
    let mut hung = session.frame(now, proto::push_telemetry_request::Frame::Batch(proto::Batch::default()));
    hung.hive = Some(record);
    fleet.apply(now, hung).unwrap();
    assert!(ask(0, 0).is_empty());
}

#[test]
fn the_orders_put_what_is_not_known_last() {
    let now = Instant::now();
    let fleet = fleet(now);
    one_hive(&fleet, now, vec![ProcessStats::default(), cpu(9.0), cpu(1.0)]);
    let every = Want::Model { name: "*".into(), rule: ModelRule::Glob, idle: false };
    assert!(slots(&fleet, now, &query(every)).is_empty(), "none has a model");
    let candidate = |cpu, idle: Option<u64>| Candidate {
        hive: HiveId::parse("box").unwrap(),
        id: WorkerId::new("llm", "1").unwrap(),
        idle_for: idle.map(Duration::from_secs),
        cpu,
        free: None,
        spec: Arc::default(),
        worker: proto::Worker::default(),
    };
    let (unknown, busy, calm) = (candidate(None, None), candidate(Some(9.0), Some(1)), candidate(Some(1.0), Some(5)));
    assert_eq!(compare(&unknown, &busy, FindOrder::LeastCpu), Ordering::Greater);
    assert_eq!(compare(&calm, &busy, FindOrder::LeastCpu), Ordering::Less);
    assert_eq!(compare(&calm, &busy, FindOrder::LongestIdle), Ordering::Less);
    assert_eq!(compare(&busy, &unknown, FindOrder::LongestIdle), Ordering::Less);
}
