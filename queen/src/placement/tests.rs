//! What the questions answer.

pub(crate) mod history;
mod properties;
mod reference;
mod verdicts;

use super::*;
use crate::fleet::Fleet;
use crate::fleet::sample::{SECOND, Session, cpu, fleet, hive, one_hive, row};
use proto::{
    Activity, Batch, Filter, FindOrder, Gpu, GpuUse, Hold, OperationalStatus, ProcessStats, Readiness, WorkerState,
};
use std::time::Instant;

pub(super) fn query(want: Want) -> Query {
    Query {
        filter: Filter::default(),
        max_age: SECOND * 3,
        stale_too: false,
        held_too: false,
        min_idle: None,
        limit: 0,
        order: FindOrder::Name,
        page_size: 0,
        after: None,
        want,
    }
}

pub(super) fn capacity(required: u64, fit: proto::Fit) -> CapacityQuery {
    CapacityQuery {
        filter: Filter::default(),
        max_age: SECOND * 3,
        stale_too: false,
        required,
        headroom: 0,
        fit,
        limit: 0,
        page_size: 0,
        after: None,
    }
}

fn slots(fleet: &Fleet, now: Instant, query: &Query) -> Vec<String> {
    find(fleet, now, query).workers.into_iter().filter_map(|worker| worker.spec).map(|spec| spec.instance).collect()
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
    let mut session = Session::open(&fleet, hive("den"), now).unwrap();
    let idle = |cpu| ProcessStats { cpu_pct: cpu, ..with(Activity::Idle, None) };
    session.snapshot(now, vec![row("den", 1, idle(None)), row("den", 2, idle(Some(9.0)))]).unwrap();
    session
        .batch(now + SECOND, proto::Batch { rows: vec![row("den", 3, idle(Some(1.0)))], ..Default::default() })
        .unwrap();
    let ask = |order| slots(&fleet, now + SECOND, &Query { order, ..query(Want::Idle) });
    assert_eq!(ask(FindOrder::LeastCpu), ["3", "2", "1"]);
    assert_eq!(ask(FindOrder::LongestIdle), ["1", "2", "3"]);
    assert_eq!(ask(FindOrder::MostFreeVram), ["1", "2", "3"], "nothing known of any: by name");
}

#[test]
fn the_longest_idle_are_found_behind_many_that_do_not_fit_and_before_those_of_which_it_is_not_known() {
    let now = Instant::now();
    let fleet = fleet(now);
    let mut session = Session::open(&fleet, hive("box"), now).unwrap();
    // One becomes idle a second, the first ones in a group that is not asked for, the last two never.
    let being = |slot: u32, idle: bool| {
        let mut row = row("box", slot, with(if idle { Activity::Idle } else { Activity::Busy }, None));
        let spec = row.spec.get_or_insert_default();
        (spec.group, spec.model) = (if slot <= 90 { "other".into() } else { "llm".into() }, Some("m".into()));
        row
    };
    session.snapshot(now, (1..=100).map(|slot| being(slot, false)).collect()).unwrap();
    for slot in 1..=98 {
        let rows = (1..=98).map(|other| being(other, other <= slot)).collect();
        let frame = Batch { rows, ..Batch::default() };
        session.batch(now + SECOND * slot, frame).unwrap();
    }
    let later = now + SECOND * 98;
    session.batch(later, Batch { rows: vec![being(99, false), being(100, false)], ..Batch::default() }).unwrap();
    let filter = Filter { group: "llm".into(), ..Filter::default() };
    let model = || Want::Model { name: "m".into(), rule: ModelRule::Exact, idle: false };
    let ask = |want: Want, limit| {
        slots(&fleet, later, &Query { filter: filter.clone(), order: FindOrder::LongestIdle, limit, ..query(want) })
    };
    assert_eq!(ask(Want::Idle, 3), ["91", "92", "93"]);
    assert_eq!(ask(Want::Idle, 20).len(), 8);
    assert_eq!(ask(model(), 9), ["91", "92", "93", "94", "95", "96", "97", "98", "100"]);
    assert_eq!(ask(model(), 20).last().map(String::as_str), Some("99"));
}

#[test]
fn pages_of_every_order_follow_one_another() {
    let now = Instant::now();
    let fleet = fleet(now);
    for id in ["attic", "box", "den"] {
        let mut session = Session::open(&fleet, hive(id), now).unwrap();
        let stats = |slot: u32| ProcessStats {
            cpu_pct: Some(f64::from(slot * 7 % 5)),
            activity: Activity::Idle.into(),
            ..ProcessStats::default()
        };
        session.snapshot(now, (1..=70).map(|slot| row(id, slot, stats(slot))).collect()).unwrap();
    }
    for order in [FindOrder::Name, FindOrder::LeastCpu, FindOrder::LongestIdle, FindOrder::MostFreeVram] {
        let names = |page: &Page| page.workers.iter().map(|w| format!("{:?}", w.spec)).collect::<Vec<_>>();
        let whole = names(&find(&fleet, now, &Query { order, limit: 200, ..query(Want::Idle) }));
        assert_eq!(whole.len(), 200);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = find(&fleet, now, &Query { order, limit: 200, page_size: 33, after, ..query(Want::Idle) });
            all.extend(names(&page));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all, whole, "{order:?}");
    }
}

