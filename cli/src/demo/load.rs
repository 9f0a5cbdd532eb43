//! The three loads of demo workers, as functions of the time since their start.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Memory comes and goes in blocks of this size.
const BLOCK: usize = 4 * MIB;
/// From one change of memory, and one move of blocks, to the next.
const BEAT: Duration = Duration::from_secs(1);

/// What a worker does with the machine, from its low to its high tide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Part of one core, 0 to 1.
    duty: (f64, f64),
    /// Bytes.
    memory: (usize, usize),
    /// Bytes written and read back each second.
    blocks: (usize, usize),
    /// From one high tide to the next.
    period: Duration,
    /// At low tide except for a sixth of the period.
    mostly_idle: bool,
}

impl Load {
    /// The first is steady, the second comes in waves, the third is mostly idle; then it begins again.
    pub fn of(profile: u32) -> Self {
        let load = |duty, memory: (usize, usize), blocks: (usize, usize), seconds, mostly_idle| Self {
            duty,
            memory: (memory.0 * MIB, memory.1 * MIB),
            blocks: (blocks.0 * 1024, blocks.1 * 1024),
            period: Duration::from_secs(seconds),
            mostly_idle,
        };
        match profile % 3 {
            0 => load((0.20, 0.45), (48, 80), (128, 512), 20, false),
            1 => load((0.40, 0.90), (96, 192), (1_024, 4_096), 12, false),
            _ => load((0.01, 0.60), (32, 40), (4, 256), 36, true),
        }
    }

    /// Where the tide stands, 0 to 1.
    fn tide(&self, age: Duration) -> f64 {
        let turn = (age.as_secs_f64() / self.period.as_secs_f64()).fract();
        if self.mostly_idle {
            return if turn > 5.0 / 6.0 { 1.0 } else { 0.0 };
        }
        0.5 - 0.5 * (turn * std::f64::consts::TAU).cos()
    }

    /// The part of a core to use at this age, 0 to 1.
    pub fn duty(&self, age: Duration) -> f64 {
        self.duty.0 + (self.duty.1 - self.duty.0) * self.tide(age)
    }

    fn bytes(&self, range: (usize, usize), age: Duration) -> usize {
        range.0 + ((range.1 - range.0) as f64 * self.tide(age)) as usize
    }
}

/// Uses a CPU for a part of a turn, and leaves it alone for the rest.
pub fn burn(duty: f64, turn: Duration) {
    let started = Instant::now();
    let busy = turn.mul_f64(duty.clamp(0.0, 1.0));
    let mut sum = 0_u64;
    while started.elapsed() < busy {
        for step in 0..1_000_u64 {
            sum = std::hint::black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step));
        }
    }
    std::thread::sleep(turn.saturating_sub(started.elapsed()));
}

/// Holds memory that rises and falls, every page of it touched.
pub fn hold_memory(load: Load, started: Instant) {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        let wanted = load.bytes(load.memory, started.elapsed()) / BLOCK;
        blocks.truncate(wanted);
        while blocks.len() < wanted {
            blocks.push(vec![1; BLOCK]);
        }
        std::hint::black_box(&blocks);
        std::thread::sleep(BEAT);
    }
}

/// Writes and reads back a file that has no name, past the page cache, so that a disk really works.
pub fn move_blocks(load: Load, started: Instant) {
    let mut failed = false;
    let mut file = None;
    loop {
        let bytes = load.bytes(load.blocks, started.elapsed());
        let moved = match &file {
            Some(file) => move_once(file, bytes),
            None => nameless().map(|made| file = Some(made)),
        };
        if let (Err(error), false) = (&moved, failed) {
            crate::terminal::say(format_args!("demo worker: moves no blocks: {error}"));
        }
        failed = moved.is_err();
        std::thread::sleep(BEAT);
    }
}

/// `/var/tmp` is on a disk where `/tmp` may be memory.
fn nameless() -> std::io::Result<File> {
    let mut last = std::io::Error::other("no temporary directory");
    for directory in [Path::new("/var/tmp"), &std::env::temp_dir()] {
        let path = directory.join(format!("rbee-demo-{}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn move_once(file: &File, bytes: usize) -> std::io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    // Differs each time, so that no layer below can leave the write out.
    let seed = std::process::id() as usize ^ bytes;
    let mut block: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(31) ^ seed) as u8).collect();
    file.write_all_at(&block, 0)?;
    file.sync_data()?;
    drop_pages(file)?;
    file.read_exact_at(&mut block, 0)
}

#[cfg(target_os = "linux")]
fn drop_pages(file: &File) -> std::io::Result<()> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// Elsewhere the pages may stay, and what is read comes from them.
#[cfg(not(target_os = "linux"))]
fn drop_pages(_: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_differ_and_move() {
        let at = |seconds| Duration::from_secs(seconds);
        let [steady, waves, idle] = [0, 1, 2].map(Load::of);
        assert!(steady.duty(at(10)) > steady.duty(at(0)) + 0.2);
        assert!(waves.duty(at(6)) > 0.85 && waves.duty(at(0)) > 0.35);
        assert!(idle.duty(at(10)) < 0.02, "below what counts as idle");
        assert_eq!(idle.duty(at(35)), 0.6);
        assert!(waves.bytes(waves.memory, at(6)) > steady.bytes(steady.memory, at(10)));
        for load in [steady, waves, idle] {
            assert!((0..100).all(|second| (0.0..=1.0).contains(&load.duty(at(second)))));
        }
    }

    #[test]
    fn blocks_can_be_moved_and_leave_nothing_behind() {
        let file = nameless().unwrap();
        move_once(&file, 8_192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8_192);
    }
}
