//! What speaks against a worker or a GPU, and how near it is to fitting.

use super::misses::Miss;
use super::{Candidate, Place, Survey, VramClaim, WorkerClaim, is_meant};
use crate::fleet::room::{self, Unfit};
use crate::fleet::{Seen, SeenHive};
use common::HiveId;
use proto::{Activity, Freshness, OperationalStatus, Readiness, WorkerState};

impl Survey<'_> {
    /// `None`: the claim does not mean it at all.
    pub(super) fn worker(&self, seen: &Seen<'_>, claim: &WorkerClaim) -> Option<Result<Candidate, Miss>> {
        if !is_meant(seen, claim) {
            return None;
        }
        if let Some(against) = self.against(seen, claim) {
            return Some(Err(against.named(format_args!("{}/{}", seen.hive(), seen.id()))));
        }
        let candidate = Candidate::worker(seen);
        if let Some(why) = self.learned.refused.get(&candidate.place) {
            return Some(Err(Miss::of(0, format!("{} was refused by its hive: {why}", candidate.place))));
        }
        Some(match self.overlay.taken.get(&candidate.place) {
            Some(by) => Err(Miss::of(0, format!("{} is held by {by}", candidate.place))),
            None => Ok(candidate),
        })
    }

    /// What speaks against a worker; the nearest reasons have the smallest numbers.
    fn against(&self, seen: &Seen<'_>, claim: &WorkerClaim) -> Option<Miss> {
        if let Some(why) = self.hive_against(seen.record(), seen.hive()) {
            return Some(why);
        }
        let max_age = claim.max_age.unwrap_or(self.max_age);
        if seen.age().is_none_or(|age| age > max_age) || seen.freshness() != Freshness::Live {
            let age = seen.age().map_or_else(|| "never".to_owned(), |age| format!("{:.1} s ago", age.as_secs_f64()));
            return Some(Miss::of(5, format!("was last sampled {age}")));
        }
        if seen.state() != i32::from(WorkerState::Running) {
            return Some(Miss::of(4, "is not running"));
        }
        let stats = seen.stats();
        if stats.is_some_and(|stats| stats.readiness() == Readiness::NotReady) {
            return Some(Miss::of(3, "is not ready"));
        }
        if let Some(by) = seen.reservation().filter(|by| !self.overlay.released.contains(*by)) {
            return Some(Miss::of(0, format!("is held by {by}")));
        }
        if claim.idle && !seen.is_idle() {
            let busy = stats.is_some_and(|stats| stats.activity() == Activity::Busy);
            return Some(if busy { Miss::of(1, "is busy") } else { Miss::of(2, "is not known to be idle") });
        }
        None
    }

    fn hive_against(&self, hive: &proto::Hive, id: &HiveId) -> Option<Miss> {
        if let Some(why) = self.learned.silent.get(id) {
            return Some(Miss::of(6, format!("is on a hive that cannot be asked: {why}")));
        }
        if let Some(why) = self.learned.closed.get(id) {
            return Some(Miss::of(6, format!("is on a hive that refuses: {why}")));
        }
        let draining = matches!(hive.operational_status(), OperationalStatus::Draining | OperationalStatus::Stopping);
        draining.then(|| Miss::of(7, "is on a hive that is draining"))
    }

    /// Every GPU of a hive that the claim means.
    pub(super) fn gpus_on(
        &self,
        hive: &SeenHive<'_>,
        claim: &VramClaim,
        mut take: impl FnMut(Result<Candidate, Miss>),
    ) {
        for at in 0..hive.record().gpus.len() {
            self.gpu(hive, at, claim).into_iter().for_each(&mut take);
        }
    }

    /// `None`: the claim does not mean it at all.
    pub(super) fn gpu(&self, hive: &SeenHive<'_>, at: usize, claim: &VramClaim) -> Option<Result<Candidate, Miss>> {
        let gpu = hive.record().gpus.get(at)?;
        if !claim.fits_hive(hive.record()) || !(claim.gpu_uuid.is_empty() || gpu.uuid == claim.gpu_uuid) {
            return None;
        }
        let place = Place::Gpu(hive.id().clone(), gpu.uuid.clone());
        Some(match self.room(hive.record(), hive.freshness(), at, claim, &place) {
            Ok(free) => Ok(Candidate { place, idle_for: None, free, at }),
            Err(against) => Err(against.named(&place)),
        })
    }

    /// What is free on the GPU at a position of a hive's record, when that is enough.
    fn room(
        &self,
        hive: &proto::Hive,
        freshness: Freshness,
        at: usize,
        claim: &VramClaim,
        place: &Place,
    ) -> Result<u64, Miss> {
        if let Some(why) = self.learned.refused.get(place) {
            return Err(Miss::of(0, format!("was refused by its hive: {why}")));
        }
        self.hive_against(hive, place.hive()).map_or(Ok(()), Err)?;
        if freshness != Freshness::Live {
            return Err(Miss::of(253, "is on a hive that has been silent for too long"));
        }
        let free = room::of(hive, at).map_err(|unfit| Miss::of(254, unfit_words(unfit)))?.free;
        let released = hive.gpus.get(at).map_or(0, |gpu| self.overlay.released_vram(&gpu.uuid, &hive.holds));
        let free = free.saturating_add(released).saturating_sub(self.overlay.taken_vram(place));
        let needed = claim.bytes.saturating_add(claim.headroom);
        if free >= needed {
            return Ok(free);
        }
        // The less is missing, the nearer: one step for each doubling.
        let far = 8 + u8::try_from(64 - (needed - free).leading_zeros()).unwrap_or(u8::MAX / 2);
        Err(Miss::of(far, format!("has {} free, {} are needed", size(free), size(needed))))
    }
}

fn unfit_words(unfit: Unfit<'_>) -> String {
    match unfit {
        Unfit::Draining | Unfit::Stopping => "is on a hive that is draining".to_owned(),
        Unfit::Broken(error) => format!("cannot be used: {error}"),
        Unfit::Divided => "is divided (MIG), and its slices are looked at one by one".to_owned(),
        Unfit::Driver(_) | Unfit::Untold => "does not tell how much memory is free".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
