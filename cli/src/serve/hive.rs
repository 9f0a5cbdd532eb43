//! `rbee hive`, and the helper process that it starts.

use super::{agent, stop_signal};
use crate::args::{Global, GpuProbe, Hive};
use crate::failure::Failure;
use crate::terminal;

/// Runs the agent until a signal ends it. Its workers live on.
pub async fn run(global: &Global, args: Hive) -> Result<(), Failure> {
    let stopping = stop_signal()?;
    let file = agent::file(&args.agent)?;
    let config = agent::config(global, args.agent, file, None)?;
    let (socket, slice) = (config.socket.clone(), config.slice.clone());
    let hive = ::hive::Hive::open(config, stopping)
        .await
        .map_err(|error| Failure::failed(&format!("failed to start a hive on slice {slice}"), &error))?;
    terminal::put(format!("{}\n", socket.display()))?;
    hive.run().await.map_err(|error| Failure::failed("the hive ended", &error))
}

/// Answers GPU rounds on stdin and stdout until the hive closes them.
pub fn gpu_probe(args: &GpuProbe) -> Result<(), Failure> {
    let args = ::hive::sample::gpu::ProbeArgs {
        nvml_library: args.nvml_library.clone(),
        nvidia_smi: args.nvidia_smi.clone(),
        lock: args.lock.clone(),
        proc_root: args.proc_root.clone(),
        sys_root: args.sys_root.clone(),
        host_proc: args.host_proc.clone(),
        trust_pids: args.trust_gpu_pids,
    };
    ::hive::sample::gpu::probe(&args).map_err(|error| Failure::failed("failed to look at the GPUs", &error))
}
