//! Numbers out of kernel files. Pure parsers over the bytes that one read returned: nothing is allocated, and what
//! is malformed or does not fit is `None`, never a guess.

/// Bytes read from and written to block devices, as running totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoBytes {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub write: u64,
}

/// What `/proc/<pid>/stat` says about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// One letter: `R`, `S`, `D`, `Z` …
    pub state: u8,
    /// Parent process.
    pub ppid: i32,
    /// Session; a session leader has its own pid here.
    pub session: i32,
    /// User and system time in clock ticks.
    pub cpu_ticks: u64,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// Resident memory of one process by kind, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Anonymous pages.
    pub anon: u64,
    /// Mapped files.
    pub file: u64,
    /// Shared memory.
    pub shmem: u64,
}

impl ProcessStat {
    /// Whether it has ended and only waits to be reaped.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

impl Resident {
    /// The sum of both; `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            anon: self.anon.checked_add(other.anon)?,
            file: self.file.checked_add(other.file)?,
            shmem: self.shmem.checked_add(other.shmem)?,
        })
    }

    /// All of it.
    pub fn total(&self) -> Option<u64> {
        self.anon.checked_add(self.file)?.checked_add(self.shmem)
    }

    /// Without mapped files: what would have to be swapped, not dropped.
    pub fn without_files(&self) -> Option<u64> {
        self.anon.checked_add(self.shmem)
    }
}

/// A file that holds one number and nothing else, such as `memory.current`.
pub fn single(bytes: &[u8]) -> Option<u64> {
    number(bytes.trim_ascii())
}

/// `usage_usec` of `cpu.stat`: microseconds of CPU time, ended children included.
pub fn cpu_usage_usec(bytes: &[u8]) -> Option<u64> {
    field(bytes, b"usage_usec")
}

/// `anon` plus `shmem` of `memory.stat`, in bytes.
pub fn anon_and_shmem(bytes: &[u8]) -> Option<u64> {
    field(bytes, b"anon")?.checked_add(field(bytes, b"shmem")?)
}

/// `io.stat`, summed over all devices. An empty file is zero: nothing has been read or written yet.
pub fn io_stat(bytes: &[u8]) -> Option<IoBytes> {
    let mut sum = IoBytes::default();
    for word in bytes.split(u8::is_ascii_whitespace) {
        if let Some(value) = word.strip_prefix(b"rbytes=") {
            sum.read = sum.read.checked_add(number(value)?)?;
        } else if let Some(value) = word.strip_prefix(b"wbytes=") {
            sum.write = sum.write.checked_add(number(value)?)?;
        }
    }
    Some(sum)
}

/// `/proc/<pid>/stat`. Counted from the last `)`, because a process may be called `a) R 1 (b`.
pub fn process_stat(bytes: &[u8]) -> Option<ProcessStat> {
    let end_of_name = bytes.iter().rposition(|byte| *byte == b')')?;
    let mut fields = bytes.get(end_of_name + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let state = match fields.next()? {
        [letter] if letter.is_ascii_alphabetic() => *letter,
        _ => return None,
    };
    let ppid = signed(fields.next()?)?;
    let session = signed(fields.nth(1)?)?;
    let utime = number(fields.nth(7)?)?;
    let cpu_ticks = utime.checked_add(number(fields.next()?)?)?;
    let start_ticks = number(fields.nth(6)?)?;
    Some(ProcessStat { state, ppid, session, cpu_ticks, start_ticks })
}

/// `RssAnon`, `RssFile` and `RssShmem` of `/proc/<pid>/status`. A process that has given up its memory, a zombie for
/// instance, has no such lines: that is zero, as long as the file is a status file at all.
pub fn resident(bytes: &[u8]) -> Option<Resident> {
    let mut resident = Resident::default();
    let mut is_status = false;
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"RssAnon:") {
            resident.anon = kilobytes(rest)?;
        } else if let Some(rest) = line.strip_prefix(b"RssFile:") {
            resident.file = kilobytes(rest)?;
        } else if let Some(rest) = line.strip_prefix(b"RssShmem:") {
            resident.shmem = kilobytes(rest)?;
            break;
        } else {
            is_status |= line.starts_with(b"State:");
        }
    }
    is_status.then_some(resident)
}

/// `read_bytes` and `write_bytes` of `/proc/<pid>/io`.
pub fn process_io(bytes: &[u8]) -> Option<IoBytes> {
    Some(IoBytes { read: field(bytes, b"read_bytes:")?, write: field(bytes, b"write_bytes:")? })
}

/// The pids of `cgroup.procs`. Lines that are no pid are left out: 0 stands for a process of another pid namespace.
pub fn pids(bytes: &[u8]) -> impl Iterator<Item = i32> + '_ {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| pid(line.trim_ascii()))
}

/// A pid in decimal, as directories below `/proc` are called.
pub fn pid(bytes: &[u8]) -> Option<i32> {
    signed(bytes).filter(|pid| *pid > 0)
}

