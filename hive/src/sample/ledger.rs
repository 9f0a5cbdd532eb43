//! What the processes of one worker add up to where no cgroup counts for us. IO and CPU time are added up per process
//! (pid and start time), so that one that ends leaves its part in the sum and no rate ever becomes negative.

use super::counters::{self, IoBytes, ProcessStat, Resident};
use super::files::{Buffer, ProcessFiles, Silence};
use std::os::fd::BorrowedFd;

/// What reading needs and all workers share.
#[derive(Debug, Default)]
pub struct Desk {
    /// Where files are read into.
    pub buffer: Buffer,
    /// How many more descriptors may be kept open; beyond, files are opened anew each tick.
    pub spare: usize,
    /// A process that turns up now and started before this (ticks since boot) has been somewhere else until now.
    pub born_before: u64,
}

/// The running totals of one worker, and the processes they are made of.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Ascending by pid.
    entries: Vec<Entry>,
    begun: bool,
    cpu_ticks: u64,
    io: IoBytes,
    resident_now: Option<Resident>,
    io_complete: bool,
}

#[derive(Debug)]
struct Entry {
    pid: i32,
    start_ticks: u64,
    /// `None`: the first value only sets the base.
    cpu_ticks: Option<u64>,
    io: Option<IoBytes>,
    files: Option<ProcessFiles>,
    seen: bool,
}

/// One look at one process; what is `None` could not be read.
struct Look {
    resident: Option<Resident>,
    io: Option<IoBytes>,
}

impl Ledger {
    /// Begins a tick.
    pub fn open_page(&mut self) {
        self.resident_now = Some(Resident::default());
        self.io_complete = true;
    }

    /// Counts the CPU time of a process that a scan has found.
    pub fn count_cpu(&mut self, pid: i32, stat: &ProcessStat, desk: &Desk) {
        let at = self.entry(pid, stat.start_ticks, desk.born_before);
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.seen = true;
        let before = entry.cpu_ticks.replace(stat.cpu_ticks).unwrap_or(stat.cpu_ticks);
        self.cpu_ticks = self.cpu_ticks.saturating_add(stat.cpu_ticks.saturating_sub(before));
    }

    /// Counts memory and IO of a process. One that has just ended counts nothing; one that may not be read makes the
    /// sums unknown.
    pub fn count_process(&mut self, pid: i32, proc_dir: BorrowedFd<'_>, desk: &mut Desk) {
        if let Some(look) = self.look_at_held(pid, &mut desk.buffer) {
            return self.add(pid, look);
        }
        let (files, start_ticks) = match ProcessFiles::open(proc_dir, pid, &mut desk.buffer) {
            Ok(opened) => opened,
            Err(Silence::Gone) => return,
            Err(Silence::NoDescriptors | Silence::Unreadable) => {
                self.resident_now = None;
                self.io_complete = false;
                return;
            }
        };
        let Some(look) = Look::take(&files, &mut desk.buffer) else { return };
        let at = self.entry(pid, start_ticks, desk.born_before);
        if let Some(entry) = self.entries.get_mut(at).filter(|_| desk.spare >= ProcessFiles::DESCRIPTORS) {
            desk.spare -= ProcessFiles::DESCRIPTORS;
            entry.files = Some(files);
        }
        self.add(pid, look);
    }

    /// Ends a tick: forgets the processes that were not seen in it.
    pub fn close_page(&mut self) {
        self.begun = true;
        self.entries.retain(|entry| entry.seen);
        for entry in &mut self.entries {
            entry.seen = false;
        }
    }

    /// CPU time in clock ticks since the first look.
    pub fn cpu_ticks(&self) -> u64 {
        self.cpu_ticks
    }

    /// Resident memory of the processes seen in this tick; `None` when one of them could not be read.
    pub fn resident(&self) -> Option<Resident> {
        self.resident_now
    }

    /// IO since the first look; `None` when a process could not be read in this tick.
    pub fn io(&self) -> Option<IoBytes> {
        self.io_complete.then_some(self.io)
    }

    /// How many descriptors the processes hold.
    pub fn descriptors(&self) -> usize {
        self.entries.iter().filter(|entry| entry.files.is_some()).count() * ProcessFiles::DESCRIPTORS
    }

