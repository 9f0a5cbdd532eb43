//! Compiles `proto/rbee/v1/*.proto` without `protoc`, and writes the descriptor set that server reflection serves.
use prost::Message;

const FILES: [&str; 7] = [
    "rbee/v1/worker.proto",
    "rbee/v1/hive.proto",
    "rbee/v1/telemetry.proto",
    "rbee/v1/fleet.proto",
    "rbee/v1/scheduler.proto",
    "rbee/v1/control.proto",
    "rbee/v1/grant.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".rbee.v1.StreamLogsResponse.chunk")
        .bytes(".rbee.v1.AttachRequest.data")
        .bytes(".rbee.v1.AttachResponse.data")
        .compile_fds(descriptors)?;
    Ok(())
}
