//! Where this hive may make cgroups, and what the kernel lets it do there. Found by trying, not by versions.

use super::write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The controllers that are passed on to workers as far as they exist.
pub const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];
/// The files without which a limit cannot be set, and their controllers.
const LIMIT_FILES: [(&str, &str); 2] = [("cpu.max", "cpu"), ("memory.max", "memory")];
/// Made and removed again to see which files the kernel puts into it. Not a worker's name.
const PROBE: &str = ".probe";
/// The longest name of a slice, in bytes.
const SLICE_MAX: usize = 64;

/// A slice name that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "slice {0:?} is not a name: use 1 to 64 of letters, digits, '.', '_' and '-', beginning with a letter or digit"
)]
pub struct SliceError(pub String);

/// The ground that workers stand on here.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The slice's directory; `None`: no cgroups for us, the last step of the ladder.
    pub root: Option<PathBuf>,
    /// The step that this machine offers.
    pub level: proto::PlacementLevel,
    /// Why it is not FULL: a sentence each, with path and reason.
    pub reasons: Vec<String>,
    /// The first refusal: path and errno.
    pub refusal: Option<(PathBuf, i32)>,
}

/// Refuses a slice name that could leave the hierarchy.
pub fn check_slice(slice: &str) -> Result<(), SliceError> {
    let fits = slice.len() <= SLICE_MAX
        && slice.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && slice.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !slice.contains("..");
    if fits { Ok(()) } else { Err(SliceError(slice.chars().take(80).collect())) }
}

impl Ground {
    /// Looks for cgroup v2 below `cgroup_root`, else where `<proc>/self/mountinfo` says; makes the slice at the top,
    /// else below the hive's own cgroup. Never fails: what is missing is told in `reasons`.
    pub fn discover(slice: &str, cgroup_root: Option<&Path>, proc_root: &Path) -> Self {
        let mut ground = Self { root: None, level: proto::PlacementLevel::Process, reasons: Vec::new(), refusal: None };
        for parent in candidates(cgroup_root, proc_root) {
            let root = parent.join(slice);
            match claim(&root) {
                Ok(()) => {
                    ground.reasons.clear();
                    ground.refusal = None;
                    ground.survey(&parent, root);
                    return ground;
                }
                Err((path, error)) => ground.refuse(path, &error),
            }
        }
        if ground.reasons.is_empty() {
            ground.reasons.push(format!(
                "no cgroup v2 hierarchy is mounted according to {}",
                proc_root.join("self/mountinfo").display()
            ));
        }
        ground
    }

    fn survey(&mut self, parent: &Path, root: PathBuf) {
        let mut failures = Vec::new();
        for directory in [parent, &root] {
            for controller in CONTROLLERS {
                if let Err(error) = enable(directory, controller) {
                    failures.push((controller, directory.join("cgroup.subtree_control"), error));
                }
            }
        }
        self.level = proto::PlacementLevel::Cgroup;
        let probe = root.join(PROBE);
        let made = fs::create_dir(&probe);
        if let Err(error) = &made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            self.refuse(probe, error);
            self.level = proto::PlacementLevel::Process;
            return;
        }
        let mut missing = 0;
        for (file, controller) in LIMIT_FILES {
            let Err(error) = fs::metadata(probe.join(file)) else { continue };
            missing += 1;
            match failures.iter().find(|failure| failure.0 == controller) {
                Some((_, path, cause)) => self
                    .reasons
                    .push(format!("{file} is not available: enabling +{controller} in {}: {cause}", path.display())),
                None => self.reasons.push(format!("{file} is not available below {}: {error}", root.display())),
            }
        }
        if missing == 0 {
            self.level = proto::PlacementLevel::Full;
        }
        // A probe of plain files, as tests make one, stays.
        let _ = fs::remove_dir(&probe);
        self.root = Some(root);
    }

    fn refuse(&mut self, path: PathBuf, error: &io::Error) {
        self.reasons.push(format!("cgroups cannot be made: {}: {error}", path.display()));
        self.refusal.get_or_insert((path, error.raw_os_error().unwrap_or(libc::EIO)));
    }
}

/// Passes one controller on to the cgroups below `directory`. ENOENT: the kernel does not offer it here.
pub fn enable(directory: &Path, controller: &str) -> io::Result<()> {
    let control = directory.join("cgroup.subtree_control");
    if lists(&control, controller)? {
        return Ok(());
    }
    write(&control, &format!("+{controller}"))
}

