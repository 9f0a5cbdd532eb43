//! What is taken of the GPUs: by workers that were promised memory, and by grants; and what workers use of that already.

use super::Inner;
use super::entry::{Entry, Table};
use super::start::StartError;
use crate::gpus::{GpuView, Outcome};
use crate::ledger::{self, Grant};
use crate::roster::Footing;
use crate::worker::limits::Limits;
use crate::worker::procfs;
use crate::worker::vram::{self, Ask, Promise};
use common::WorkerId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a start or a hold of GPU memory waits for the driver's very first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// The driver's latest answer; its first one, where that is still to come and comes in time. Blocks for that.
pub fn answered(inner: &Inner) -> Arc<GpuView> {
    let mut views = inner.gpus.clone();
    let pending = |view: &Arc<GpuView>| view.round.outcome == Outcome::Pending;
    if pending(&views.borrow())
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        // Too late, or nobody asks the driver: the view says so.
        let _ = runtime.block_on(tokio::time::timeout(FIRST_ANSWER, views.wait_for(|view| !pending(view))));
    }
    views.borrow().clone()
}

/// Who uses how much, by one answer of the driver.
#[derive(Debug)]
pub struct Taken {
    pub view: Arc<GpuView>,
    /// Which worker each process belongs to that holds GPU memory; those of others are left out.
    pub owners: BTreeMap<u32, WorkerId>,
    /// Bytes by worker and GPU.
    pub used: BTreeMap<(String, String), u64>,
}

impl Taken {
    pub fn new(inner: &Inner, view: Arc<GpuView>) -> Self {
        let owners = owners(inner, &view);
        let mut used: BTreeMap<(String, String), u64> = BTreeMap::new();
        for process in &view.round.processes {
            let (Some(owner), Some(device)) = (owners.get(&process.pid), view.round.devices.get(process.device)) else {
                continue;
            };
            let sum = used.entry((owner.to_string(), device.uuid.clone())).or_default();
            *sum = sum.saturating_add(process.vram_bytes.unwrap_or(0));
        }
        Self { view, owners, used }
    }

    /// How many bytes a worker uses of a GPU.
    pub fn used(&self, worker: &str, gpu: &str) -> u64 {
        self.used.get(&(worker.to_owned(), gpu.to_owned())).copied().unwrap_or(0)
    }

    /// What grants and promises to workers other than this one take.
    pub fn promises(&self, inner: &Inner, except: Option<&WorkerId>, grants: &[Grant]) -> Vec<Promise> {
        let used = |worker: &str, gpu: &str| self.used(worker, gpu);
        let mut all = ledger::promises(grants.iter(), &used);
        all.extend(self.without_grants(&mut inner.table(), except, grants));
        all
    }

    /// What those workers were promised that have it by no grant.
    pub fn without_grants(&self, table: &mut Table, except: Option<&WorkerId>, grants: &[Grant]) -> Vec<Promise> {
        let mut all = Vec::new();
        for (of, asked) in promised(table, grants) {
            if Some(&of) != except {
                let worker = of.to_string();
                let promise = |(uuid, asked): (String, u64)| {
                    let used = self.used(&worker, &uuid);
                    Promise { uuid, asked, used, held: false }
                };
                all.extend(asked.into_iter().map(promise));
            }
        }
        all
    }

    /// The GPU that has room for a worker. Called while nobody else can grant anything.
    pub fn pick(
        &self,
        inner: &Inner,
        id: &WorkerId,
        grants: &[Grant],
        bytes: u64,
        among: Option<&[usize]>,
    ) -> Result<usize, StartError> {
        let promises = self.promises(inner, Some(id), grants);
        let ask = Ask { bytes, headroom: 0, among, owned: &|gpu| inner.ledger.owns(gpu) };
        let ours = |pid: u32| self.owners.contains_key(&pid);
        vram::pick(&self.view, Instant::now(), &promises, &ours, ask).map_err(|why| StartError::NoRoom { why })
    }
}

