//! The GPUs that a worker is given: those that it names, or the one that has room; and the variables by which the
//! vendors' libraries see them and no others.

use super::{Plan, StartError, field, reserved};
use crate::gpus::{GpuView, Outcome, Vendor};
use crate::worker::life::Inner;
use crate::worker::life::room::{self, Taken};
use crate::worker::vram;
use common::WorkerId;

/// So many GPUs are listed for somebody who names another.
const LISTED_MAX: usize = 16;

/// The variable that NVIDIA's libraries see devices by (CUDA C Programming Guide, "CUDA Environment Variables").
const CUDA: &str = "CUDA_VISIBLE_DEVICES";
/// Makes the numbers in it those of the driver, which `nvidia-smi` shows too.
pub const ORDER: &str = "CUDA_DEVICE_ORDER";
/// The one that AMD recommends under Linux (ROCm documentation, "GPU isolation"): the others count what it leaves.
const ROCR: &str = "ROCR_VISIBLE_DEVICES";
const COUNT_AGAIN: [&str; 3] = ["HIP_VISIBLE_DEVICES", CUDA, "GPU_DEVICE_ORDINAL"];
/// Intel's, and what makes its numbers follow the bus (Level Zero specification, "Environment Variables").
const LEVEL_ZERO: &str = "ZE_AFFINITY_MASK";
const LEVEL_ZERO_ORDER: &str = "ZE_ENABLE_PCI_ID_DEVICE_ORDER";

/// What a worker is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Its GPUs: by UUID where the driver has told, else as they were named.
    pub gpus: Vec<String>,
    /// Variables that show it those.
    pub variables: Vec<(&'static str, String)>,
    /// Variables of the hive that would show it others.
    pub hidden: Vec<&'static str>,
    /// The reservation that holds its memory.
    pub reservation: String,
    /// What it got by a reservation: GPUs by UUID, and bytes.
    pub held: Vec<(String, u64)>,
}

/// Finds the GPUs that a request names, one with room, or those that its reservation holds. Blocks: for the disk, and for
/// the first answer of the driver, if there has been none. What is promised here counts for every later start and hold.
/// `again`: the worker was started with this before.
pub fn give(inner: &Inner, id: &WorkerId, plan: &Plan, again: bool) -> Result<Given, StartError> {
    if !plan.reservation.is_empty() {
        return reserved::give(inner, id, plan, again);
    }
    let Some(bytes) = plan.limits.vram_bytes else {
        let view = inner.gpus.borrow().clone();
        return Ok(match named(&plan.gpus, &view)? {
            Some(found) => shown(&plan.gpus, &found, &view),
            None => as_named(&plan.gpus),
        });
    };
    let view = room::answered(inner);
    let among = named(&plan.gpus, &view)?;
    let taken = Taken::new(inner, view.clone());
    let at = inner.ledger.promise(|grants| {
        let at = taken.pick(inner, id, grants, bytes, among.as_deref())?;
        let uuid = view.round.devices[at].uuid.clone();
        // Before anybody else is decided on: of two starts the second sees what the first was promised.
        inner.table().promised.insert(id.clone(), vec![(uuid, bytes)]);
        Ok::<_, StartError>(at)
    })?;
    let uuid = &view.round.devices[at].uuid;
    let name = match (plan.gpus.iter().find(|name| *name == uuid), vram::number(&view, at)) {
        (None, Some(number)) => number.to_string(),
        _ => uuid.clone(),
    };
    Ok(shown(&[name], &[at], &view))
}

/// The positions of GPUs that are named by number or UUID; `None` where no driver has told which there are.
pub(super) fn named(names: &[String], view: &GpuView) -> Result<Option<Vec<usize>>, StartError> {
    let count = view.round.devices.len();
    if names.is_empty() || view.round.outcome != Outcome::Answered {
        return Ok(None);
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let is = |at: &usize| {
            let number = vram::number(view, *at);
            view.round.devices[*at].uuid == *name || (number.is_some() && name.parse().ok() == number)
        };
        let Some(at) = (0..count).find(is) else {
            let mut list: Vec<String> = (0..count).take(LISTED_MAX).map(|at| listed(view, at)).collect();
            if count > LISTED_MAX {
                list.push(format!("and {} more", count - LISTED_MAX));
            }
            let there = if list.is_empty() { "there is none here".to_owned() } else { list.join("; ") };
            return Err(field("gpus", format!("no GPU {name:?} on this machine: {there}")));
        };
        if found.contains(&at) {
            return Err(field("gpus", format!("{} is named twice: name it once", vram::named(view, at))));
        }
        found.push(at);
    }
    Ok(Some(found))
}

/// "GPU 0 (NVIDIA H100) is GPU-1f…".
fn listed(view: &GpuView, at: usize) -> String {
    format!("{} is {}", vram::named(view, at), view.round.devices[at].uuid)
}

/// Nobody knows whose they are: as for NVIDIA's, which is what most people have.
fn as_named(names: &[String]) -> Given {
    let mut given = Given { gpus: names.to_vec(), ..Given::default() };
    if !names.is_empty() {
        given.variables.push((CUDA, names.join(",")));
        if names.iter().all(|name| is_number(name)) {
            given.variables.push((ORDER, "PCI_BUS_ID".to_owned()));
        }
    }
    given
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Shows the GPUs at these positions, by number where all were named so. Numbers are counted per vendor, as its library
/// counts.
pub(super) fn shown(names: &[String], found: &[usize], view: &GpuView) -> Given {
    let devices = &view.round.devices;
    let mut given = Given { gpus: found.iter().map(|at| devices[*at].uuid.clone()).collect(), ..Given::default() };
    let by_number = names.iter().all(|name| is_number(name));
    let of = |vendor: Vendor| found.iter().copied().filter(move |at| devices[*at].vendor == vendor);
    let ordinal = |at: usize| {
        let before = devices[..at].iter().filter(|it| it.vendor == devices[at].vendor && it.parent_uuid.is_none());
        before.count().to_string()
    };
    let text = |vendor: Vendor, uuid: &dyn Fn(&str) -> bool| {
        let words = of(vendor).map(|at| {
            let known = &devices[at].uuid;
            if uuid(known) { known.clone() } else { ordinal(at) }
        });
        Some(words.collect::<Vec<_>>().join(",")).filter(|text| !text.is_empty())
    };
    // A library that is given both forms at once sees nothing.
    let has_none = |known: &str| !known.starts_with("GPU-") && !known.starts_with("MIG-");
    let numbers = by_number || of(Vendor::Nvidia).any(|at| has_none(&devices[at].uuid));
    if let Some(text) = text(Vendor::Nvidia, &|_| !numbers) {
        given.variables.push((CUDA, text));
        given.variables.extend(numbers.then(|| (ORDER, "PCI_BUS_ID".to_owned())));
    }
    if let Some(text) = text(Vendor::Amd, &|known| known.starts_with("GPU-")) {
        given.variables.push((ROCR, text));
        given.hidden.extend(COUNT_AGAIN.iter().filter(|key| **key != CUDA || of(Vendor::Nvidia).next().is_none()));
    }
    if let Some(text) = text(Vendor::Intel, &|_| false) {
        given.variables.extend([(LEVEL_ZERO, text), (LEVEL_ZERO_ORDER, "1".to_owned())]);
    }
    given
}

#[cfg(test)]
mod tests;
