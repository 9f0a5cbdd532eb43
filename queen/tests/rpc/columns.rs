//! Watches that are told numbers in columns, over the wire.

use crate::harness::{PATIENCE, Running, Session, Watching, hive, row};
use crate::mirror::Mirror;
use common::told::Told;
use proto::watch_response::Event;
use proto::{GpuUse, Update, WatchRequest, WorkerRow, WorkerState};
use tokio::time::timeout;

/// A watcher, what it holds, and what it must keep for that.
struct Columns {
    watching: Watching,
    told: Told,
}

impl Columns {
    async fn open(queen: &Running, resume_after: &str) -> Watching {
        let request = WatchRequest { columns: true, resume_after: resume_after.into(), ..WatchRequest::default() };
        Watching::open(queen, request).await.unwrap()
    }

    /// Reads until workers are told; the update as it came.
    async fn news(&mut self) -> Update {
        let reading = async {
            loop {
                let mut message = self.watching.stream.message().await.unwrap().unwrap();
                let came = message.clone();
                self.told.take(&mut message).unwrap();
                self.watching.mirror.apply(message);
                if let Some(Event::Update(update)) = came.event
                    && !(update.workers.is_empty() && update.columns.is_none())
                {
                    return update;
                }
            }
        };
        timeout(PATIENCE, reading).await.unwrap()
    }
}

/// Three workers: without a GPU, with one, and with two.
fn rows(cpu_pct: f64, state: WorkerState) -> Vec<WorkerRow> {
    let gpu = |uuid: &str, util: f64| GpuUse { uuid: uuid.into(), util_pct: Some(util), vram_bytes: Some(4096) };
    let of = |slot: u32, gpus: Vec<GpuUse>| {
        let mut row = row("box", slot, cpu_pct);
        let stats = row.stats.get_or_insert_default();
        stats.gpu_util_pct = (!gpus.is_empty()).then_some(cpu_pct / 2.0);
        stats.vram_bytes = (!gpus.is_empty()).then_some(4096 * gpus.len() as u64);
        (stats.gpus, row.state) = (gpus, state.into());
        row
    };
    let half = cpu_pct / 2.0;
    vec![of(1, vec![]), of(2, vec![gpu("a", half)]), of(3, vec![gpu("a", half), gpu("b", 0.0)])]
}

#[tokio::test]
async fn numbers_alone_come_in_columns_and_mean_what_others_are_told() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(rows(1.0, WorkerState::Running)).await;
    let mut plain = Watching::open(&queen, WatchRequest::default()).await.unwrap();
    let mut columns = Columns { watching: Columns::open(&queen, "").await, told: Told::default() };
    assert_eq!(columns.news().await.workers.len(), 3);

    session.snapshot(rows(2.0, WorkerState::Running)).await;
    let update = columns.news().await;
    assert_eq!((update.workers.len(), update.columns.is_some(), update.gpus.len()), (0, true, 1));
    same(&mut plain, &columns.watching.mirror, 2.0).await;

    session.snapshot(rows(2.0, WorkerState::Stopping)).await;
    let update = columns.news().await;
    assert_eq!((update.workers.len(), update.columns), (3, None), "a state is more than numbers");
    same(&mut plain, &columns.watching.mirror, 2.0).await;

    let (revision, held) = (columns.watching.mirror.revision.clone(), std::mem::take(&mut columns.watching.mirror));
    columns.watching = Columns::open(&queen, &revision).await;
    columns.watching.mirror = held;
    session.snapshot(rows(3.0, WorkerState::Stopping)).await;
    let update = columns.news().await;
    assert_eq!((update.workers.len(), update.columns.is_some()), (0, true), "slots outlive the stream");
    same(&mut plain, &columns.watching.mirror, 3.0).await;
}

/// Waits until the one who is told in full has these numbers too, and compares.
async fn same(plain: &mut Watching, columns: &Mirror, cpu_pct: f64) {
    let has = |mirror: &Mirror| mirror.workers == columns.workers;
    plain.until("the same workers", has).await;
    let cpus: Vec<_> = columns.workers.values().map(|worker| worker.stats.as_ref().and_then(|s| s.cpu_pct)).collect();
    assert_eq!(cpus, [Some(cpu_pct); 3]);
}