/// GPUs of which workers were promised memory that they have by no grant.
pub fn promised_gpus(table: &mut Table, grants: &[Grant]) -> BTreeSet<String> {
    promised(table, grants).into_values().flatten().map(|(gpu, _)| gpu).collect()
}

/// What workers were promised that have it by no grant: those that are being started, and those that were, by an earlier
/// hive too, as their records tell.
fn promised(table: &mut Table, grants: &[Grant]) -> BTreeMap<WorkerId, Vec<(String, u64)>> {
    let (live, starting) = (&table.live, &table.starting);
    // A start that failed, or a worker that ended, wants nothing any more.
    table.promised.retain(|of, _| live.contains_key(of) || starting.contains(of));
    let by_grant = |id: &WorkerId| grants.iter().any(|grant| grant.is_used_by(id));
    let mut all: BTreeMap<WorkerId, Vec<(String, u64)>> = BTreeMap::new();
    for (of, entry) in live {
        all.insert(of.clone(), recorded(entry));
    }
    all.extend(table.promised.iter().map(|(of, promise)| (of.clone(), promise.clone())));
    all.retain(|of, asked| !asked.is_empty() && !by_grant(of));
    all
}

/// What a worker was promised when it was started.
fn recorded(entry: &Entry) -> Vec<(String, u64)> {
    let held = entry.record.as_ref().map(|record| record.held.clone()).unwrap_or_default();
    if !held.is_empty() {
        return held;
    }
    let spec = &entry.member.spec;
    let limits = spec.limits.as_ref().and_then(|limits| Limits::parse(limits).ok());
    let asked = limits.and_then(|limits| limits.vram_bytes);
    asked.and_then(|bytes| Some((spec.gpu_uuids.first()?.clone(), bytes))).into_iter().collect()
}

/// Which worker each process belongs to that holds GPU memory; those of others are left out.
fn owners(inner: &Inner, view: &GpuView) -> BTreeMap<u32, WorkerId> {
    if view.round.processes.is_empty() {
        return BTreeMap::new();
    }
    let members: Vec<(WorkerId, Footing)> = {
        let table = inner.table();
        let live = table.live.iter();
        live.filter_map(|(id, entry)| Some((id.clone(), entry.member.footing.clone()?))).collect()
    };
    let root = &inner.config.proc_root;
    let owned = view.round.processes.iter().filter_map(|process| {
        let pid = i32::try_from(process.pid).ok().filter(|pid| *pid > 0)?;
        let session = procfs::stat(root, pid).ok()?.session;
        let cgroup = procfs_cgroup(root, pid);
        let inside = |footing: &Footing| match (&footing.cgroup, &cgroup) {
            // Told relative to the hierarchy's top, of which only the end is sure to be seen from here.
            (Some(home), Some(path)) => Path::new(path).ancestors().any(|above| is_end(home, above)),
            _ => footing.pid == session,
        };
        let (id, _) = members.iter().find(|(_, footing)| inside(footing))?;
        Some((process.pid, id.clone()))
    });
    owned.collect()
}

/// Whether a cgroup's directory is the one of this path below the hierarchy's top. Slice, group and instance are three
/// parts, so fewer prove nothing.
fn is_end(home: &Path, path: &Path) -> bool {
    path.components().count() >= 3 && home.ends_with(path)
}

/// The v2 cgroup of a process, without the slash before it.
fn procfs_cgroup(root: &Path, pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(root.join(pid.to_string()).join("cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::/")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_the_end_of_its_cgroup() {
        let home = Path::new("/sys/fs/cgroup/a.slice/rbee.slice/llm/1");
        assert!(is_end(home, Path::new("rbee.slice/llm/1")) && is_end(home, Path::new("a.slice/rbee.slice/llm/1")));
        assert!(!is_end(home, Path::new("llm/1")) && !is_end(home, Path::new("rbee.slice/llm/2")));
    }
}