#[test]
fn held_workers_are_left_out_unless_they_are_asked_for() {
    let now = Instant::now();
    let fleet = fleet(now);
    let idle = || with(Activity::Idle, None);
    let hold =
        |worker: &str| Hold { reservation: "r1".into(), worker: worker.into(), tentative: true, ..Hold::default() };
    let mut record = proto::Hive { holds: vec![hold("llm/2"), hold("no such name")], ..hive("box") };
    let mut session = Session::open(&fleet, record.clone(), now).unwrap();
    session.snapshot(now, (1..=3).map(|slot| row("box", slot, idle())).collect()).unwrap();
    assert_eq!(slots(&fleet, now, &query(Want::Idle)), ["1", "3"]);
    let all = find(&fleet, now, &Query { held_too: true, ..query(Want::Idle) }).workers;
    let reservations: Vec<&str> = all.iter().map(|worker| worker.reservation.as_str()).collect();
    assert_eq!(reservations, ["", "r1", ""]);
    assert_eq!(fleet.census(now).workers_available, 2);
    record.holds = vec![hold("llm/3"), hold("llm/4")];
    let mut news = session.frame(now, proto::push_telemetry_request::Frame::Batch(proto::Batch::default()));
    news.hive = Some(record);
    fleet.apply(now, news).unwrap();
    assert_eq!(slots(&fleet, now, &query(Want::Idle)), ["1", "2"]);
    // One that comes later is held from its first moment on.
    session.batch(now, proto::Batch { rows: vec![row("box", 4, idle())], ..Default::default() }).unwrap();
    assert_eq!(slots(&fleet, now, &query(Want::Idle)), ["1", "2"]);
}

#[test]
fn bookmarks_count_as_available_whom_finds_find() {
    let now = Instant::now();
    let fleet = fleet(now);
    let is = |readiness: Readiness| ProcessStats { readiness: readiness.into(), ..with(Activity::Idle, None) };
    let mut session = Session::open(&fleet, hive("box"), now).unwrap();
    let rows = [Readiness::NotReady, Readiness::Ready, Readiness::Unspecified].map(is).into_iter().zip(1..);
    session.snapshot(now, rows.map(|(stats, slot)| row("box", slot, stats)).collect()).unwrap();
    assert_eq!(slots(&fleet, now, &query(Want::Idle)), ["2", "3"]);
    assert_eq!(fleet.census(now).workers_available, 2);
}

#[test]
fn a_draining_hive_serves_and_offers_no_room() {
    let now = Instant::now();
    let fleet = fleet(now);
    let gpu = Gpu {
        uuid: "A".into(),
        memory_total_bytes: Some(24),
        memory_used_bytes: Some(4),
        observed_bytes: Some(6),
        held_bytes: 2,
        ..Gpu::default()
    };
    let mut record = proto::Hive { gpus: vec![gpu], ..hive("box") };
    let mut session = Session::open(&fleet, record.clone(), now).unwrap();
    session.snapshot(now, vec![row("box", 1, with(Activity::Idle, None))]).unwrap();
    let room = |required| find_capacity(&fleet, now, &capacity(required, proto::Fit::Best)).gpus.len();
    let with_room = |required| slots(&fleet, now, &query(Want::Capacity { required, headroom: 0, idle: false })).len();
    assert_eq!((room(16), room(17), with_room(15), with_room(16)), (1, 0, 1, 0), "24 - max(4, 6) - 2");
    record.operational_status = OperationalStatus::Draining.into();
    let mut news = session.frame(now, proto::push_telemetry_request::Frame::Batch(proto::Batch::default()));
    news.hive = Some(record);
    fleet.apply(now, news).unwrap();
    assert_eq!((room(0), with_room(0)), (0, 0));
    assert_eq!(slots(&fleet, now, &query(Want::Idle)), ["1"]);
}

#[test]
fn gpus_come_best_fit_first_or_first_or_with_most_room() {
    let now = Instant::now();
    let fleet = fleet(now);
    let gpu = |free: u64| Gpu {
        uuid: format!("G{free}"),
        memory_total_bytes: Some(free),
        memory_used_bytes: Some(0),
        ..Gpu::default()
    };
    for (id, rooms) in [("den", [9, 5]), ("box", [7, 2])] {
        let record = proto::Hive { gpus: rooms.map(gpu).to_vec(), ..hive(id) };
        Session::open(&fleet, record, now).unwrap();
    }
    let ask = |query: &CapacityQuery| {
        find_capacity(&fleet, now, query).gpus.iter().map(|gpu| gpu.free_bytes).collect::<Vec<u64>>()
    };
    assert_eq!(ask(&capacity(5, proto::Fit::Best)), [5, 7, 9]);
    assert_eq!(ask(&capacity(5, proto::Fit::MostFree)), [9, 7, 5]);
    assert_eq!(ask(&capacity(5, proto::Fit::First)), [7, 9, 5]);
    assert_eq!(ask(&CapacityQuery { limit: 1, headroom: 2, ..capacity(4, proto::Fit::Best) }), [5], "7 - 2");
    let labels = [("tier".to_owned(), "gold".to_owned())].into();
    let labelled = Filter { labels, ..Filter::default() };
    assert!(ask(&CapacityQuery { filter: labelled, ..capacity(5, proto::Fit::Best) }).is_empty());
    let den = Filter { hive: "den".into(), ..Filter::default() };
    assert_eq!(ask(&CapacityQuery { filter: den, ..capacity(5, proto::Fit::Best) }), [5, 9]);
    assert!(find_capacity(&fleet, now + SECOND * 4, &capacity(0, proto::Fit::Best)).gpus.is_empty(), "too old");
}
