//! The two steps: tentative holds at every hive of a plan, then their renewal to the asked time; and the next plan when
//! a hive refuses.

use super::calls::No;
use super::plan::assign;
use super::rivals::Way;
use super::survey::{Candidate, Learned, Place, Survey};
use super::wish::{Claim, Wish};
use super::{Answered, Held, Refused, Reserving, lock};
use common::HiveId;
use proto::hold_wish::What;
use proto::{Freshness, Hold, HoldRequest, HoldWish, OperationalStatus, Readiness, VramWish, WorkerState};
use std::time::{Duration, Instant};
use tonic::Code;

/// How long a tentative hold lives: so long may what a dead queen left take to go.
pub const TENTATIVE: Duration = Duration::from_secs(5);
/// No attempt is begun later than this, so that a call ends within its own deadline of 5 s.
const BUDGET: Duration = Duration::from_millis(3_500);
/// So many plans are tried: each leaves out what was refused before.
const ATTEMPTS: usize = 32;

/// What is asked of whom.
pub struct Plan {
    /// The reservation to be.
    pub id: String,
    /// For each hive the claims that it shall serve, by position.
    pub parts: Vec<(HiveId, Vec<usize>)>,
    /// For each claim its place.
    places: Vec<Place>,
}

impl Plan {
    /// Everybody that is asked.
    pub fn hives(&self) -> Vec<HiveId> {
        self.parts.iter().map(|(hive, _)| hive.clone()).collect()
    }
}