fn lists(path: &Path, controller: &str) -> io::Result<bool> {
    Ok(fs::read_to_string(path)?.split_whitespace().any(|name| name == controller))
}

/// Makes the slice's directory and sees whether the hive may make others in it.
fn claim(root: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |error: io::Error| (root.to_owned(), error);
    match fs::create_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(error)),
        _ => {}
    }
    nix::unistd::access(root, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
        .map_err(|errno| at(errno.into()))
}

/// The directories that may hold the slice, best first.
fn candidates(cgroup_root: Option<&Path>, proc_root: &Path) -> Vec<PathBuf> {
    if let Some(root) = cgroup_root {
        return vec![root.to_owned()];
    }
    let mounts = fs::read_to_string(proc_root.join("self/mountinfo")).unwrap_or_default();
    let Some(mount) = cgroup2_mount(&mounts) else { return Vec::new() };
    let own = fs::read_to_string(proc_root.join("self/cgroup")).unwrap_or_default();
    let mut found = vec![mount.clone()];
    if let Some(path) = own_cgroup(&own) {
        found.push(mount.join(path));
    }
    found
}

/// The first cgroup2 mount point in a mountinfo file, whose blanks are written as `\040`.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next() == Some("cgroup2")).then_some(())?;
        Some(PathBuf::from(left.split(' ').nth(4)?.replace("\\040", " ")))
    })
}

/// The hive's own v2 cgroup, relative to the mount; `None` when that is the top or lies outside the mount.
fn own_cgroup(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty() && !path.split('/').any(|part| part == "..")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_in_mountinfo() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mount(mounts), Some(PathBuf::from("/sys/fs/cgroup/uni fied")));
        assert_eq!(cgroup2_mount(""), None);
        assert_eq!(own_cgroup("9:name=systemd:/\n0::/user.slice/u.service\n"), Some("user.slice/u.service"));
        assert_eq!(own_cgroup("0::/\n"), None);
        assert_eq!(own_cgroup("0::/../x\n"), None);
    }

    #[test]
    fn a_ground_says_why_it_is_not_full() {
        let top = tempfile::tempdir().unwrap();
        let ground = Ground::discover("t.slice", Some(top.path()), Path::new("/proc"));
        assert_eq!(ground.level, proto::PlacementLevel::Cgroup);
        assert_eq!(ground.reasons.len(), 2, "{:?}", ground.reasons);
        assert!(
            ground.reasons[0].contains("cpu.max") && ground.reasons[0].contains("os error 2"),
            "{:?}",
            ground.reasons
        );
        let nowhere = Ground::discover("t.slice", Some(Path::new("/nowhere")), Path::new("/proc"));
        assert_eq!((nowhere.level, nowhere.root), (proto::PlacementLevel::Process, None));
        assert!(nowhere.reasons[0].contains("/nowhere/t.slice"), "{:?}", nowhere.reasons);
        let unmounted = Ground::discover("t.slice", None, top.path());
        assert_eq!((unmounted.level, unmounted.reasons.len()), (proto::PlacementLevel::Process, 1));
    }

    #[test]
    fn a_ground_with_every_limit_file_is_full() {
        let top = tempfile::tempdir().unwrap();
        let probe = top.path().join("t.slice").join(PROBE);
        fs::create_dir_all(&probe).unwrap();
        for (file, _) in LIMIT_FILES {
            fs::write(probe.join(file), "max").unwrap();
        }
        let ground = Ground::discover("t.slice", Some(top.path()), Path::new("/proc"));
        assert_eq!((ground.level, ground.reasons), (proto::PlacementLevel::Full, Vec::new()));
    }

    #[test]
    fn controllers_are_enabled_one_by_one() {
        let top = tempfile::tempdir().unwrap();
        assert_eq!(enable(top.path(), "cpu").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let control = top.path().join("cgroup.subtree_control");
        fs::write(&control, "memory").unwrap();
        enable(top.path(), "memory").unwrap();
        assert_eq!(fs::read_to_string(&control).unwrap(), "memory");
        fs::write(&control, "").unwrap();
        enable(top.path(), "cpu").unwrap();
        assert_eq!(fs::read_to_string(&control).unwrap(), "+cpu");
    }

    #[test]
    fn slices_that_could_leave_the_hierarchy_are_refused() {
        for bad in ["", "..", "a/b", "../x", ".x", "a b", &"a".repeat(65)] {
            assert!(check_slice(bad).is_err(), "{bad:?}");
        }
        assert!(check_slice("rbee.slice").is_ok());
    }
}
