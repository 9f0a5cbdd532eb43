//! The ladder: a process inside its own cgroup from its first instruction, else as far up as this machine allows.
//! Says which step was reached and what of the limits was not applied; a failed start leaves nothing behind.

mod told;

use super::cgroup::{Cgroup, Ground};
use super::limits::{IdList, Limits};
use super::sys::{self, Child, Exec, Fault, Place, Step, Tuning, Written as SysWritten};
use common::WorkerId;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Where partitions are traced to their disks.
const BLOCK_DEVICES: &str = "/sys/dev/block";
/// How often a cgroup that will not go away yet is tried again after a failed start.
const REMOVE_ATTEMPTS: u32 = 20;
/// From one such try to the next.
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Processes that nobody recorded live in the cgroup of this name.
    #[error("make cgroup {}: processes live in it that this hive did not start", .0.display())]
    Populated(PathBuf),
    /// The caller asked for all limits or nothing.
    #[error("place the worker as required: {}", .path.display())]
    Denied {
        /// What could not be written.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A step of the start itself.
    #[error("{step} {path}")]
    Failed {
        /// What was tried, as a verb.
        step: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Where a worker is going to live: made and limited, but still empty.
#[derive(Debug)]
pub struct Site {
    /// Its cgroup, if it gets one.
    pub cgroup: Option<Cgroup>,
    /// The level and what was applied, for its spec.
    pub placement: proto::Placement,
    required: bool,
    /// The CPUs that each of its processes has to keep to by itself, because no cgroup makes it.
    keep_to: Option<IdList>,
}

/// A worker past its exec.
#[derive(Debug)]
pub struct Spawned {
    /// The first process.
    pub child: Child,
    /// Where it lives.
    pub site: Site,
}

/// Takes down where a worker lives and its pid.
pub type Written<'a> = dyn FnMut(&Site, i32) -> io::Result<()> + 'a;

impl Site {
    /// Makes the cgroup and writes the limits. With `required`, anything that cannot be had is an error and nothing
    /// is left behind; else it is told in the placement.
    pub fn prepare(ground: &Ground, id: &WorkerId, limits: &Limits, required: bool) -> Result<Self, SpawnError> {
        let Some(root) = &ground.root else {
            if required {
                let (path, errno) =
                    ground.refusal.clone().unwrap_or((PathBuf::from("/proc/self/mountinfo"), libc::ENOENT));
                return Err(SpawnError::Denied { path, source: io::Error::from_raw_os_error(errno) });
            }
            let why = ground.reasons.first().map_or("there are no cgroups here", String::as_str);
            return Ok(Self::bare(limits, why));
        };
        match Cgroup::make(root, id) {
            Ok(cgroup) => Self::limited(cgroup, limits, required),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                Err(SpawnError::Populated(root.join(id.group()).join(id.instance())))
            }
            Err(source) => {
                let path = root.join(id.group()).join(id.instance());
                // The group may have been made for this worker alone.
                let _ = std::fs::remove_dir(root.join(id.group()));
                if required {
                    return Err(SpawnError::Denied { path, source });
                }
                Ok(Self::bare(limits, &format!("cgroup {} cannot be made: {source}", path.display())))
            }
        }
    }

    fn limited(cgroup: Cgroup, limits: &Limits, required: bool) -> Result<Self, SpawnError> {
        let mut outcome = cgroup.limit(limits, Path::new(BLOCK_DEVICES));
        let keep_to = limits.cpus.clone().filter(|_| outcome.cpus_left);
        if keep_to.is_some() && !sys::KEEPS_TO_CPUS {
            outcome.not_applied.push(told::no_cpus("there is no cpuset controller, see `rbee doctor`"));
        }
        if let (true, Some((path, source))) = (required, outcome.refusal) {
            abandon(&cgroup);
            return Err(SpawnError::Denied { path, source });
        }
        let full = outcome.complete && outcome.not_applied.is_empty() && keep_to.is_none();
        let level = if full { proto::PlacementLevel::Full } else { proto::PlacementLevel::Cgroup };
        let placement = proto::Placement {
            level: level.into(),
            cgroup: cgroup.path.display().to_string(),
            applied: outcome.applied.into_iter().collect(),
            not_applied: outcome.not_applied,
        };
        Ok(Self { cgroup: Some(cgroup), placement, required, keep_to })
    }

    /// The last step of the ladder.
    fn bare(limits: &Limits, why: &str) -> Self {
        let placement = proto::Placement {
            level: proto::PlacementLevel::Process.into(),
            not_applied: told::without_cgroup(limits, why, sys::KEEPS_TO_CPUS),
            ..proto::Placement::default()
        };
        Self { cgroup: None, placement, required: false, keep_to: limits.cpus.clone() }
    }

    /// What its first process does to itself.
    fn tuning(&self, limits: &Limits) -> Tuning {
        let side = |bound: Option<u64>| bound.unwrap_or(libc::RLIM_INFINITY);
        let keep_to = self.keep_to.as_ref().filter(|_| sys::KEEPS_TO_CPUS);
        Tuning {
            nice: limits.nice,
            affinity: keep_to.map(|cpus| Tuning::mask(cpus.iter())),
            resources: limits.resources.iter().map(|one| (one.resource, side(one.soft), side(one.hard))).collect(),
            strict: self.required,
        }
    }

    /// Takes down what its first process did to itself, and what it could not.
    fn settle(&mut self, limits: &Limits, pid: i32, refused: &[Fault]) {
        let failed = |step: Step, item: usize| refused.iter().find(|fault| fault.step == step && fault.item == item);
        let keep_to = self.keep_to.as_ref().filter(|_| sys::KEEPS_TO_CPUS);
        let nice = limits.nice.map(|nice| (Step::Nice, 0, told::NICE.to_owned(), nice.to_string()));
        let cpus = keep_to.map(|cpus| (Step::Affinity, 0, told::AFFINITY.to_owned(), cpus.to_string()));
        let resources = limits.resources.iter().enumerate();
        let resources = resources.map(|(item, one)| (Step::Resource, item, told::resource(one), one.to_string()));
        for (step, item, name, text) in nice.into_iter().chain(cpus).chain(resources) {
            match failed(step, item) {
                None => {
                    // The kernel takes CPUs that do not exist, and keeps to the others.
                    let kept = (step == Step::Affinity).then(|| cpus_of(pid)).flatten();
                    self.placement.applied.insert(name, kept.map_or(text, |kept| kept.to_string()));
                }
                Some(fault) => {
                    self.placement.not_applied.push(told::refused(&name, &text, &fault.source));
                    if self.placement.level() == proto::PlacementLevel::Full {
                        self.placement.set_level(proto::PlacementLevel::Cgroup);
                    }
                }
            }
        }
    }

    /// Starts the program here. Blocks until it is past exec. After an error nothing is left. `written` is told where
    /// it lives and its pid before it executes anything; on an error of it nothing is executed.
    pub fn start(mut self, exec: &Exec, limits: &Limits, written: &mut Written<'_>) -> Result<Spawned, SpawnError> {
        let started = match (self.attempt(exec, limits, written), self.cgroup.take()) {
            (Err(fault), Some(cgroup)) if entered_not(&fault) => {
                abandon(&cgroup);
                let path = cgroup.path;
                if self.required {
                    return Err(SpawnError::Denied { path, source: fault.source });
                }
                self = Self::bare(limits, &format!("cgroup {} cannot be entered: {}", path.display(), fault.source));
                self.attempt(exec, limits, written)
            }
            (started, cgroup) => {
                self.cgroup = cgroup;
                started
            }
        };
        match started {
            Ok(child) => Ok(Spawned { child, site: self }),
            Err(fault) => {
                self.abandon();
                Err(told::failed(fault, exec, limits))
            }
        }
    }

    fn attempt(&mut self, exec: &Exec, limits: &Limits, written: &mut Written<'_>) -> Result<Child, Fault> {
        let (cgroup, tuning) = (self.cgroup.clone(), self.tuning(limits));
        let mut settled = |pid: i32, refused: &[Fault]| {
            self.settle(limits, pid, refused);
            written(self, pid)
        };
        match &cgroup {
            Some(cgroup) => enter(cgroup, exec, &tuning, &mut settled),
            None => sys::start(exec, &tuning, Place::Nowhere, &mut settled),
        }
    }

    /// Removes what was made for a worker that will not come.
    pub fn abandon(&self) {
        if let Some(cgroup) = &self.cgroup {
            abandon(cgroup);
        }
    }
}

/// The CPUs that a process of ours keeps to.
fn cpus_of(pid: i32) -> Option<IdList> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    IdList::from_kernel(list.trim())
}

