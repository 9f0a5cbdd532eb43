//! In a large fleet not every hive can be asked whether it holds something for a key. Three of them bear witness: which,
//! follows from the key alone, so that all queens ask the same. Whoever makes a reservation has its key held there before
//! it is confirmed, for some seconds, until the records of the hives that serve it have reached everybody.

use super::calls::No;
use super::make::{Plan, TENTATIVE};
use super::rivals::ASKED;
use super::wish::Wish;
use super::{Refused, Reserving, lock};
use crate::digest::Digest;
use common::HiveId;
use proto::hold_wish::What;
use proto::{Hold, HoldRequest, HoldWish, KeyWish};
use std::collections::BTreeMap;
use std::time::Instant;
use tonic::Code;

/// So many hives bear witness for a key.
const WITNESSES: usize = 3;
/// So many of them have to answer, so that of two queens one meets the other's.
const MOST: usize = WITNESSES / 2 + 1;
/// In a fleet of more hives than this a key has witnesses. Up to [`ASKED`] all hives are asked as well, so that two queens
/// who do not count alike still meet.
const FEW: usize = ASKED / 4;
/// So many of those that come first for a key are looked at for some that can be called.
const LOOKED_AT: usize = 64;

/// Reservations by id, and the hives that say that they hold something for them.
pub type Others = BTreeMap<String, Vec<HiveId>>;

impl Reserving {
    /// So many hives are LIVE.
    pub(super) fn live(&self) -> usize {
        self.fleet.index().census(&self.fleet.moment(Instant::now())).1
    }

    /// The hives that bear witness for a key, those first that do so before others; `None` in a small fleet.
    pub(super) fn witnesses(&self, key: &str, live: usize) -> Option<Vec<HiveId>> {
        if key.is_empty() || live <= FEW {
            return None;
        }
        let moment = self.fleet.moment(Instant::now());
        let mut digest = Digest::new();
        digest.text(key);
        let first = self.fleet.index().first_live(&moment, LOOKED_AT, |hive| digest.mixed(hive));
        let callable = first.into_iter().map(|hive| hive.as_ref().clone()).filter(|hive| self.ways.leads_to(hive));
        Some(callable.take(WITNESSES).collect())
    }

    /// Has the key of a plan held by its witnesses. Answers who holds it already.
    ///
    /// # Errors
    /// [`Refused::Unreachable`] when most of them do not answer; [`Refused::KeyUsed`] when one knows the key with another
    /// wish.
    pub(super) async fn bear_witness(&self, plan: &Plan, wish: &Wish, live: usize) -> Result<Others, Refused> {
        let Some(witnesses) = self.witnesses(&wish.key, live) else { return Ok(Others::new()) };
        // Those of the plan have been asked with the key.
        let own = plan.hives();
        let asked: Vec<HiveId> = witnesses.iter().filter(|hive| !own.contains(hive)).cloned().collect();
        let mut heard = witnesses.len() - asked.len();
        let (answered, mut others, over) = self.ask_witnesses(asked, plan, wish).await?;
        heard += answered;
        if !over.is_empty() {
            // What they hold was given back, and they have not heard of it.
            self.forget_at(over.clone()).await;
            let again = over.into_iter().map(|(_, hive)| hive).collect();
            let (answered, more, _) = self.ask_witnesses(again, plan, wish).await?;
            heard += answered;
            others.extend(more);
        }
        if heard < MOST {
            let why = "most of the hives that bear witness for this key do not answer: try again";
            return Err(Refused::Unreachable(why.to_owned()));
        }
        Ok(others)
    }

    /// How many hold the key, for this plan or for others; for whom; and who holds it for a reservation that is over.
    async fn ask_witnesses(
        &self,
        asked: Vec<HiveId>,
        plan: &Plan,
        wish: &Wish,
    ) -> Result<(usize, Others, Vec<(String, HiveId)>), Refused> {
        let (mut answered, mut others, mut over) = (0, Others::new(), Vec::new());
        let requests = asked.into_iter().map(|hive| (hive, request(plan, wish))).collect();
        for (hive, answer) in self.ways.hold(requests).await {
            let hold = match answer {
                Ok(holds) => holds.into_iter().find(|hold| hold.key == wish.key),
                Err(No::Refused { code: Code::AlreadyExists, .. }) => return Err(Refused::KeyUsed(wish.key.clone())),
                Err(_) => None,
            };
            let Some(hold) = hold else { continue };
            if lock(&self.recent).is_released(&hold.reservation) {
                over.push((hold.reservation, hive));
                continue;
            }
            answered += 1;
            if hold.reservation != plan.id {
                others.entry(hold.reservation).or_default().push(hive);
            }
        }
        Ok((answered, others, over))
    }

    /// Tells hives again that a reservation was given back.
    pub(super) async fn forget_at(&self, over: Vec<(String, HiveId)>) {
        for (id, hive) in over {
            self.ways.release([hive], &id, false).await;
        }
    }

    /// Gives a plan up: its holds, and its key.
    pub(super) async fn give_up(&self, plan: &Plan, wish: &Wish, confirmed: bool) {
        let witnesses = self.witnesses(&wish.key, self.live()).unwrap_or_default();
        let keys = self.ways.release(witnesses, &plan.id, false);
        tokio::join!(self.abandon(&plan.id, plan.hives(), confirmed), keys);
    }
}

/// Whether nothing is held but a key.
pub fn is_witness(hold: &Hold) -> bool {
    hold.worker.is_empty() && hold.gpu_uuid.is_empty()
}

fn request(plan: &Plan, wish: &Wish) -> HoldRequest {
    HoldRequest {
        reservation: plan.id.clone(),
        wishes: vec![HoldWish { what: Some(What::Key(KeyWish {})) }],
        ttl: Some(common::duration(TENTATIVE)),
        holder: wish.holder.clone(),
        key: wish.key.clone(),
        wish: wish.digest,
        reservation_size: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::index;

    /// Where a hive stands for a key: the same at every queen, and for every key another.
    fn place(key: &str, hive: &HiveId) -> u64 {
        let mut digest = Digest::new();
        digest.text(key);
        digest.mixed(index::digest(hive))
    }

    #[test]
    fn keys_have_witnesses_all_over_the_fleet() {
        let hives: Vec<HiveId> = (0..100).map(|at| HiveId::parse(&format!("hive-{at:05}")).unwrap()).collect();
        let mut times = vec![0_u32; hives.len()];
        for key in 0..10_000 {
            let key = format!("job-{key}");
            let first = (0..hives.len()).min_by_key(|at| place(&key, &hives[*at])).unwrap();
            times[first] += 1;
        }
        assert!(times.iter().all(|times| (50..200).contains(times)), "about 100 each: {times:?}");
        assert_eq!(place("k", &hives[0]), 0x0668_d387_57ad_dc4a, "the same in every version");
    }
}
