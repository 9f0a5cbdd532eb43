//! What a client of Watch keeps to read columns: which worker has which slot.

use crate::columns::{ColumnError, Quanta, unpack};
use crate::gpus::unrounded;
use proto::watch_response::Event;
use proto::{GpuUse, ProcessStats, SlotGpus, Update, WatchResponse, Worker};
use std::collections::HashMap;

/// Why a message cannot be read. Its client begins anew, with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToldError {
    /// Numbers of a worker that was never told of.
    #[error("the queen tells numbers of slot {0}, which is nobody's")]
    UnknownSlot(u32),
    /// Columns that do not fit one another.
    #[error(transparent)]
    Column(#[from] ColumnError),
}

/// Workers as they were told last, by slot. One that is gone is kept until its slot is another's.
#[derive(Debug, Clone, Default)]
pub struct Told(HashMap<u32, Worker>);

impl Told {
    /// Makes whole workers of the columns in a message, so that it reads like one without.
    ///
    /// # Errors
    /// When it cannot be read. Its client then holds nothing to go on with.
    pub fn take(&mut self, message: &mut WatchResponse) -> Result<(), ToldError> {
        match &mut message.event {
            Some(Event::SnapshotBegin(_)) => self.0.clear(),
            Some(Event::Update(update)) => {
                self.keep(&update.workers);
                self.spread(update)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, workers: &[Worker]) {
        let named = workers.iter().filter(|worker| worker.slot != 0);
        self.0.extend(named.map(|worker| (worker.slot, worker.clone())));
    }

    fn spread(&mut self, update: &mut Update) -> Result<(), ToldError> {
        let Some(mut columns) = update.columns.take() else { return Ok(()) };
        let gpus: HashMap<u32, SlotGpus> = update.gpus.drain(..).map(|gpus| (gpus.slot, gpus)).collect();
        for (slot, quanta) in unpack(&mut columns)? {
            let worker = self.0.get_mut(&slot).ok_or(ToldError::UnknownSlot(slot))?;
            write(worker.stats.get_or_insert_default(), &quanta, gpus.get(&slot));
            update.workers.push(worker.clone());
        }
        Ok(())
    }
}

fn write(stats: &mut ProcessStats, quanta: &Quanta, gpus: Option<&SlotGpus>) {
    quanta.write(stats);
    match (gpus, stats.gpus.as_mut_slice()) {
        (None, [only]) => (only.util_pct, only.vram_bytes) = (stats.gpu_util_pct, stats.vram_bytes),
        (None, _) => {}
        (Some(told), gpus) => told.cells.iter().for_each(|cell| {
            if let Some(GpuUse { util_pct, vram_bytes, .. }) = gpus.get_mut(cell.position as usize) {
                (*util_pct, *vram_bytes) = unrounded(cell.util, cell.vram);
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::pack;
    use prost::Message;
    use proto::{Columns, GpuCell, SnapshotBegin};

    const PAGE: u64 = 4096;

    fn gpu(util: f64) -> GpuUse {
        GpuUse { uuid: util.to_string(), util_pct: Some(util), vram_bytes: Some(PAGE) }
    }

    fn worker(slot: u32, gpus: Vec<GpuUse>) -> Worker {
        let stats = ProcessStats { gpus, ..ProcessStats::default() };
        Worker { slot, stats: Some(stats), ..Worker::default() }
    }

    fn numbers(slots: &[u32], gpus: Vec<SlotGpus>) -> Event {
        let stats = ProcessStats { gpu_util_pct: Some(7.5), cpu_pct: Some(3.25), ..ProcessStats::default() };
        let quanta = Quanta::of(&stats);
        let message = pack(slots.iter().map(|slot| (*slot, &quanta)));
        let columns = Some(Columns::decode(message.as_slice()).unwrap());
        Event::Update(Update { columns, gpus, ..Update::default() })
    }

    fn hear(told: &mut Told, event: Event) -> Result<Vec<Worker>, ToldError> {
        let mut message = WatchResponse { event: Some(event) };
        told.take(&mut message)?;
        match message.event {
            Some(Event::Update(update)) => Ok(update.workers),
            _ => Ok(vec![]),
        }
    }

    #[test]
    fn numbers_become_the_workers_that_have_them() {
        let mut told = Told::default();
        let workers = vec![worker(1, vec![]), worker(2, vec![gpu(1.0)]), worker(3, vec![gpu(1.0), gpu(2.0)])];
        hear(&mut told, Event::Update(Update { workers, ..Update::default() })).unwrap();
        let cells = vec![GpuCell { position: 1, util: Some(75), vram: None }];
        let heard = hear(&mut told, numbers(&[1, 2, 3], vec![SlotGpus { slot: 3, cells, ..SlotGpus::default() }]));
        let stats: Vec<ProcessStats> = heard.unwrap().into_iter().filter_map(|worker| worker.stats).collect();
        assert!(stats.iter().all(|stats| (stats.cpu_pct, stats.gpu_util_pct) == (Some(3.25), Some(7.5))));
        assert_eq!((stats[1].gpus[0].util_pct, stats[1].gpus[0].vram_bytes), (Some(7.5), None), "it has no other");
        let of_two: Vec<_> = stats[2].gpus.iter().map(|gpu| (gpu.util_pct, gpu.vram_bytes)).collect();
        assert_eq!(of_two, [(Some(1.0), Some(PAGE)), (Some(7.5), None)]);
    }

    #[test]
    fn numbers_of_nobody_are_an_error() {
        let mut told = Told::default();
        told.keep(&[worker(1, vec![])]);
        assert_eq!(hear(&mut told, numbers(&[1], vec![])).unwrap().len(), 1);
        hear(&mut told, Event::SnapshotBegin(SnapshotBegin::default())).unwrap();
        assert_eq!(hear(&mut told, numbers(&[1], vec![])), Err(ToldError::UnknownSlot(1)));
    }
}
