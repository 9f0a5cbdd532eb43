//! A machine that does not exist: its workers, their numbers, and what happens to them. Pure: time is passed, chance
//! comes from the seed.

use super::load;
use super::plan::Plan;
use super::random::Random;
use common::WorkerId;
use hive::roster::{Footing, Member, Roster, Slot};
use hive::round::{Round, Sample};
use proto::{Gpu, GpuVendor, HealthStatus, OperationalStatus, ProcessStats, WorkerState};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The machine's own numbers are renewed in every so-many-th round.
const HOST_EVERY: u64 = 5;
/// How many rounds a machine that stands still leaves out, at a round a second.
const STALLED_ROUNDS: u32 = 5;

/// What a round did, beside new numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Nothing else.
    Nothing,
    /// Workers came, went or changed.
    Roster,
    /// The machine stands still: there is no round.
    Stalled,
    /// It is cut off.
    Killed,
}

/// One machine, from boot to boot.
#[derive(Debug)]
pub struct Machine {
    /// The name of its hive.
    pub name: String,
    random: Random,
    boot: u64,
    rounds: u64,
    stalled: u32,
    next_slot: Slot,
    host: proto::Hive,
    members: Vec<Arc<Member>>,
    samples: Vec<ProcessStats>,
}

impl Machine {
    /// The machine of this number, just booted.
    pub fn new(plan: &Plan, index: u32, now: SystemTime) -> Self {
        let mut machine = Self {
            name: plan.name(index),
            random: Random::new(plan.seed, u64::from(index) + 1),
            boot: 0,
            rounds: 0,
            stalled: 0,
            next_slot: 1,
            host: proto::Hive::default(),
            members: Vec::new(),
            samples: Vec::new(),
        };
        machine.boot(plan, now);
        machine
    }

    /// Boots, again: another boot id, other workers.
    pub fn boot(&mut self, plan: &Plan, now: SystemTime) {
        self.boot += 1;
        (self.next_slot, self.stalled) = (1, 0);
        self.members.clear();
        self.samples.clear();
        for _ in 0..plan.workers {
            self.start(now);
        }
        self.host = self.record();
    }

    fn record(&mut self) -> proto::Hive {
        let gpu = |index| Gpu {
            uuid: load::gpu_uuid(&self.name, index),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_total_bytes: Some(load::VRAM),
            memory_used_bytes: Some(load::VRAM / 4),
            vendor: GpuVendor::Nvidia.into(),
            ..Gpu::default()
        };
        proto::Hive {
            id: self.name.clone(),
            hostname: self.name.clone(),
            advertise: "10.0.0.1".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            operational_status: OperationalStatus::Ready.into(),
            health_status: HealthStatus::Healthy.into(),
            boot_id: format!("boot-{}", self.boot),
            slice: "rbee.slice".to_owned(),
            gpus: (0..load::GPUS).map(gpu).collect(),
            gpu_sample_state: proto::GpuSampleState::Ok.into(),
            cpu_count: 64,
            memory_total_bytes: Some(512 << 30),
            host: Some(load::host(&mut self.random)),
            kernel: "Linux 6.12.0".to_owned(),
            ..proto::Hive::default()
        }
    }

    fn start(&mut self, now: SystemTime) {
        let slot = self.next_slot;
        self.next_slot += 1;
        let spec = load::spec(&mut self.random, &self.name, slot, now);
        let Ok(id) = WorkerId::new(&spec.group, &spec.instance) else { return };
        let footing = Footing { pid: 1, start_ticks: u64::from(slot), cgroup: None, cgroup_inode: None };
        let member = Member { slot, id, spec, state: WorkerState::Running, footing: Some(footing) };
        self.members.push(Arc::new(member));
        self.samples.push(load::first(&mut self.random, &self.name, slot, now));
    }

