//! One look at ports and command lines: socket inodes of a worker's processes against the listening sockets of this
//! network namespace. A process that listens in a namespace of its own has no port that anybody here could call.

use super::super::collect::nested::{nested_pids, sort_and_dedup};
use super::super::counters::{self, process_stat};
use super::super::files::{Buffer, open_below, open_dir};
use super::super::tree::{Root, Scan};
use crate::roster::{Footing, Slot};
use std::collections::{BTreeSet, HashMap};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

/// Processes of one worker that are looked at.
const PROCESSES_MAX: usize = 256;
/// Descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 4096;
/// A command line is read up to here, in bytes.
const COMMAND_MAX: u64 = 64 * 1024;
/// `st` of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Whom to look at.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which worker.
    pub slot: Slot,
    /// Where it lives.
    pub footing: Footing,
    /// Whether its ports are of interest.
    pub ports: bool,
}

/// What was seen; `None` is what could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which worker.
    pub slot: Slot,
    /// The lowest port that one of its processes listens on.
    pub port: Option<u16>,
    /// The command line of its first process.
    pub command: Option<Vec<Vec<u8>>>,
}

/// Looks at each. Blocks for as long as the kernel does.
pub fn look(proc_root: &Path, wanted: &[Wanted]) -> Vec<Seen> {
    // The kernel walks all its sockets for the tables: only when somebody here has one at all.
    let listening = std::cell::LazyCell::new(|| listening(proc_root));
    let mut buffer = Buffer::default();
    let scan = scan_for(proc_root, wanted, &mut buffer);
    let seen = wanted.iter().enumerate().map(|(tree, wanted)| {
        let port = if wanted.ports {
            let pids = match &wanted.footing.cgroup {
                Some(cgroup) => pids_in(cgroup, &mut buffer),
                None => scan.of(tree).map(|(pid, _)| *pid).collect::<Vec<_>>(),
            };
            let ports = pids.iter().take(PROCESSES_MAX).filter_map(|pid| lowest_port(proc_root, *pid, || &*listening));
            ports.min()
        } else {
            None
        };
        Seen { slot: wanted.slot, port, command: command(proc_root, &wanted.footing) }
    });
    seen.collect()
}

/// The processes of a cgroup and of those below it; none when it is gone.
fn pids_in(cgroup: &Path, buffer: &mut Buffer) -> Vec<i32> {
    let mut pids = Vec::new();
    let Ok(dir) = open_dir(cgroup) else { return pids };
    if let Ok(file) = open_below(&dir, b"cgroup.procs") {
        pids.extend(counters::pids(buffer.list(&file).unwrap_or_default()));
    }
    nested_pids(&dir, buffer, &mut pids);
    sort_and_dedup(&mut pids);
    pids
}

/// The processes of one worker.
pub fn pids_of_one(proc_root: &Path, footing: &Footing) -> Vec<i32> {
    let mut buffer = Buffer::default();
    let mut pids = match &footing.cgroup {
        Some(cgroup) => pids_in(cgroup, &mut buffer),
        None => {
            let wanted = [Wanted { slot: Slot::default(), footing: footing.clone(), ports: true }];
            scan_for(proc_root, &wanted, &mut buffer).of(0).map(|(pid, _)| *pid).collect()
        }
    };
    pids.truncate(PROCESSES_MAX);
    pids
}

fn scan_for(proc_root: &Path, wanted: &[Wanted], buffer: &mut Buffer) -> Scan {
    let mut scan = Scan::default();
    let trees = wanted.iter().enumerate().filter(|(_, wanted)| wanted.ports && wanted.footing.cgroup.is_none());
    let mut roots: Vec<Root> = trees
        .map(|(tree, wanted)| Root { pid: wanted.footing.pid, start_ticks: wanted.footing.start_ticks, tree })
        .collect();
    if roots.is_empty() {
        return scan;
    }
    roots.sort_unstable_by_key(|root| root.pid);
    // What cannot be scanned has no processes, and so no ports are found in this look.
    if open_dir(proc_root).is_ok_and(|dir| scan.look(dir.as_fd(), buffer).is_ok()) {
        scan.assign(&roots, &[]);
    }
    scan
}

/// Inode to port of every listening TCP socket.
fn listening(proc_root: &Path) -> HashMap<u64, u16> {
    let tables = ["net/tcp", "net/tcp6"].map(|name| std::fs::read_to_string(proc_root.join(name)).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(listener)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`.
pub fn listener(line: &str) -> Option<(u64, u16)> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port > 0)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    Some((fields.nth(5)?.parse().ok()?, port))
}

fn lowest_port<'a>(proc_root: &Path, pid: i32, listening: impl FnOnce() -> &'a HashMap<u64, u16>) -> Option<u16> {
    let inodes = inodes_of(proc_root, pid);
    if inodes.is_empty() {
        return None;
    }
    let listening = listening();
    inodes.iter().filter_map(|inode| listening.get(inode)).copied().min()
}

/// Inodes of the sockets that a process has open; none when it is gone or may not be looked at.
pub fn inodes_of(proc_root: &Path, pid: i32) -> BTreeSet<u64> {
    let descriptors = std::fs::read_dir(proc_root.join(pid.to_string()).join("fd")).into_iter().flatten();
    let links = descriptors.take(DESCRIPTORS_MAX);
    links.filter_map(|entry| socket(&std::fs::read_link(entry.ok()?.path()).ok()?)).collect()
}

/// The inode in `socket:[12345]`.
fn socket(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// `None` when the process has ended, or is another one by now, or has no command line.
fn command(proc_root: &Path, footing: &Footing) -> Option<Vec<Vec<u8>>> {
    let dir = open_dir(&proc_root.join(footing.pid.to_string())).ok()?;
    let stat = open_below(&dir, b"stat").ok()?;
    if process_stat(Buffer::default().record(&stat).ok()?)?.start_ticks != footing.start_ticks {
        return None;
    }
    let mut bytes = Vec::new();
    let file = open_below(&dir, b"cmdline").ok()?;
    file.take(COMMAND_MAX).read_to_end(&mut bytes).ok()?;
    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    (!text.is_empty()).then(|| text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read_from_both_tables() {
        let v4 =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
        let v6 =
            "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4712 1";
        let busy = "   2: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4713 1";
        assert_eq!(listener(v4), Some((4711, 8080)));
        assert_eq!(listener(v6), Some((4712, 80)));
        for other in
            [busy, "", "  sl  local_address rem_address   st tx_queue", "x y:zz w 0A", "0: a:FFFFF b 0A c d e f g 1"]
        {
            assert_eq!(listener(other), None, "{other:?}");
        }
    }

    #[test]
    fn processes_of_a_container_are_found_in_the_cgroups_below_its_own() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("init.scope")).unwrap();
        std::fs::write(root.path().join("cgroup.procs"), "").unwrap();
        std::fs::write(root.path().join("init.scope/cgroup.procs"), "11\n10\n").unwrap();
        assert_eq!(pids_in(root.path(), &mut Buffer::default()), [10, 11]);
        assert_eq!(pids_in(&root.path().join("gone"), &mut Buffer::default()), [0_i32; 0]);
    }

    #[test]
    fn only_sockets_are_sockets() {
        assert_eq!(socket(Path::new("socket:[12]")), Some(12));
        for other in ["pipe:[12]", "/dev/null", "socket:[x]", "socket:[12"] {
            assert_eq!(socket(Path::new(other)), None);
        }
    }
}