    /// The processes that were seen last: pid and start time.
    pub fn processes(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        self.entries.iter().map(|entry| (entry.pid, entry.start_ticks))
    }

    /// Reads through the files that are held; `None` when there are none, or they are of a process that has ended.
    fn look_at_held(&mut self, pid: i32, buffer: &mut Buffer) -> Option<Look> {
        let at = self.entries.binary_search_by_key(&pid, |entry| entry.pid).ok()?;
        let entry = self.entries.get_mut(at)?;
        let look = Look::take(entry.files.as_ref()?, buffer);
        if look.is_none() {
            entry.files = None;
        }
        look
    }

    fn add(&mut self, pid: i32, look: Look) {
        let Ok(at) = self.entries.binary_search_by_key(&pid, |entry| entry.pid) else { return };
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.seen = true;
        self.resident_now = self.resident_now.zip(look.resident).and_then(|(sum, one)| sum.checked_add(one));
        let Some(io) = look.io else {
            self.io_complete = false;
            return;
        };
        let before = entry.io.replace(io).unwrap_or(io);
        self.io.read = self.io.read.saturating_add(io.read.saturating_sub(before.read));
        self.io.write = self.io.write.saturating_add(io.write.saturating_sub(before.write));
    }

    /// The place of this very process; another one that had its pid before gives way.
    fn entry(&mut self, pid: i32, start_ticks: u64, born_before: u64) -> usize {
        let from_zero = self.begun && start_ticks >= born_before;
        let fresh = || Entry {
            pid,
            start_ticks,
            cpu_ticks: from_zero.then_some(0),
            io: from_zero.then(IoBytes::default),
            files: None,
            seen: true,
        };
        match self.entries.binary_search_by_key(&pid, |entry| entry.pid) {
            Ok(at) => {
                if let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.start_ticks != start_ticks) {
                    *entry = fresh();
                }
                at
            }
            Err(at) => {
                self.entries.insert(at, fresh());
                at
            }
        }
    }
}

impl Look {
    /// `None` when the process has ended.
    fn take(files: &ProcessFiles, buffer: &mut Buffer) -> Option<Self> {
        let resident = match buffer.record(&files.status) {
            Ok(bytes) => counters::resident(bytes),
            Err(Silence::Gone) => return None,
            Err(_) => None,
        };
        let io = match files.io.as_ref().map(|file| buffer.record(file)) {
            Some(Ok(bytes)) => counters::process_io(bytes),
            Some(Err(Silence::Gone)) => return None,
            Some(Err(_)) | None => None,
        };
        Some(Self { resident, io })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(start_ticks: u64, cpu_ticks: u64) -> ProcessStat {
        ProcessStat { state: b'R', ppid: 1, session: 1, cpu_ticks, start_ticks }
    }

    fn page(ledger: &mut Ledger, born_before: u64, processes: &[(i32, u64, u64)]) -> u64 {
        let desk = Desk { born_before, ..Desk::default() };
        ledger.open_page();
        for (pid, start, cpu) in processes {
            ledger.count_cpu(*pid, &stat(*start, *cpu), &desk);
        }
        ledger.close_page();
        ledger.cpu_ticks()
    }

    #[test]
    fn an_exit_never_gives_a_negative_rate() {
        let mut ledger = Ledger::default();
        assert_eq!(page(&mut ledger, 0, &[(10, 100, 500), (11, 110, 900)]), 0);
        assert_eq!(page(&mut ledger, 200, &[(10, 100, 510), (11, 110, 990)]), 100);
        assert_eq!(page(&mut ledger, 300, &[(10, 100, 515)]), 105, "what the ended one used stays counted");
        assert_eq!(page(&mut ledger, 400, &[(10, 410, 7)]), 112, "the pid was used again: counted from its birth");
    }

    #[test]
    fn a_newcomer_with_a_past_brings_only_what_it_does_here() {
        let mut ledger = Ledger::default();
        assert_eq!(page(&mut ledger, 0, &[(10, 100, 5)]), 0);
        assert_eq!(page(&mut ledger, 200, &[(10, 100, 5), (12, 150, 1_000_000)]), 0);
        assert_eq!(page(&mut ledger, 300, &[(10, 100, 5), (12, 150, 1_000_001)]), 1);
    }
}
