//! Starts of real processes: what they inherit, how they fail, and when they do not begin at all.

use super::*;
use crate::worker::sys::parts::{Account, Down, Ended};
use std::io::Read;
use std::os::fd::AsFd;

fn exec(program: &str, arguments: &[&str], directory: Option<&str>) -> (Exec, File) {
    let log = tempfile::tempfile().unwrap();
    let text = |text: &str| CString::new(text).unwrap();
    let exec = Exec {
        program: text(program),
        arguments: std::iter::once(program).chain(arguments.iter().copied()).map(text).collect(),
        environment: vec![text("A=b")],
        log: log.try_clone().unwrap().into(),
        null: File::open("/dev/null").unwrap().into(),
        down: Down { directory: directory.map(text), ..Down::default() },
        patience: hung::Patience::default(),
    };
    (exec, log)
}

fn wait(child: &Child) -> Ended {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(10_000u16)).unwrap(), 1, "no end within 10 s");
    pidfd::reap(&child.pidfd).unwrap().unwrap()
}

#[test]
fn each_failing_step_is_named_with_its_errno() {
    let fault =
        start(&exec("/nowhere/llm", &[], None).0, &Tuning::default(), Place::Nowhere, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!((fault.step, fault.source.raw_os_error()), (Step::Exec, Some(libc::ENOENT)));
    let fault =
        start(&exec("/bin/sh", &[], Some("/nowhere")).0, &Tuning::default(), Place::Nowhere, &mut |_, _| Ok(()))
            .unwrap_err();
    assert_eq!((fault.step, fault.source.raw_os_error()), (Step::Directory, Some(libc::ENOENT)));
    let plain = File::open("/dev/null").unwrap();
    let fault =
        start(&exec("/bin/sh", &[], None).0, &Tuning::default(), Place::Join(plain.as_fd()), &mut |_, _| Ok(()))
            .unwrap_err();
    assert_eq!((fault.step, fault.source.raw_os_error()), (Step::Join, Some(libc::EBADF)));
}

#[test]
fn a_child_has_its_own_session_plain_signals_and_no_other_files() {
    let script = "trap '' USR1; ls /proc/self/fd | wc -l; grep -E 'SigBlk|SigIgn' /proc/self/status; echo $A";
    let (exec, mut log) = exec("/bin/sh", &["-c", script], None);
    let child = start(&exec, &Tuning::default(), Place::Nowhere, &mut |_, _| Ok(())).unwrap();
    assert_eq!(wait(&child), Ended::Code(0));
    let mut text = String::new();
    io::Seek::rewind(&mut log).unwrap();
    log.read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // 0, 1, 2 and the directory that ls itself reads.
    assert_eq!(lines[0].trim(), "4", "{text}");
    assert!(lines[1].ends_with("0000000000000000"), "{text}");
    let ignored = u64::from_str_radix(lines[2].rsplit(char::is_whitespace).next().unwrap(), 16).unwrap();
    let bit = |signal: i32| 1u64 << (signal - 1);
    // SIGUSR1 is ignored by the script, SIGPIPE by this process only.
    assert_eq!(ignored & (bit(libc::SIGUSR1) | bit(libc::SIGPIPE)), bit(libc::SIGUSR1), "{text}");
    assert_eq!(lines[3], "b", "{text}");
}

#[test]
fn the_end_of_a_child_is_told_by_code_or_signal() {
    let child =
        start(&exec("/bin/sh", &["-c", "exit 7"], None).0, &Tuning::default(), Place::Nowhere, &mut |_, _| Ok(()))
            .unwrap();
    assert_eq!(wait(&child), Ended::Code(7));
    let child =
        start(&exec("/bin/sh", &["-c", "kill -9 $$"], None).0, &Tuning::default(), Place::Nowhere, &mut |_, _| Ok(()))
            .unwrap();
    assert_eq!(wait(&child), Ended::Signal(9));
    assert_eq!(
        pidfd::send(child.pidfd.as_fd(), nix::sys::signal::Signal::SIGTERM).unwrap_err().raw_os_error(),
        Some(libc::ESRCH)
    );
}

#[test]
fn nothing_is_executed_that_is_not_written_down() {
    let place = tempfile::tempdir().unwrap();
    let mark = place.path().join("mark");
    let (exec, _log) = exec("/bin/sh", &["-c", &format!("echo > {}", mark.display())], None);
    let refused =
        start(&exec, &Tuning::default(), Place::Nowhere, &mut |_, _| Err(io::Error::from_raw_os_error(libc::ENOSPC)));
    let fault = refused.unwrap_err();
    assert_eq!((fault.step, fault.source.raw_os_error()), (Step::Record, Some(libc::ENOSPC)));
    assert!(!mark.exists());
}

#[test]
fn a_child_of_any_user_ends_with_a_hive_that_is_killed_before_exec() {
    let own = Down::default();
    let other = nix::unistd::User::from_name("nobody").unwrap().filter(|_| nix::unistd::geteuid().is_root());
    let account = other.map(|user| Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: vec![user.gid.as_raw()],
    });
    for down in [own, Down { account, ..Down::default() }] {
        let (mut exec, log) = exec("/bin/sh", &["-c", "echo executed"], None);
        exec.down = down;
        // A thread that ends in the middle is what a killed hive is to the child.
        let (tell, told) = std::sync::mpsc::channel();
        let killed = std::thread::spawn(move || {
            start(&exec, &Tuning::default(), Place::Nowhere, &mut |pid, _| {
                tell.send(pidfd::open(pid).unwrap()).unwrap();
                // SAFETY: ends this thread alone, without unwinding, as a kill would.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
                Ok(())
            })
        });
        let pidfd = told.recv().unwrap();
        assert_eq!(wait(&Child { pid: 0, pidfd }), Ended::Signal(9));
        assert_eq!(log.metadata().unwrap().len(), 0);
        // It left without a word, so nobody can wait for it.
        std::mem::forget(killed);
    }
}

