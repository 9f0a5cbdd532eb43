//! A machine and what its ledger has to say, told as simply as can be: a list, and arithmetic that cannot wrap.

use super::super::*;

pub const GPUS: [(&str, u64); 2] = [("a", 24), ("b", 16)];

/// A worker that runs.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// Promised without a reservation: GPU and units.
    pub plain: Option<(usize, u64)>,
    /// What it uses of each GPU.
    pub used: [u64; GPUS.len()],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Worker(String),
    Vram(usize, u64),
    Key,
}

/// A grant that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub token: u64,
    pub reservation: String,
    pub key: String,
    pub wish: u64,
    pub what: What,
    pub until: Duration,
    pub tentative: bool,
    pub used: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    /// What others use of each GPU.
    pub foreign: [u64; GPUS.len()],
    pub workers: BTreeMap<String, Running>,
    pub grants: Vec<Known>,
    /// The newest token that anybody was ever answered with.
    pub last_token: u64,
}

/// What a hold has to be answered with.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Same(Vec<u64>),
    Granted(Vec<What>),
    Refused,
}

impl World {
    pub fn expire(&mut self, now: Duration) {
        self.grants.retain(|grant| grant.used.is_some() || grant.until > now);
    }

    pub fn in_use(&self, gpu: usize) -> u64 {
        self.foreign[gpu] + self.workers.values().map(|worker| worker.used[gpu]).sum::<u64>()
    }

    /// What is taken of a GPU and not used yet.
    pub fn due(&self, gpu: usize) -> u64 {
        let units =
            |grant: &&Known| if let What::Vram(at, units) = grant.what { (at == gpu).then_some(units) } else { None };
        let unused = self.grants.iter().filter(|grant| grant.used.is_none());
        let mut due: u64 = unused.filter_map(|grant| units(&grant)).sum();
        for (name, worker) in &self.workers {
            let its = self.grants.iter().filter(|grant| grant.used.as_ref() == Some(name));
            let plain = worker.plain.filter(|(at, _)| *at == gpu).map_or(0, |(_, units)| units);
            let granted: u64 = its.filter_map(|grant| units(&grant)).sum::<u64>() + plain;
            due += granted.saturating_sub(worker.used[gpu]);
        }
        due
    }

    pub fn free(&self, gpu: usize) -> i128 {
        i128::from(GPUS[gpu].1) - i128::from(self.in_use(gpu)) - i128::from(self.due(gpu))
    }

    /// The GPU that has room and least to spare.
    pub fn pick(&self, units: u64, only: Option<usize>, headroom: u64) -> Option<usize> {
        let fits = |gpu: &usize| self.free(*gpu) - i128::from(headroom) >= i128::from(units);
        let all = (0..GPUS.len()).filter(|gpu| only.is_none_or(|only| only == *gpu)).filter(fits);
        all.min_by_key(|gpu| (self.free(*gpu) - i128::from(headroom), *gpu))
    }

    pub fn hold(&self, ask: &Ask) -> Answer {
        let keyed: Vec<&Known> =
            self.grants.iter().filter(|grant| !ask.key.is_empty() && grant.key == ask.key).collect();
        let of = || self.grants.iter().filter(|grant| grant.reservation == ask.reservation).collect();
        let known: Vec<&Known> = if keyed.is_empty() { of() } else { keyed };
        if let Some(first) = known.first() {
            let same = first.wish == ask.wish;
            return if same { Answer::Same(known.iter().map(|grant| grant.token).collect()) } else { Answer::Refused };
        }
        let (mut after, mut granted) = (self.clone(), Vec::new());
        for wish in &ask.wishes {
            let what = match wish {
                Wish::Worker(id) => {
                    let what = What::Worker(id.to_string());
                    let taken = after.grants.iter().any(|grant| grant.what == what);
                    (self.workers.contains_key(&id.to_string()) && !taken).then_some(what)
                }
                Wish::Vram { bytes, gpu, headroom } => {
                    let only = GPUS.iter().position(|(uuid, _)| uuid == gpu);
                    after.pick(*bytes, only, *headroom).map(|gpu| What::Vram(gpu, *bytes))
                }
                Wish::Key => Some(What::Key),
            };
            let Some(what) = what else { return Answer::Refused };
            granted.push(what.clone());
            after.grants.push(known_grant(0, what, ask, Duration::MAX));
        }
        Answer::Granted(granted)
    }

    pub fn end(&mut self, worker: &str) {
        self.workers.remove(worker);
        let held = What::Worker(worker.to_owned());
        self.grants.retain(|grant| grant.what != held && grant.used.as_deref() != Some(worker));
    }

    /// The same, as the ledger sees it.
    pub fn scene(&self) -> Scene {
        let gpus: Vec<(&str, u64, u64)> =
            GPUS.iter().enumerate().map(|(at, (uuid, total))| (*uuid, *total, self.in_use(at))).collect();
        let mut scene = super::super::scene(&gpus, &[]);
        for (name, worker) in &self.workers {
            scene.workers.insert(WorkerId::parse(name).unwrap().1, Ok(()));
            for (at, used) in worker.used.iter().enumerate() {
                scene.used.insert((name.clone(), GPUS[at].0.to_owned()), *used);
            }
            if let Some((at, asked)) = worker.plain {
                scene.promises.push(Promise { uuid: GPUS[at].0.to_owned(), asked, used: worker.used[at], held: false });
            }
        }
        scene
    }
}

pub fn known_grant(token: u64, what: What, ask: &Ask, until: Duration) -> Known {
    Known {
        token,
        reservation: ask.reservation.clone(),
        key: ask.key.clone(),
        wish: ask.wish,
        what,
        until,
        tentative: true,
        used: None,
    }
}

/// A grant of the ledger in these words.
pub fn as_known(grant: &Grant) -> Known {
    let what = match &grant.thing {
        Thing::Worker(name) => What::Worker(name.clone()),
        Thing::Vram { gpu, bytes } => What::Vram(GPUS.iter().position(|(uuid, _)| uuid == gpu).unwrap(), *bytes),
        Thing::Key => What::Key,
    };
    Known {
        token: grant.token,
        reservation: grant.reservation.clone(),
        key: grant.key.clone(),
        wish: grant.wish,
        what,
        until: Duration::from_nanos(grant.until),
        tentative: grant.tentative,
        used: grant.used.as_ref().map(|used| used.by.clone()),
    }
}