/// Whole seconds of `/proc/uptime`, in clock ticks.
pub fn uptime_ticks(bytes: &[u8], ticks_per_second: u64) -> Option<u64> {
    let seconds = bytes.split(|byte| *byte == b'.' || *byte == b' ').next()?;
    number(seconds)?.checked_mul(ticks_per_second)
}

/// The number after `key` at the start of a line.
fn field(bytes: &[u8], key: &[u8]) -> Option<u64> {
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key)?;
        rest.first().filter(|byte| byte.is_ascii_whitespace())?;
        Some(number(rest.trim_ascii()))
    })?
}

fn kilobytes(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.trim_ascii().strip_suffix(b"kB")?;
    number(digits.trim_ascii())?.checked_mul(1024)
}

fn signed(bytes: &[u8]) -> Option<i32> {
    match bytes.strip_prefix(b"-") {
        Some(digits) => i32::try_from(number(digits)?).ok()?.checked_neg(),
        None => i32::try_from(number(bytes)?).ok(),
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"4242 (a) R 1 (b)) S 17 4242 4240 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 987654 1000 20 \
        18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";

    #[test]
    fn collect_reads_cgroup_stats() {
        let cpu = b"usage_usec 123456789\nuser_usec 100\nsystem_usec 23\n";
        assert_eq!(cpu_usage_usec(cpu), Some(123_456_789));
        assert_eq!(single(b"4294967296\n"), Some(4_294_967_296));
        assert_eq!(anon_and_shmem(b"anon 4096\nfile 999999\nkernel 1\nshmem 8192\nanon_thp 5\n"), Some(12_288));
        let io = b"8:0 rbytes=1234 wbytes=5678 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n259:0 rbytes=1 wbytes=2\n";
        assert_eq!(io_stat(io), Some(IoBytes { read: 1235, write: 5680 }));
        assert_eq!(io_stat(b""), Some(IoBytes::default()));
        assert_eq!(pids(b"12345\n0\nx\n-3\n7\n").collect::<Vec<_>>(), [12345, 7]);
    }

    #[test]
    fn a_process_may_have_brackets_in_its_name() {
        let stat = process_stat(STAT).unwrap();
        let expected = ProcessStat { state: b'S', ppid: 17, session: 4240, cpu_ticks: 200, start_ticks: 987_654 };
        assert_eq!(stat, expected);
        assert!(!stat.has_ended());
    }

    #[test]
    fn files_of_a_real_process_are_understood() {
        let me = std::fs::read("/proc/self/stat").unwrap();
        let stat = process_stat(&me).unwrap();
        assert!(stat.start_ticks > 0 && stat.ppid > 0);
        let memory = resident(&std::fs::read("/proc/self/status").unwrap()).unwrap();
        assert!(memory.anon > 0 && memory.file > 0);
        assert!(process_io(&std::fs::read("/proc/self/io").unwrap()).is_some());
        assert!(uptime_ticks(&std::fs::read("/proc/uptime").unwrap(), 100).unwrap() >= stat.start_ticks / 100 * 100);
    }

    #[test]
    fn memory_and_io_of_a_process_are_bytes() {
        let status =
            b"Name:\tx\nState:\tS (sleeping)\nVmRSS:\t 9 kB\nRssAnon:\t     4 kB\nRssFile:\t 3 kB\nRssShmem:\t 2 kB\n";
        assert_eq!(resident(status), Some(Resident { anon: 4096, file: 3072, shmem: 2048 }));
        assert_eq!(resident(b"Name:\tx\nState:\tZ (zombie)\n"), Some(Resident::default()));
        let io = b"rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n";
        assert_eq!(process_io(io), Some(IoBytes { read: 4096, write: 8192 }));
    }

    #[test]
    fn garbage_is_none_and_never_a_panic() {
        let huge = b"99999999999999999999999";
        for bad in [b"".as_slice(), b"\n", b"max\n", b"-1\n", b"1 2\n", huge, b"\xff\xfe", b"0x10", b"1e9"] {
            assert_eq!(single(bad), None, "{bad:?}");
            assert_eq!(cpu_usage_usec(&[b"usage_usec ", bad].concat()), None, "{bad:?}");
            assert_eq!(io_stat(&[b"8:0 rbytes=", bad].concat()).filter(|io| io.read > 1), None, "{bad:?}");
            assert_eq!(process_stat(bad), None);
            assert_eq!(process_stat(&[STAT.get(..20).unwrap(), bad].concat()), None);
            assert_eq!(resident(bad), None);
            assert_eq!(process_io(bad), None);
        }
        assert_eq!(cpu_usage_usec(b"usage_usec18 4\nnusage_usec 3\n"), None);
        assert_eq!(io_stat(b"8:0 rbytes=18446744073709551615\n8:1 rbytes=1\n"), None);
        assert_eq!(anon_and_shmem(b"anon 18446744073709551615\nshmem 1\n"), None);
        assert_eq!(resident(b"State:\tS\nRssAnon:\t18446744073709551615 kB\n"), None);
        for cut in 0..STAT.len() {
            process_stat(&STAT[..cut]);
        }
    }
}