/// What has little time to begin.
fn hasty() -> Exec {
    let (mut exec, _) = exec("/bin/sh", &["-c", "exit 7"], None);
    exec.patience.limit = std::time::Duration::from_millis(300);
    exec
}

fn assert_gone(pidfd: &OwnedFd) {
    let sent = pidfd::send(pidfd.as_fd(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::ESRCH), "it is killed and reaped");
}

#[test]
fn a_start_that_hangs_before_it_is_written_down_is_given_up_at_that_step() {
    // A pipe that takes no more blocks whoever writes to it.
    let (_reader, full) = pipe().unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&full, flags).unwrap();
    while nix::unistd::write(&full, &[0; 4096]).is_ok() {}
    nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut written = |_: i32, _: &[Fault]| -> io::Result<()> { panic!("it never settles") };
    let fault = start(&hasty(), &Tuning::default(), Place::Join(full.as_fd()), &mut written).unwrap_err();
    assert_eq!((fault.step, fault.source.kind()), (Step::Join, io::ErrorKind::TimedOut));
    assert!(fault.gave_up());
}

#[test]
fn a_start_that_hangs_at_exec_is_killed_and_given_up() {
    let mut held = None;
    let mut written = |pid: i32, _: &[Fault]| {
        let pidfd = pidfd::open(pid)?;
        // Suspended here, it goes through the gate no more.
        pidfd::send(pidfd.as_fd(), nix::sys::signal::Signal::SIGSTOP)?;
        held = Some(pidfd);
        Ok(())
    };
    let fault = start(&hasty(), &Tuning::default(), Place::Nowhere, &mut written).unwrap_err();
    assert_eq!((fault.step, fault.source.kind()), (Step::Exec, io::ErrorKind::TimedOut));
    assert_gone(&held.unwrap());
}

#[test]
fn a_start_that_nobody_wants_any_more_is_given_up_at_once() {
    let exec = Exec { patience: hung::Patience::default(), ..hasty() };
    let mut held = None;
    let mut written = |pid: i32, _: &[Fault]| {
        let pidfd = pidfd::open(pid)?;
        pidfd::send(pidfd.as_fd(), nix::sys::signal::Signal::SIGSTOP)?;
        held = Some(pidfd);
        exec.patience.given_up.cancel();
        Ok(())
    };
    let began = Instant::now();
    let fault = start(&exec, &Tuning::default(), Place::Nowhere, &mut written).unwrap_err();
    assert_eq!(fault.source.kind(), io::ErrorKind::Interrupted);
    assert!(began.elapsed() < exec.patience.limit);
    assert_gone(&held.unwrap());
}
