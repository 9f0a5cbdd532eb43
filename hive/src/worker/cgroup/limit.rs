//! Writing limits into a cgroup: what the kernel took is read back, what it did not take is told.

use super::{Cgroup, write};
use crate::worker::limits::{CPUS_FILE, IdList, IoMax, Limits, Setting};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The files without which no cgroup counts as whole.
pub const WHOLE: [&str; 2] = ["cpu.max", "memory.max"];
const CPUS_EFFECTIVE: &str = "cpuset.cpus.effective";
const OOM_GROUP: &str = "memory.oom.group";
const IO_MAX: &str = "io.max";

/// What became of the limits of one worker.
#[derive(Debug, Default)]
pub struct Outcome {
    /// File → text, as the kernel took it.
    pub applied: BTreeMap<String, String>,
    /// A sentence for each limit that was not.
    pub not_applied: Vec<String>,
    /// The first refusal: file and reason.
    pub refusal: Option<(PathBuf, io::Error)>,
    /// The controller for the choice of CPUs is missing here: each process has to keep to them itself.
    pub cpus_left: bool,
    /// Whether every controller that rbee always limits with is here.
    pub complete: bool,
}

impl Cgroup {
    /// Writes the limits that were asked for; says what was written and what was not, and why. `block` is
    /// `/sys/dev/block`, where partitions are traced to their disks.
    pub fn limit(&self, limits: &Limits, block: &Path) -> Outcome {
        let complete = WHOLE.iter().all(|file| self.path.join(file).exists());
        let mut outcome = Outcome { complete, ..Outcome::default() };
        for setting in limits.settings() {
            self.set(&setting, &mut outcome);
        }
        self.check_cpus(limits.cpus.as_ref(), &mut outcome);
        for one in &limits.io {
            self.limit_disk(one, block, &mut outcome);
        }
        self.group_kill(limits, &mut outcome);
        outcome
    }

    fn set(&self, Setting { name, file, text }: &Setting, outcome: &mut Outcome) {
        let path = self.path.join(file);
        match write(&path, text) {
            Ok(()) => {
                outcome.applied.insert((*file).to_owned(), taken(&path, text));
            }
            Err(error) if *file == CPUS_FILE && error.raw_os_error() == Some(libc::ENOENT) => outcome.cpus_left = true,
            Err(error) => outcome.refuse(name, text, path, error),
        }
    }

    /// The kernel takes CPUs that the cgroups above do not give, or that do not exist, and then quietly gives fewer, or
    /// others.
    fn check_cpus(&self, asked: Option<&IdList>, outcome: &mut Outcome) {
        let (Some(asked), true) = (asked, outcome.applied.contains_key(CPUS_FILE)) else { return };
        let path = self.path.join(CPUS_EFFECTIVE);
        let given = fs::read_to_string(&path).ok().and_then(|text| IdList::from_kernel(&text));
        let Some(given) = given.filter(|given| given != asked) else { return };
        if asked.covers(&given) {
            outcome.applied.insert(CPUS_FILE.to_owned(), given.to_string());
            return;
        }
        outcome.applied.remove(CPUS_FILE);
        outcome.not_applied.push(format!(
            "choice of CPUs not applied: asked for {asked}, but {} says {given}; choose from those",
            path.display()
        ));
        outcome.refusal.get_or_insert((path, io::Error::from_raw_os_error(libc::EINVAL)));
    }

