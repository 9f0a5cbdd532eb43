//! In a large fleet not every hive can be asked whether it holds something for a key. Three of them bear witness: which,
//! follows from the key alone, so that all queens ask the same. Whoever makes a reservation has its key held there before
//! it is confirmed, for some seconds, until the records of the hives that serve it have reached everybody.

use super::calls::No;
use super::make::{Plan, TENTATIVE};
use super::rivals::ASKED;
use super::wish::{Digest, Wish};
use super::{Refused, Reserving, lock};
use common::HiveId;
use proto::hold_wish::What;
use proto::{Hold, HoldRequest, HoldWish, KeyWish};
use std::collections::BTreeMap;
use std::time::Instant;
use tonic::Code;

/// So many hives bear witness for a key. Most of them have to answer, so that of two queens one meets the other's.
const WITNESSES: usize = 3;
/// So many of those that come first for a key are looked at for some that can be called.
const LOOKED_AT: usize = 16;

impl Reserving {
    /// The hives that bear witness for a key, those first that do so before others; none in a fleet in which all can be
    /// asked.
    pub(super) fn witnesses(&self, key: &str) -> Vec<HiveId> {
        let moment = self.fleet.moment(Instant::now());
        if key.is_empty() || self.fleet.index().census(&moment).1 <= ASKED {
            return Vec::new();
        }
        let first = self.fleet.index().first_live(&moment, LOOKED_AT, |hive| place(key, hive));
        let callable = first.into_iter().map(|hive| hive.as_ref().clone()).filter(|hive| self.ways.leads_to(hive));
        callable.take(WITNESSES).collect()
    }

    /// Has the key of a plan held by its witnesses. Answers the reservations for which they hold it already, each with
    /// those who say so.
    ///
    /// # Errors
    /// [`Refused::Unreachable`] when most of them do not answer; [`Refused::KeyUsed`] when one knows the key with another
    /// wish.
    pub(super) async fn bear_witness(
        &self,
        plan: &Plan,
        wish: &Wish,
    ) -> Result<BTreeMap<String, Vec<HiveId>>, Refused> {
        let witnesses = self.witnesses(&wish.key);
        let own = plan.hives();
        // Those of the plan have been asked with the key.
        let asked: Vec<HiveId> = witnesses.iter().filter(|hive| !own.contains(hive)).cloned().collect();
        let mut answered = witnesses.len() - asked.len();
        let requests = asked.into_iter().map(|hive| (hive, request(plan, wish))).collect();
        let mut others: BTreeMap<String, Vec<HiveId>> = BTreeMap::new();
        for (hive, answer) in self.ways.hold(requests).await {
            match answer {
                Ok(holds) => {
                    answered += 1;
                    let recent = lock(&self.recent);
                    let other = |hold: &Hold| hold.reservation != plan.id && !recent.is_released(&hold.reservation);
                    for hold in holds.into_iter().filter(other) {
                        others.entry(hold.reservation).or_default().push(hive.clone());
                    }
                }
                Err(No::Refused { code: Code::AlreadyExists, .. }) => return Err(Refused::KeyUsed(wish.key.clone())),
                Err(_) => {}
            }
        }
        if 2 * answered < witnesses.len() {
            let why = "most of the hives that bear witness for this key do not answer: try again";
            return Err(Refused::Unreachable(why.to_owned()));
        }
        Ok(others)
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

/// Where a hive stands for a key: the same at every queen, and for every key another.
fn place(key: &str, hive: &HiveId) -> u64 {
    let mut digest = Digest::new();
    digest.text(key);
    digest.text(hive.as_str());
    digest.mixed()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(place("k", &hives[0]), 0xbf2e_09ae_cbcc_e454, "the same in every version");
    }
}