/// Into the cgroup: by clone3, else the child writes itself into it before exec.
fn enter(cgroup: &Cgroup, exec: &Exec, tuning: &Tuning, settled: &mut SysWritten<'_>) -> Result<Child, Fault> {
    let directory = cgroup.directory().map_err(Fault::at(Step::Join))?;
    match sys::start(exec, tuning, Place::Cgroup(directory.as_fd()), settled) {
        Err(fault) if fault.step == Step::Clone && another_way(&fault.source) => {
            let procs = cgroup.procs().map_err(Fault::at(Step::Join))?;
            sys::start(exec, tuning, Place::Join(procs.as_fd()), settled)
        }
        other => other,
    }
}

/// Errors of clone3 that writing `cgroup.procs` might not meet: an old kernel, a sandbox, a hierarchy that is not
/// ours from its top, a directory that is not a cgroup.
fn another_way(error: &io::Error) -> bool {
    let known = [
        libc::ENOSYS,
        libc::EPERM,
        libc::EACCES,
        libc::EBUSY,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::E2BIG,
        libc::EBADF,
    ];
    error.raw_os_error().is_some_and(|errno| known.contains(&errno))
}

/// Whether it is the cgroup that could not be entered, so that it may be had without.
fn entered_not(fault: &Fault) -> bool {
    matches!(fault.step, Step::Clone | Step::Join) && !fault.gave_up()
}

/// A child that never got past exec may need a moment to leave the cgroup. Nothing else was ever in there.
fn abandon(cgroup: &Cgroup) {
    for _ in 0..REMOVE_ATTEMPTS {
        if !matches!(cgroup.remove(), Err(error) if error.raw_os_error() == Some(libc::EBUSY)) {
            return;
        }
        cgroup.kill();
        std::thread::sleep(REMOVE_PAUSE);
    }
}

#[cfg(test)]
mod tests;