impl Reserving {
    /// Works on one wish to its end.
    pub(super) async fn answer(&self, wish: &Wish) -> Result<Answered, Refused> {
        let deadline = Instant::now() + BUDGET;
        if !wish.key.is_empty() {
            if let Some(reservation) = self.answered_before(wish, deadline).await? {
                return Ok(Answered { reservation, existing: true });
            }
            self.check_settled(wish)?;
        }
        let mut learned = Learned::default();
        for _ in 0..ATTEMPTS {
            let plan = self.plan(wish, &learned)?;
            if let Some(answered) = self.attempt(&plan, wish, &mut learned, deadline).await? {
                return Ok(answered);
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let tried = learned.refused.len() + learned.silent.len();
        Err(Refused::NothingFits(format!("{tried} candidates were tried in vain: others were quicker; try again")))
    }

    /// A queen that has just started may not know yet that a key was answered; hives that are named and here do.
    fn check_settled(&self, wish: &Wish) -> Result<(), Refused> {
        let now = Instant::now();
        let Some(left) = self.settling(now) else { return Ok(()) };
        let here = |hive: HiveId| self.fleet.look_at(now, &hive, |_, freshness| freshness) == Some(Freshness::Live);
        if wish.claims.iter().all(|claim| claim.hive().is_some_and(here)) {
            return Ok(());
        }
        let left = left.as_secs_f64();
        Err(Refused::Unreachable(format!(
            "this queen has just started and may not know yet whether this key was answered: try again in {left:.1} s"
        )))
    }

    /// Chooses places, and remembers that they are being asked for: calls beside this one choose others.
    fn plan(&self, wish: &Wish, learned: &Learned) -> Result<Plan, Refused> {
        let now = Instant::now();
        let mut recent = lock(&self.recent);
        recent.refresh(&self.fleet, now);
        if recent.is_full() {
            return Err(Refused::TooMuch("this queen has made as many reservations as she can remember".to_owned()));
        }
        let overlay = recent.overlay();
        for claim in &wish.claims {
            if let Claim::Worker(hive, id) = claim {
                let place = Place::Worker(hive.clone(), id.clone());
                if let Some(why) = learned.silent.get(hive) {
                    return Err(Refused::Unreachable(format!("hive {hive}: {why}")));
                }
                let held = overlay.taken.get(&place).cloned();
                self.check_named(now, hive, id, held, |by| overlay.released.contains(by))?;
            }
        }
        let mut distinct: Vec<&Claim> = Vec::new();
        let kinds: Vec<usize> = wish.claims.iter().map(|claim| position_of(claim, &mut distinct)).collect();
        let survey = Survey::new(&self.fleet, now, self.max_age, &overlay, learned);
        let offers: Vec<Vec<Candidate>> = distinct.iter().map(|claim| survey.offer(claim, wish.claims.len())).collect();
        let by_claim: Vec<&[Candidate]> =
            kinds.iter().filter_map(|kind| offers.get(*kind)).map(Vec::as_slice).collect();
        let places = match assign(&wish.claims, &by_claim) {
            Ok(places) => places,
            Err(at) => {
                // Others need not wait for the explanation.
                drop(recent);
                let told = survey.told(&wish.claims[at]);
                return Err(nothing(at, &wish.claims, by_claim[at].len(), &told, learned));
            }
        };
        let plan = Plan { id: self.fresh_id(), parts: by_hive(&places), places };
        let bytes = |at: usize| if let Claim::Vram(claim) = &wish.claims[at] { claim.bytes } else { 0 };
        let asked = plan.parts.iter().map(|(hive, claims)| {
            (hive.clone(), claims.iter().map(|at| (plan.places[*at].clone(), bytes(*at))).collect())
        });
        recent.begin(now, &plan.id, asked.collect());
        Ok(plan)
    }

    /// What speaks against a worker that was named, before its hive is asked.
    fn check_named(
        &self,
        now: Instant,
        hive: &HiveId,
        id: &common::WorkerId,
        taken: Option<String>,
        released: impl Fn(&str) -> bool,
    ) -> Result<(), Refused> {
        let not_now = |why: &str| Err(Refused::NotNow(format!("{hive}/{id} {why}")));
        let status = self.fleet.look_at(now, hive, |record, freshness| (record.operational_status(), freshness));
        let worker = self.fleet.worker(now, hive, id);
        let (Some((status, freshness)), Some(worker)) = (status, worker) else {
            if self.settling(now).is_some() {
                let why = format!("{hive}/{id} is not known yet: this queen has just started");
                return Err(Refused::Unreachable(why));
            }
            return Err(Refused::Unknown(format!("no worker {hive}/{id} is known here")));
        };
        if freshness != Freshness::Live {
            let why = format!("hive {hive} has not been heard from for too long to hold {id} on it");
            return Err(Refused::Unreachable(why));
        }
        if matches!(status, OperationalStatus::Draining | OperationalStatus::Stopping) {
            return not_now("is on a hive that is draining");
        }
        if worker.state != i32::from(WorkerState::Running) {
            return not_now("is not running");
        }
        if worker.stats.is_some_and(|stats| stats.readiness() == Readiness::NotReady) {
            return not_now("is not ready");
        }
        let by = Some(worker.reservation).filter(|by| !by.is_empty() && !released(by)).or(taken);
        by.map_or(Ok(()), |by| not_now(&format!("is held by {by}")))
    }

    /// One plan: `None` when it failed and the next may be tried.
    async fn attempt(
        &self,
        plan: &Plan,
        wish: &Wish,
        learned: &mut Learned,
        deadline: Instant,
    ) -> Result<Option<Answered>, Refused> {
        let answers = self.ways.hold(requests(plan, wish)).await;
        let (mut granted, mut rival, mut end, mut over) = (Vec::new(), None, None, Vec::new());
        for (hive, claims) in &plan.parts {
            let answer = answers.iter().find(|(from, _)| from == hive).map(|(_, answer)| answer);
            match answer {
                Some(Ok(holds)) if is_ours(holds, &plan.id, claims.len()) => granted.push(hive.clone()),
                Some(Ok(holds)) => match other(holds, &plan.id) {
                    // It was given back, and this hive has not heard of it.
                    Some(id) if lock(&self.recent).is_released(&id) => over.push((id, hive.clone())),
                    other => rival = rival.or(other),
                },
                Some(Err(No::Refused { code: Code::AlreadyExists, .. })) => {
                    end = Some(Refused::KeyUsed(wish.key.clone()));
                }
                Some(Err(No::Refused { code, sentence, wishes })) => {
                    let named = self.learn(plan, wish, hive, claims, (*code, sentence, wishes), learned).await;
                    end = end.or(named);
                }
                Some(Err(No::Silent(why))) => drop(learned.silent.insert(hive.clone(), why.clone())),
                None => drop(learned.silent.insert(hive.clone(), "the call broke down".to_owned())),
            }
        }
        if granted.len() < plan.parts.len() {
            self.abandon(&plan.id, plan.hives(), false).await;
            self.forget_at(over).await;
            if let Some(end) = end {
                return Err(end);
            }
            let Some(rival) = rival else { return Ok(None) };
            let waited = self.outcome(&rival, plan.hives(), wish, deadline).await?;
            return Ok(waited.map(|reservation| Answered { reservation, existing: true }));
        }
        if !wish.key.is_empty() {
            match self.give_way(plan, wish, deadline).await? {
                Way::Free => {}
                Way::Again => return Ok(None),
                Way::Answered(reservation) => return Ok(Some(Answered { reservation, existing: true })),
            }
        }
        Ok(self.confirm(plan, wish, learned).await)
    }

    /// The second step: `None` when it failed and all was given back.
    async fn confirm(&self, plan: &Plan, wish: &Wish, learned: &mut Learned) -> Option<Answered> {
        let answers = self.ways.renew(plan.hives(), &plan.id, wish.ttl, true).await;
        let mut by_claim: Vec<Option<Held>> = vec![None; wish.claims.len()];
        let mut parts = Vec::new();
        for (hive, answer) in answers {
            let Some((_, claims)) = plan.parts.iter().find(|(asked, _)| *asked == hive) else { continue };
            match answer {
                Ok(mut holds) => {
                    holds.sort_by_key(|hold| hold.part);
                    for (at, hold) in claims.iter().zip(&holds) {
                        by_claim[*at] = Some((hive.clone(), hold.clone()));
                    }
                    parts.push((hive, holds));
                }
                Err(No::Silent(why)) => drop(learned.silent.insert(hive, why)),
                // It took too long and has ended, or its hive was restarted on another boot: another one may do.
                Err(No::Refused { .. }) => {}
            }
        }
        let Some(held) = by_claim.into_iter().collect::<Option<Vec<Held>>>() else {
            self.give_up(plan, wish, true).await;
            return None;
        };
        lock(&self.recent).answered(Instant::now(), &plan.id, &parts);
        Some(Answered { reservation: self.tell(&plan.id, &held), existing: false })
    }

    /// Notes what a hive refused. A worker that was named is not replaced by another: then that is the answer.
    async fn learn(
        &self,
        plan: &Plan,
        wish: &Wish,
        hive: &HiveId,
        claims: &[usize],
        (code, sentence, named): (Code, &str, &[usize]),
        learned: &mut Learned,
    ) -> Option<Refused> {
        let mut guilty: Vec<usize> = named.iter().filter_map(|at| claims.get(*at)).copied().collect();
        if guilty.is_empty() && claims.len() > 1 {
            // The hive did not say which. Workers that are held by others are.
            let holds = self.ways.list([hive.clone()]).await.into_iter().find_map(|(_, holds)| holds.ok());
            let held = |at: &usize| match &plan.places[*at] {
                Place::Worker(_, id) => holds.iter().flatten().any(|hold| hold.worker == id.to_string()),
                Place::Gpu(..) => false,
            };
            guilty = claims.iter().filter(|at| held(at)).copied().collect();
        }
        if guilty.is_empty() {
            guilty = claims.to_vec();
        }
        if let [one] = guilty[..] {
            learned.refuse(plan.places[one].clone(), sentence);
        } else {
            // The same words for several at once say nothing about the hive.
            learned.refused.extend(guilty.iter().map(|at| (plan.places[*at].clone(), sentence.to_owned())));
        }
        let by_name = guilty.iter().any(|at| matches!(wish.claims[*at], Claim::Worker(..)));
        by_name.then(|| match code {
            Code::NotFound => Refused::Unknown(format!("hive {hive}: {sentence}")),
            Code::ResourceExhausted => Refused::NothingFits(format!("hive {hive}: {sentence}")),
            _ => Refused::NotNow(format!("hive {hive}: {sentence}")),
        })
    }

    /// Gives everything back. `confirmed`: it may live for long, so hives that do not answer are asked again later.
    pub(super) async fn abandon(&self, id: &str, hives: Vec<HiveId>, confirmed: bool) {
        lock(&self.recent).released(Instant::now(), id, &hives);
        for (hive, answer) in self.ways.release(hives, id, confirmed).await {
            if confirmed && matches!(answer, Err(No::Silent(_))) {
                lock(&self.owed).add(Instant::now(), id, hive);
            }
        }
    }
}

/// The position of a claim among those that differ.
fn position_of<'a>(claim: &'a Claim, distinct: &mut Vec<&'a Claim>) -> usize {
    distinct.iter().position(|known| *known == claim).unwrap_or_else(|| {
        distinct.push(claim);
        distinct.len() - 1
    })
}

fn by_hive(places: &[Place]) -> Vec<(HiveId, Vec<usize>)> {
    let mut parts: Vec<(HiveId, Vec<usize>)> = Vec::new();
    for (at, place) in places.iter().enumerate() {
        match parts.iter_mut().find(|(hive, _)| hive == place.hive()) {
            Some((_, claims)) => claims.push(at),
            None => parts.push((place.hive().clone(), vec![at])),
        }
    }
    parts
}

fn requests(plan: &Plan, wish: &Wish) -> Vec<(HiveId, HoldRequest)> {
    let what = |at: &usize| match (&plan.places[*at], &wish.claims[*at]) {
        (Place::Worker(_, id), _) => What::Worker(id.to_string()),
        (Place::Gpu(_, uuid), Claim::Vram(claim)) => {
            What::Vram(VramWish { bytes: claim.bytes, gpu_uuid: uuid.clone(), headroom_bytes: claim.headroom })
        }
        (Place::Gpu(_, uuid), _) => What::Vram(VramWish { gpu_uuid: uuid.clone(), ..VramWish::default() }),
    };
    let request = |claims: &[usize]| HoldRequest {
        reservation: plan.id.clone(),
        wishes: claims.iter().map(|at| HoldWish { what: Some(what(at)) }).collect(),
        ttl: Some(common::duration(TENTATIVE)),
        holder: wish.holder.clone(),
        key: wish.key.clone(),
        wish: wish.digest,
        reservation_size: u32::try_from(wish.claims.len()).unwrap_or(u32::MAX),
    };
    plan.parts.iter().map(|(hive, claims)| (hive.clone(), request(claims))).collect()
}

fn is_ours(holds: &[Hold], id: &str, count: usize) -> bool {
    holds.len() == count && holds.iter().all(|hold| hold.reservation == id)
}

/// The reservation that a hive answered instead, because it has the same key.
fn other(holds: &[Hold], id: &str) -> Option<String> {
    holds.iter().find(|hold| hold.reservation != id).map(|hold| hold.reservation.clone())
}

/// Why a claim finds no place.
fn nothing(at: usize, claims: &[Claim], fitting: usize, told: &str, learned: &Learned) -> Refused {
    let what = match &claims[at] {
        Claim::Worker(hive, id) => format!("worker {hive}/{id}"),
        Claim::AnyWorker(claim) if claim.model.is_empty() => "a worker".to_owned(),
        Claim::AnyWorker(claim) => format!("a worker with model {:?}", claim.model),
        Claim::Vram(claim) => format!("{:.1} GiB of GPU memory", claim.bytes as f64 / f64::from(1 << 30)),
    };
    let which = if claims.len() > 1 { format!("claims[{at}]: ") } else { String::new() };
    let there = match fitting {
        0 => format!("nothing fits {what}"),
        count => format!("nothing is left for {what}, {count} that fit go to the other claims"),
    };
    let sentence = format!("{which}{there}: {told}");
    if learned.silent.is_empty() { Refused::NothingFits(sentence) } else { Refused::Unreachable(sentence) }
}