    fn limit_disk(&self, one: &IoMax, block: &Path, outcome: &mut Outcome) {
        let name = format!("io limit of {}", one.disk);
        let (major, minor) = match one.disk.resolve(block) {
            Ok(numbers) => numbers,
            Err(error) => {
                let why = match error.raw_os_error() {
                    Some(libc::ENOTBLK) => "it is not a block device; `lsblk` lists those".to_owned(),
                    _ => error.to_string(),
                };
                outcome.not_applied.push(format!("{name} not applied: {why}"));
                outcome.refusal.get_or_insert((PathBuf::from(one.disk.to_string()), error));
                return;
            }
        };
        let path = self.path.join(IO_MAX);
        let line = format!("{major}:{minor} {}", one.text());
        // Each write is a command for one device; appended, so that a plain file keeps every line.
        let written = OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            outcome.refuse(&name, &line, path, error);
            return;
        }
        let all = fs::read_to_string(&path).unwrap_or_default();
        let numbers = format!("{major}:{minor} ");
        let taken = all.lines().rev().find(|found| found.starts_with(&numbers)).unwrap_or(&line);
        let lines = outcome.applied.entry(IO_MAX.to_owned()).or_default();
        if !lines.is_empty() {
            lines.push_str("; ");
        }
        lines.push_str(taken);
    }

    /// At its memory limit a worker dies as a whole, not with one process missing, unless that was asked for.
    fn group_kill(&self, limits: &Limits, outcome: &mut Outcome) {
        let text = match limits.oom_group {
            Some(true) => "1",
            Some(false) => "0",
            None if outcome.applied.contains_key("memory.max") => "1",
            None => return,
        };
        let path = self.path.join(OOM_GROUP);
        match write(&path, text) {
            Ok(()) => {
                outcome.applied.insert(OOM_GROUP.to_owned(), taken(&path, text));
            }
            Err(error) if limits.oom_group.is_some() => outcome.refuse("oom group", text, path, error),
            // Nobody asked; kernels before 4.19 do not have it.
            Err(_) => {}
        }
    }
}

impl Outcome {
    fn refuse(&mut self, name: &str, text: &str, path: PathBuf, error: io::Error) {
        let mend = match error.raw_os_error() {
            // The kernel makes the file only where the controller is passed on to this cgroup.
            Some(libc::ENOENT) => "; the controller is not available here, see `rbee doctor`",
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => "; this hive may not write there, see `rbee doctor`",
            _ => "",
        };
        self.not_applied.push(format!("{name} not applied: writing {text:?} to {}: {error}{mend}", path.display()));
        self.refusal.get_or_insert((path, error));
    }
}

