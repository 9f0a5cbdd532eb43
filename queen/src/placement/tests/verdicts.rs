//! What `Explain` says.

use super::*;
use proto::{ActivityBasis, ObjectionKind, Verdict};

fn explained(fleet: &Fleet, now: Instant, question: &Question) -> Vec<Verdict> {
    explain(fleet, now, question, 100, None).verdicts
}

fn said(verdict: &Verdict) -> Vec<(ObjectionKind, &str)> {
    verdict.objections.iter().map(|objection| (objection.kind(), objection.sentence.as_str())).collect()
}

#[test]
fn every_candidate_is_told_everything_that_speaks_against_it() {
    let now = Instant::now();
    let fleet = fleet(now);
    let hold = Hold { reservation: "r1".into(), worker: "llm/2".into(), ..Hold::default() };
    let mut session = Session::open(&fleet, proto::Hive { holds: vec![hold], ..hive("box") }, now).unwrap();
    let busy = ProcessStats {
        activity_basis: ActivityBasis::Engine.into(),
        requests_running: Some(2),
        requests_waiting: Some(1),
        readiness: proto::Readiness::NotReady.into(),
        ..with(Activity::Busy, None)
    };
    let mut stopping = row("box", 3, with(Activity::Unknown, None));
    stopping.state = WorkerState::Stopping.into();
    let rows = vec![row("box", 1, with(Activity::Idle, None)), row("box", 2, busy), stopping];
    session.snapshot(now, rows).unwrap();
    let verdicts = explained(&fleet, now, &Question::Workers(query(Want::Idle)));
    assert_eq!(verdicts.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["box/llm/1", "box/llm/2", "box/llm/3"]);
    assert_eq!((verdicts[0].chosen, said(&verdicts[0])), (true, vec![]));
    assert_eq!(
        said(&verdicts[1]),
        [
            (ObjectionKind::NotReady, "it runs, but says that it is not ready"),
            (ObjectionKind::Busy, "it is busy: its engine has 2 requests running and 1 waiting"),
            (ObjectionKind::Held, "held by reservation r1"),
        ]
    );
    assert_eq!(
        said(&verdicts[2]),
        [
            (ObjectionKind::NotRunning, "its state is STOPPING, not RUNNING"),
            (ObjectionKind::ActivityUnknown, "whether it is idle is not known"),
        ]
    );
    let patient = Query { min_idle: Some(SECOND * 30), ..query(Want::Idle) };
    let verdicts = explained(&fleet, now + SECOND * 2, &Question::Workers(patient));
    assert_eq!(said(&verdicts[0]), [(ObjectionKind::IdleTooShort, "idle for 2 s, at least 30 s are asked for")]);
    assert_eq!(said(&verdicts[1]).len(), 3, "that it is not idle is not said twice");
}

#[test]
fn an_old_sample_says_how_old() {
    let now = Instant::now();
    let fleet = fleet(now);
    let session = one_hive(&fleet, now, vec![with(Activity::Idle, None)]);
    let later = now + std::time::Duration::from_millis(5_200);
    let verdicts = explained(&fleet, later, &Question::Workers(query(Want::Idle)));
    assert_eq!(
        said(&verdicts[0]),
        [(ObjectionKind::TooOld, "last good sample is 5.2 s old, at most 3 s are accepted")]
    );
    fleet.detach(now, &session.session, false);
    let verdicts = explained(&fleet, now, &Question::Workers(query(Want::Idle)));
    assert_eq!(said(&verdicts[0]), [(ObjectionKind::TooOld, "it is STALE: the stream of its hive is broken")]);
}

#[test]
fn a_gpu_without_room_says_whose_the_room_is() {
    const GIB: u64 = 1 << 30;
    let now = Instant::now();
    let fleet = fleet(now);
    let gpu = |uuid: &str| Gpu {
        uuid: uuid.into(),
        memory_total_bytes: Some(24 * GIB),
        memory_used_bytes: Some(18 * GIB),
        held_bytes: 3 * GIB,
        ..Gpu::default()
    };
    let lost = Gpu { error: Some("GPU is lost".into()), ..gpu("GPU-1") };
    let mut session =
        Session::open(&fleet, proto::Hive { gpus: vec![gpu("GPU-2"), lost], ..hive("box") }, now).unwrap();
    session.snapshot(now, vec![row("box", 1, cpu(1.0))]).unwrap();
    Session::open(&fleet, hive("den"), now).unwrap().snapshot(now, vec![row("den", 1, cpu(1.0))]).unwrap();
    let full = "GPU-2: 3.0 GiB free of 24.0 GiB: 18.0 GiB in use, 3.0 GiB held; 8.0 GiB are asked for";
    let broken = "GPU-1: it cannot be used: GPU is lost";
    let verdicts = explained(&fleet, now, &Question::Gpus(capacity(8 * GIB, proto::Fit::Best)));
    assert_eq!(verdicts.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["box/GPU-1", "box/GPU-2"]);
    assert_eq!(said(&verdicts[0]), [(ObjectionKind::GpuUnknown, broken)]);
    assert_eq!(said(&verdicts[1]), [(ObjectionKind::NoRoom, full)]);
    let workers = Want::Capacity { required: 8 * GIB, headroom: 0, idle: false };
    let verdicts = explained(&fleet, now, &Question::Workers(query(workers)));
    assert_eq!(said(&verdicts[0]), [(ObjectionKind::NoRoom, full), (ObjectionKind::GpuUnknown, broken)]);
    assert_eq!(said(&verdicts[1]), [(ObjectionKind::NoGpu, "its hive knows of no GPU that it could use")]);
}

#[test]
fn pages_of_verdicts_follow_one_another() {
    let now = Instant::now();
    let fleet = fleet(now);
    for id in ["box", "den"] {
        let gpus = (0..5).map(|at| Gpu { uuid: format!("G/{}", at % 3), ..Gpu::default() }).collect();
        let mut session = Session::open(&fleet, proto::Hive { gpus, ..hive(id) }, now).unwrap();
        session.snapshot(now, (1..=5).map(|slot| row(id, slot, cpu(1.0))).collect()).unwrap();
    }
    for question in [Question::Workers(query(Want::Idle)), Question::Gpus(capacity(1, proto::Fit::Best))] {
        let whole = explained(&fleet, now, &question);
        assert_eq!(whole.len(), 10);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = explain(&fleet, now, &question, 3, after.as_ref());
            all.extend(page.verdicts);
            let Some(next) = page.next else { break };
            after = VerdictCursor::parse(&question, &next.to_string());
            assert_eq!(after, Some(next));
        }
        assert_eq!(all, whole);
    }
}
