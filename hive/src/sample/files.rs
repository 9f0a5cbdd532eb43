//! Kernel files: opened below a directory that is itself held, kept open between ticks and read at offset 0 into one
//! reused buffer. An open file names one incarnation for ever: once that is gone, reading says so.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// First size of the buffer; most kernel files are shorter.
const BUFFER_BYTES: usize = 16 * 1024;
/// Files are read up to here; what is longer counts as unreadable.
const BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The kernel hands out lists in portions of one page, so a shorter read than half of one was the last.
const PORTION_BYTES: usize = 2048;

/// Why a file told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Its cgroup or process no longer exists. That is news, not an error.
    Gone,
    /// This process has no more file descriptors to open it with.
    NoDescriptors,
    /// It exists and cannot be read or understood.
    Unreadable,
}

impl From<Errno> for Silence {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ENODEV | Errno::ESRCH => Self::Gone,
            Errno::EMFILE | Errno::ENFILE => Self::NoDescriptors,
            _ => Self::Unreadable,
        }
    }
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::Unreadable, |errno| Errno::from_raw(errno).into())
    }
}

/// The buffer that every file is read into.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER_BYTES])
    }
}

impl Buffer {
    /// Reads a file that the kernel makes as one record (`cpu.stat`, `/proc/<pid>/status`): one system call.
    pub fn record(&mut self, file: &File) -> Result<&[u8], Silence> {
        loop {
            let length = self.read_at(file, 0)?;
            if length < self.0.len() {
                return self.0.get(..length).ok_or(Silence::Unreadable);
            }
            self.grow()?;
        }
    }

    /// Reads a file that is a list (`cgroup.procs`, `/proc/net/tcp`), which comes in portions.
    pub fn list(&mut self, file: &File) -> Result<&[u8], Silence> {
        let mut length = 0;
        loop {
            if length == self.0.len() {
                self.grow()?;
            }
            let portion = self.read_at(file, length)?;
            length += portion;
            if portion == 0 || (portion < PORTION_BYTES && length < self.0.len()) {
                return self.0.get(..length).ok_or(Silence::Unreadable);
            }
        }
    }

    fn read_at(&mut self, file: &File, offset: usize) -> Result<usize, Silence> {
        let space = self.0.get_mut(offset..).unwrap_or_default();
        loop {
            match file.read_at(space, offset as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Ok(other?),
            }
        }
    }

    fn grow(&mut self) -> Result<(), Silence> {
        if self.0.len() >= BUFFER_BYTES_MAX {
            return Err(Silence::Unreadable);
        }
        self.0.resize(self.0.len() * 2, 0);
        Ok(())
    }
}

/// Opens a directory.
pub fn open_dir(path: &Path) -> Result<OwnedFd, Silence> {
    Ok(open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens a file below a directory.
pub fn open_below(dir: impl AsFd, name: &[u8]) -> Result<File, Silence> {
    Ok(File::from(openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?))
}

/// The path `<pid>/<file>`, written without allocating.
pub fn below_pid<'a>(space: &'a mut [u8; 48], pid: i32, file: &str) -> &'a [u8] {
    let whole = space.len();
    let mut rest = space.as_mut_slice();
    // Fits: a pid has at most 11 characters, and the names are ours.
    let written = match write!(rest, "{pid}/{file}") {
        Ok(()) => whole - rest.len(),
        Err(_) => 0,
    };
    &space[..written]
}

/// The files of one worker's cgroup, as far as the machine has them.
#[derive(Debug)]
pub struct CgroupFiles {
    dir: OwnedFd,
    /// Inode of the directory.
    pub inode: u64,
    /// `cpu.stat`.
    pub cpu_stat: Option<File>,
    /// `memory.current`, with the memory controller.
    pub memory_current: Option<File>,
    /// `memory.stat`, with the memory controller.
    pub memory_stat: Option<File>,
    /// `io.stat`, with the io controller.
    pub io_stat: Option<File>,
    /// `cgroup.procs`.
    pub procs: Option<File>,
}

