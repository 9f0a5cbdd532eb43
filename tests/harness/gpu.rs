//! The fake NVML library: where it lies, and the scripts that steer it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static LIBRARY: OnceLock<PathBuf> = OnceLock::new();

/// Path of the fake library; built when this build has not made it yet.
pub fn fake_nvml() -> PathBuf {
    LIBRARY.get_or_init(find_or_build).clone()
}

fn find_or_build() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("target/<profile>");
    let library = profile.join("libfake_nvml.so");
    if !library.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let built = Command::new(cargo).args(["build", "-p", "fake-nvml"]).current_dir(root).status();
        assert!(built.is_ok_and(|status| status.success()), "cargo build -p fake-nvml");
    }
    assert!(library.exists(), "{} is missing", library.display());
    library
}

/// Two GPUs, both used by `pid`: 4 and 8 GiB, neither computing.
pub fn steer_two_gpus(script: &Path, pid: u64) {
    let gib = 1u64 << 30;
    steer(script, &format!("gpus = 2\nprocess = 0 {pid} {} 0\nprocess = 1 {pid} {} 0\n", 4 * gib, 8 * gib));
}

/// From now on the driver never answers.
pub fn steer_hang(script: &Path) {
    steer(script, "gpus = 2\nhang = all\n");
}

/// Replaces the script whole: the library may read it at any moment.
fn steer(script: &Path, text: &str) {
    let next = script.with_extension("next");
    std::fs::write(&next, text).expect("write the script");
    std::fs::rename(&next, script).expect("put the script in place");
}