/// What the file says now; what was written where it cannot be read.
fn taken(path: &Path, written: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    match text.trim() {
        "" => written.to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup of plain files, with what is in them.
    fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let top = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(top.path().join(file), text).unwrap();
        }
        let cgroup = Cgroup::open(top.path()).unwrap();
        (top, cgroup)
    }

    fn limits(change: impl FnOnce(&mut proto::Limits)) -> Limits {
        let mut asked = proto::Limits::default();
        change(&mut asked);
        Limits::parse(&asked).unwrap()
    }

    const FILES: [&str; 9] = [
        "cpu.max",
        "cpu.weight",
        "memory.max",
        "memory.high",
        "memory.swap.max",
        "pids.max",
        "cpuset.cpus",
        "cpuset.mems",
        "memory.oom.group",
    ];

    fn every() -> Limits {
        limits(|asked| {
            (asked.cpu, asked.cpu_weight) = ("50%".into(), "50".into());
            (asked.memory, asked.memory_high, asked.swap) = ("4G".into(), "3G".into(), "0".into());
            (asked.processes, asked.cpus, asked.memory_nodes) = ("100".into(), "0".into(), "0".into());
            asked.io = vec!["9:1 rbps=1M".into(), "9:2 wiops=max".into()];
        })
    }

    #[test]
    fn every_limit_is_written_to_its_file_and_read_back() {
        let files: Vec<_> = FILES.iter().chain(&["io.max"]).map(|file| (*file, "")).collect();
        let (top, cgroup) = cgroup(&files);
        let outcome = cgroup.limit(&every(), Path::new("/nowhere"));
        assert!(outcome.complete && outcome.not_applied.is_empty(), "{outcome:?}");
        let wanted = ["50000 100000", "50", "4294967296", "3221225472", "0", "100", "0", "0", "1"];
        for (file, wanted) in FILES.iter().zip(wanted) {
            assert_eq!(fs::read_to_string(top.path().join(file)).unwrap(), wanted, "{file}");
            assert_eq!(outcome.applied[*file], wanted, "{file}");
        }
        assert_eq!(fs::read_to_string(top.path().join("io.max")).unwrap(), "9:1 rbps=1048576\n9:2 wiops=max\n");
        assert_eq!(outcome.applied["io.max"], "9:1 rbps=1048576; 9:2 wiops=max");
    }

    #[test]
    fn every_limit_without_its_file_is_told() {
        let (top, cgroup) = cgroup(&[]);
        let asked = Limits { oom_group: Some(true), ..every() };
        let outcome = cgroup.limit(&asked, Path::new("/nowhere"));
        assert!(outcome.applied.is_empty() && !outcome.complete && outcome.cpus_left, "{outcome:?}");
        let files = FILES.iter().filter(|file| **file != "cpuset.cpus").chain(&["io.max", "io.max"]);
        assert_eq!(outcome.not_applied.len(), files.clone().count(), "{:?}", outcome.not_applied);
        for file in files {
            let path = top.path().join(file).display().to_string();
            let told = outcome.not_applied.iter().find(|sentence| sentence.contains(&path));
            let told = told.unwrap_or_else(|| panic!("{file}: {:?}", outcome.not_applied));
            assert!(told.contains("os error 2") && told.contains("rbee doctor"), "{told}");
        }
        let (path, error) = outcome.refusal.unwrap();
        assert_eq!((path, error.raw_os_error()), (top.path().join("cpu.max"), Some(libc::ENOENT)));
    }

    #[test]
    fn a_limit_is_told_as_the_kernel_took_it() {
        // Longer than what is written, as a kernel that rounds would answer with something else.
        let (_top, cgroup) = cgroup(&[("memory.max", "____4096\n")]);
        let outcome = cgroup.limit(&limits(|asked| asked.memory = "4097".into()), Path::new("/nowhere"));
        assert_eq!(outcome.applied["memory.max"], "40974096");
    }

    #[test]
    fn cpus_that_are_not_given_are_not_applied() {
        let (top, cgroup) = cgroup(&[("cpuset.cpus", ""), ("cpuset.cpus.effective", "0-1\n")]);
        let outcome = cgroup.limit(&limits(|asked| asked.cpus = "1-3".into()), Path::new("/nowhere"));
        assert!(outcome.not_applied[0].contains("says 0-1") && !outcome.cpus_left, "{outcome:?}");
        assert_eq!(outcome.refusal.unwrap().0, top.path().join("cpuset.cpus.effective"));
        let outcome = cgroup.limit(&limits(|asked| asked.cpus = "0-3".into()), Path::new("/nowhere"));
        assert!(outcome.not_applied.is_empty(), "{outcome:?}");
        assert_eq!(outcome.applied["cpuset.cpus"], "0-1", "those that there are");
    }

    #[test]
    fn a_memory_limit_ends_the_whole_worker_unless_that_is_switched_off() {
        let files = [("memory.max", ""), ("memory.oom.group", "")];
        for (switch, wanted) in [(None, "1"), (Some(true), "1"), (Some(false), "0")] {
            let (top, cgroup) = cgroup(&files);
            let asked = limits(|asked| (asked.memory, asked.oom_group) = ("1G".into(), switch));
            let outcome = cgroup.limit(&asked, Path::new("/nowhere"));
            assert_eq!(outcome.applied["memory.oom.group"], wanted);
            assert_eq!(fs::read_to_string(top.path().join("memory.oom.group")).unwrap(), wanted);
        }
        let (_top, cgroup) = cgroup(&files);
        assert!(cgroup.limit(&Limits::default(), Path::new("/nowhere")).applied.is_empty());
    }

    #[test]
    fn what_is_no_disk_is_told_with_what_to_do() {
        let (_top, cgroup) = cgroup(&[("io.max", "")]);
        let asked = limits(|asked| asked.io = vec!["/dev/null rbps=1M".into(), "/nowhere/sda rbps=1M".into()]);
        let outcome = cgroup.limit(&asked, Path::new("/nowhere"));
        assert!(outcome.not_applied[0].contains("lsblk") && outcome.not_applied[1].contains("os error 2"));
        let (path, error) = outcome.refusal.unwrap();
        assert_eq!((path, error.raw_os_error()), (PathBuf::from("/dev/null"), Some(libc::ENOTBLK)));
    }
}