impl CgroupFiles {
    /// Opens what is there. `inode` tells the incarnation that is wanted; another one under the same name is `Gone`.
    pub fn open(path: &Path, inode: Option<u64>) -> Result<Self, Silence> {
        let dir = open_dir(path)?;
        let found = fstat(&dir)?.st_ino;
        if inode.is_some_and(|wanted| found != wanted) {
            return Err(Silence::Gone);
        }
        let probe = |name: &str| match open_below(&dir, name.as_bytes()) {
            Ok(file) => Ok(Some(file)),
            Err(Silence::NoDescriptors) => Err(Silence::NoDescriptors),
            Err(Silence::Gone | Silence::Unreadable) => Ok(None),
        };
        let cpu_stat = probe("cpu.stat")?;
        let memory_current = probe("memory.current")?;
        let memory_stat = probe("memory.stat")?;
        let io_stat = probe("io.stat")?;
        let procs = probe("cgroup.procs")?;
        Ok(Self { dir, inode: found, cpu_stat, memory_current, memory_stat, io_stat, procs })
    }

    /// How many descriptors this holds.
    pub fn descriptors(&self) -> usize {
        let files = [&self.cpu_stat, &self.memory_current, &self.memory_stat, &self.io_stat, &self.procs];
        1 + files.into_iter().flatten().count()
    }

    /// Whether there are cgroups below: the kernel counts them as links.
    pub fn has_children(&self) -> bool {
        fstat(&self.dir).is_ok_and(|stat| stat.st_nlink > 2)
    }
}

/// The files of one process that are read each tick where the cgroup does not tell.
#[derive(Debug)]
pub struct ProcessFiles {
    /// `status`.
    pub status: File,
    /// `io`; `None` where the kernel does not let us.
    pub io: Option<File>,
}

impl ProcessFiles {
    /// How many descriptors this may hold.
    pub const DESCRIPTORS: usize = 2;

    /// Opens both, and tells when the process started (ticks since boot) and its CPU time (ticks). All through one
    /// handle on its directory, so that they are of one process even when its pid is used again.
    pub fn open(proc_dir: impl AsFd, pid: i32, buffer: &mut Buffer) -> Result<(Self, u64), Silence> {
        let mut space = [0; 48];
        let path = below_pid(&mut space, pid, "");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(proc_dir, path, flags, Mode::empty())?;
        let stat = open_below(&dir, b"stat")?;
        let start_ticks = super::counters::process_stat(buffer.record(&stat)?).ok_or(Silence::Unreadable)?.start_ticks;
        let status = open_below(&dir, b"status")?;
        let io = match open_below(&dir, b"io") {
            Ok(file) => Some(file),
            Err(Silence::Unreadable) => None,
            Err(silence) => return Err(silence),
        };
        Ok((Self { status, io }, start_ticks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_longer_than_a_portion_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let text = "4242\n".repeat(10_000);
        std::fs::write(dir.path().join("list"), &text).unwrap();
        let file = File::open(dir.path().join("list")).unwrap();
        let mut buffer = Buffer::default();
        assert_eq!(buffer.list(&file), Ok(text.as_bytes()));
        assert_eq!(buffer.record(&file), Ok(text.as_bytes()));
    }

    #[test]
    fn an_endless_file_is_unreadable_and_not_endless_memory() {
        let file = File::open("/dev/zero").unwrap();
        assert_eq!(Buffer::default().list(&file), Err(Silence::Unreadable));
        assert_eq!(Buffer::default().record(&file), Err(Silence::Unreadable));
    }

    #[test]
    fn another_incarnation_of_a_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let inode = fstat(open_dir(dir.path()).unwrap()).unwrap().st_ino;
        assert!(CgroupFiles::open(dir.path(), Some(inode)).is_ok());
        assert_eq!(CgroupFiles::open(dir.path(), Some(inode + 1)).err(), Some(Silence::Gone));
        assert_eq!(CgroupFiles::open(&dir.path().join("no"), None).err(), Some(Silence::Gone));
    }

    #[test]
    fn a_held_file_of_an_ended_process_says_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let proc_dir = open_dir(Path::new("/proc")).unwrap();
        let mut buffer = Buffer::default();
        let pid = i32::try_from(child.id()).unwrap();
        let (files, start_ticks) = ProcessFiles::open(&proc_dir, pid, &mut buffer).unwrap();
        assert!(start_ticks > 0 && buffer.record(&files.status).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(buffer.record(&files.status).err(), Some(Silence::Gone));
        assert_eq!(ProcessFiles::open(&proc_dir, pid, &mut buffer).err(), Some(Silence::Gone));
    }
}
