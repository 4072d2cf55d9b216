//! Compiles `proto/` without `protoc`, and keeps the descriptor set for server reflection and the terminal's JSON.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "sessionsidecar/v1/session_service.proto",
        "sessionsidecar/v1/session_admin_service.proto",
        "sessionsidecar/dev/v1/test_clock_service.proto",
        "envoy/service/auth/v3/external_auth.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .codec_path("crate::rpc::codec::BoundedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
