//! Compiles the .proto files in pure Rust, so that no protoc is needed, and keeps the descriptors for
//! reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 8] = [
    "keymeter/events/v1/events.proto",
    "keymeter/keys/v1/audit.proto",
    "keymeter/keys/v1/keys.proto",
    "keymeter/keys/v1/members.proto",
    "keymeter/keys/v1/service_tokens.proto",
    "keymeter/keys/v1/sessions.proto",
    "keymeter/keys/v1/workspaces.proto",
    "keymeter/usage/v1/usage.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=keymeter");
    println!("cargo:rerun-if-changed=third_party");
    let descriptors = protox::compile(FILES, [".", "third_party"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Pieces of files are passed on, not copied.
    tonic_prost_build::configure()
        .bytes(".keymeter.usage.v1.ExportRequestsResponse.data")
        .boxed(".keymeter.usage.v1.Condition.kind.match")
        .compile_fds(descriptors)?;
    Ok(())
}
