//! The GPUs that a reservation holds, given to a worker that is started with it.

use super::gpus::{Given, named, shown};
use super::{Plan, StartError};
use crate::gpus::GpuView;
use crate::ledger::{Refusal, Start};
use crate::worker::life::Inner;
use crate::worker::life::room::{self, Taken};
use crate::worker::vram;
use common::WorkerId;

/// Gives a worker what its reservation holds here; its start must be answered or given up afterwards. A worker that is
/// started again after its grants have died, as all do when the machine is started anew, has to find the same room again.
pub fn give(inner: &Inner, id: &WorkerId, plan: &Plan, again: bool) -> Result<Given, StartError> {
    let start = Start {
        reservation: &plan.reservation,
        // The newest one was compared when it was started first.
        token: plan.fencing_token.filter(|_| !again),
        worker: id,
        again,
        bytes: plan.limits.vram_bytes,
    };
    let (held, reservation) = match inner.ledger.take(start) {
        Ok(grants) => {
            let held = grants.iter().filter_map(|grant| grant.vram());
            (held.map(|(gpu, bytes)| (gpu.to_owned(), bytes)).collect(), plan.reservation.clone())
        }
        Err(Refusal::Unknown(_)) if again => (promised_anew(inner, id, plan)?, String::new()),
        Err(refusal) => return Err(refusal.into()),
    };
    let view = room::answered(inner);
    let given = on(&view, &held).inspect_err(|_| {
        if !again {
            inner.ledger.give_back(id);
        }
    })?;
    Ok(Given { reservation, held, ..given })
}

/// The same memory of the same GPUs, by promise, if it is free.
fn promised_anew(inner: &Inner, id: &WorkerId, plan: &Plan) -> Result<Vec<(String, u64)>, StartError> {
    let held = inner.table().live.get(id).and_then(|entry| Some(entry.record.as_ref()?.held.clone()));
    let held = held.filter(|held| !held.is_empty()).ok_or_else(|| Refusal::Unknown(plan.reservation.clone()))?;
    let view = room::answered(inner);
    let taken = Taken::new(inner, view.clone());
    inner.ledger.promise(|grants| {
        for (gpu, _) in &held {
            let all = held.iter().filter(|(other, _)| other == gpu).map(|(_, bytes)| *bytes);
            let among = named(std::slice::from_ref(gpu), &view)?;
            taken.pick(inner, id, grants, all.fold(0, u64::saturating_add), among.as_deref())?;
        }
        inner.table().promised.insert(id.clone(), held.clone());
        Ok(held)
    })
}

/// What shows a worker these GPUs.
fn on(view: &GpuView, held: &[(String, u64)]) -> Result<Given, StartError> {
    let mut gpus: Vec<String> = held.iter().map(|(gpu, _)| gpu.clone()).collect();
    gpus.sort();
    gpus.dedup();
    let found = named(&gpus, view)?.ok_or(StartError::NoRoom { why: vram::NoRoom::NotYet })?;
    let numbers: Option<Vec<String>> =
        found.iter().map(|at| vram::number(view, *at).map(|number| number.to_string())).collect();
    Ok(shown(&numbers.unwrap_or(gpus), &found, view))
}
