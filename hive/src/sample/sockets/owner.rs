//! Who listens on a port that was given to a worker. A server of somebody else that has the port already must not pass
//! for it: it would be called ready, and another one's model and load would be told as its own.

use super::look::{inodes_of, listener, pids_of_one};
use crate::roster::Footing;
use crate::sample::counters::{self, process_stat};
use crate::sample::files::{each_entry, open_dir};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// So many processes of the machine are looked at for one that has the port.
const PROCESSES_MAX: usize = 65_536;
/// So many of those that have it are judged.
const HOLDERS_MAX: usize = 64;
/// The variable in the environment of every worker that a hive started, and of what it starts.
const MARK: &[u8] = b"RBEE_WORKER=";

/// A port that a worker was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where procfs is mounted.
    pub proc_root: PathBuf,
    /// hive/group/instance.
    pub name: String,
    /// Where it lives.
    pub footing: Footing,
    /// rbee did not start it: what serves its port, a container's proxy for instance, may be older than it.
    pub observed: bool,
    /// The port, of this machine.
    pub port: u16,
}

/// Who listens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The worker itself.
    Own,
    /// Nobody, or somebody who may well do it for the worker, or somebody who cannot be seen from here.
    Unknown,
    /// This process, which cannot be part of the worker: another worker has it, or it is older than the worker.
    Taken(i32),
}

impl Claim {
    /// Looks. Blocks for as long as the kernel does.
    pub fn owner(&self) -> Owner {
        let sockets = self.sockets();
        if sockets.is_empty() {
            return Owner::Unknown;
        }
        let has = |pid: i32| inodes_of(&self.proc_root, pid).iter().any(|inode| sockets.contains(inode));
        if pids_of_one(&self.proc_root, &self.footing).into_iter().any(has) {
            return Owner::Own;
        }
        let mut pids = Vec::new();
        let listed = open_dir(&self.proc_root)
            .and_then(|dir| each_entry(&dir, |name, _| pids.extend(counters::pid(name.to_bytes()))));
        if listed.is_err() {
            return Owner::Unknown;
        }
        let holders = pids.into_iter().take(PROCESSES_MAX).filter(|pid| has(*pid)).take(HOLDERS_MAX);
        let mut taken = None;
        for pid in holders {
            if !self.is_foreign(pid) {
                return Owner::Unknown;
            }
            taken = Some(pid);
        }
        taken.map_or(Owner::Unknown, Owner::Taken)
    }

    /// Inodes of the sockets that listen on the port.
    fn sockets(&self) -> BTreeSet<u64> {
        let table = |name: &str| std::fs::read_to_string(self.proc_root.join(name)).unwrap_or_default();
        let tables = ["net/tcp", "net/tcp6"].map(table);
        let listening = tables.iter().flat_map(|table| table.lines().filter_map(listener));
        listening.filter(|(_, port)| *port == self.port).map(|(inode, _)| inode).collect()
    }

    /// Whether a process cannot be part of this worker. What cannot be read tells nothing.
    fn is_foreign(&self, pid: i32) -> bool {
        let own = self.proc_root.join(pid.to_string());
        if marked(&own).is_some_and(|name| name != self.name.as_bytes()) {
            return true;
        }
        let started = std::fs::read(own.join("stat")).ok().and_then(|stat| Some(process_stat(&stat)?.start_ticks));
        !self.observed && started.is_some_and(|started| started < self.footing.start_ticks)
    }
}

/// The worker that a process says to belong to.
fn marked(process: &Path) -> Option<Vec<u8>> {
    let environment = std::fs::read(process.join("environ")).ok()?;
    let mut marks = environment.split(|byte| *byte == 0).filter_map(|variable| variable.strip_prefix(MARK));
    marks.next().filter(|name| !name.is_empty()).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::testing::{footing_of, real_child};
    use std::io::Read as _;
    use std::process::{Child, Command, Stdio};

    const SERVE: &str = "import socket,sys,time; s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); \
                         print(s.getsockname()[1],flush=True); time.sleep(300)";

    /// A process that listens, and its port.
    fn server(mark: &str) -> (Child, u16) {
        let mut command = Command::new("python3");
        command.args(["-c", SERVE]).env("RBEE_WORKER", mark).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut told = String::new();
        let mut byte = [0];
        while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            told.push(char::from(byte[0]));
        }
        (child, told.parse().unwrap())
    }

    fn claim(footing: Footing, port: u16, observed: bool) -> Claim {
        Claim { proc_root: "/proc".into(), name: "box/llm/1".into(), footing, observed, port }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_port_is_its_workers_only_if_it_can_be() {
        let (old, old_port) = server("");
        let worker = real_child();
        let footing = footing_of(i32::try_from(worker.id()).unwrap());
        let (other, other_port) = server("box/llm/2");
        let (kin, kin_port) = server("box/llm/1");
        let pid = |child: &Child| i32::try_from(child.id()).unwrap();
        assert_eq!(claim(footing_of(pid(&old)), old_port, false).owner(), Owner::Own);
        let older = Footing { start_ticks: footing.start_ticks.max(footing_of(pid(&old)).start_ticks + 1), ..footing };
        assert_eq!(claim(older.clone(), old_port, false).owner(), Owner::Taken(pid(&old)), "older than the worker");
        assert_eq!(claim(older.clone(), old_port, true).owner(), Owner::Unknown, "a proxy may be");
        assert_eq!(claim(older.clone(), other_port, true).owner(), Owner::Taken(pid(&other)), "another worker's");
        let younger = Footing { start_ticks: 0, ..older };
        assert_eq!(claim(younger.clone(), kin_port, false).owner(), Owner::Unknown, "its own, moved elsewhere");
        assert_eq!(claim(younger, 1, false).owner(), Owner::Unknown, "nobody listens");
        [old, worker, other, kin].into_iter().for_each(end);
    }
}