    /// The next round. With `calm` numbers move and nothing else happens.
    pub fn advance(&mut self, plan: &Plan, calm: bool, now: SystemTime) -> Happening {
        self.rounds += 1;
        if self.stalled > 0 && !calm {
            self.stalled -= 1;
            return Happening::Stalled;
        }
        for stats in &mut self.samples {
            if self.random.happens(plan.changed) {
                load::next(&mut self.random, stats, now);
            }
        }
        if self.rounds.is_multiple_of(HOST_EVERY) {
            self.host.host = Some(load::host(&mut self.random));
        }
        if calm {
            return Happening::Nothing;
        }
        if self.random.happens(plan.in_a_round(plan.kill)) {
            return Happening::Killed;
        }
        if self.random.happens(plan.in_a_round(plan.stall)) {
            self.stalled = STALLED_ROUNDS;
            return Happening::Stalled;
        }
        self.churn(plan.in_a_round(plan.churn), now)
    }

    fn churn(&mut self, probability: f64, now: SystemTime) -> Happening {
        let mut happened = Happening::Nothing;
        for at in (0..self.members.len()).rev() {
            if self.random.happens(probability) {
                self.members.remove(at);
                self.samples.remove(at);
                self.start(now);
                happened = Happening::Roster;
            } else if self.random.happens(probability) {
                let spec = load::renamed(&mut self.random, &self.members[at].spec);
                Arc::make_mut(&mut self.members[at]).spec = spec;
                happened = Happening::Roster;
            }
        }
        happened
    }

    /// Its workers.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::new(Roster { members: self.members.clone() })
    }

    /// Its numbers.
    pub fn round(&self, taken: Instant, sampled_at: SystemTime) -> Arc<Round> {
        let sample =
            |(member, stats): (&Arc<Member>, &ProcessStats)| Sample { slot: member.slot, stats: Some(stats.clone()) };
        let samples = self.members.iter().zip(&self.samples).map(sample).collect();
        Arc::new(Round { samples, ..Round::empty(taken, sampled_at) })
    }

    /// Its own record; new only when `told` says otherwise.
    pub fn told(&self) -> &proto::Hive {
        &self.host
    }

    /// Its workers' names with their models.
    pub fn workers(&self) -> Vec<(String, String)> {
        let name = |member: &Arc<Member>| {
            (format!("{}/{}", self.name, member.id), member.spec.model.clone().unwrap_or_default())
        };
        self.members.iter().map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn plan(seed: u64) -> Plan {
        Plan {
            hives: 1,
            workers: 20,
            rate: Duration::from_secs(1),
            changed: 1.0,
            churn: 1.0,
            kill: 0.0,
            stall: 0.5,
            tunnels: false,
            seed,
            prefix: "sim".to_owned(),
        }
    }

    fn story(seed: u64) -> (Vec<Happening>, Vec<(String, String)>, Vec<ProcessStats>) {
        let (plan, epoch) = (plan(seed), SystemTime::UNIX_EPOCH);
        let mut machine = Machine::new(&plan, 0, epoch);
        let happenings = (1..200).map(|s| machine.advance(&plan, false, epoch + Duration::from_secs(s))).collect();
        (happenings, machine.workers(), machine.samples)
    }

    #[test]
    fn the_same_seed_makes_the_same_fleet() {
        assert_eq!(story(1), story(1));
        assert_ne!(story(1).0, story(2).0);
        assert!(story(1).0.contains(&Happening::Roster) && story(1).0.contains(&Happening::Stalled));
        assert_eq!(story(1).1.len(), 20);
    }

    #[test]
    fn slots_stay_in_order_and_are_never_used_again() {
        let (plan, epoch) = (plan(3), SystemTime::UNIX_EPOCH);
        let mut machine = Machine::new(&plan, 0, epoch);
        for _ in 0..500 {
            let before = machine.next_slot;
            machine.advance(&plan, false, epoch);
            let slots: Vec<Slot> = machine.members.iter().map(|member| member.slot).collect();
            assert!(slots.is_sorted() && machine.next_slot >= before);
        }
    }

    #[test]
    fn every_number_moves_within_what_can_be_true() {
        let (_, _, samples) = story(1);
        for mut stats in samples {
            let (_, dropped) = common::columns::Quanta::of_believed(&mut stats);
            assert_eq!(dropped, 0);
            assert!(stats.vram_bytes <= stats.vram_total_bytes && stats.gpus.len() == 1);
        }
    }
}
