//! `deploy/Dockerfile`: what hadolint says of it, and that it agrees with the rest of the project.

use std::{fs, process::Command};

fn read(path: &str) -> String {
    fs::read_to_string(parts::root().join(path)).unwrap()
}

#[test]
fn hadolint_finds_nothing() {
    let file = parts::root().join("deploy/Dockerfile");
    let output = Command::new(parts::checker("hadolint")).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn it_builds_with_our_compiler_and_takes_every_source() {
    let (dockerfile, toolchain) = (read("deploy/Dockerfile"), read("rust-toolchain.toml"));
    let channel = toolchain.split('"').nth(1).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-")), "{channel}");
    assert!(dockerfile.contains(&format!("RUSTUP_TOOLCHAIN={channel}\n")), "{channel}");
    let (taken, manifest) = (read("deploy/Dockerfile.dockerignore"), read("Cargo.toml"));
    let taken: Vec<_> = taken.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let members = manifest.lines().find(|line| line.starts_with("members = ")).unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        assert!(taken.iter().any(|folder| member.starts_with(folder)), "{member} is left out");
    }
}
