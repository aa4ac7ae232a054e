//! Where the installed components and our own binaries are; installs and builds what is missing. Never looks on
//! the PATH.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex},
};

/// The folder of components: `KEYMETER_PARTS` if set, else what `deploy/local/install` says.
static PARTS: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(folder) = env::var_os("KEYMETER_PARTS") {
        return folder.into();
    }
    let output = Command::new(root().join("deploy/local/install")).output().expect("bash runs the script");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cannot install the components of tests; run deploy/local/install\n{message}"
    );
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
});

/// The root of the work tree.
#[must_use]
pub fn root() -> &'static Path {
    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    Path::new(ROOT)
}

/// A file or folder in the folder of components.
///
/// # Panics
/// If it is not there.
pub(crate) fn component(path: &str) -> PathBuf {
    let found = PARTS.join(path);
    assert!(
        found.exists(),
        "{} is missing: unset KEYMETER_PARTS and run deploy/local/install --browser --checks",
        found.display()
    );
    found
}

/// The ClickHouse engine.
///
/// # Panics
/// If it cannot be installed.
#[must_use]
pub fn libchdb() -> PathBuf {
    component("lib/libchdb.so")
}

/// Python with `clickhouse-connect`.
///
/// # Panics
/// If it cannot be installed.
#[must_use]
pub fn python() -> PathBuf {
    component("bin/python")
}

/// Node modules of the browser tests, after `deploy/local/install --browser`.
///
/// # Panics
/// If they are not installed.
#[must_use]
pub fn node_modules() -> PathBuf {
    component("node_modules")
}

/// A program that checks files of `deploy/`, after `deploy/local/install --checks`.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn checker(name: &str) -> PathBuf {
    component(&format!("checks/bin/{name}"))
}

/// An installed component by the name of its program (`nats-server`, `buf`, `python`), or else a binary of this
/// workspace, built from the current sources unless `KEYMETER_BINARIES_BUILT` says that it was.
///
/// # Panics
/// If it cannot be installed or built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    match name {
        "nats-server" | "buf" | "python" => component(&format!("bin/{name}")),
        _ => {
            let other = OTHER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            other.map_or_else(|| built(name), |folder| folder.join(name))
        }
    }
}

/// Where our own binaries come from if not from this workspace.
static OTHER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on [`binary`] takes our own from `folder`, those of another version say; `None` is from this workspace.
pub fn use_binaries(folder: Option<&Path>) {
    *OTHER.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = folder.map(Path::to_owned);
}

/// Whether our own binaries are those of this workspace.
pub(crate) fn is_own() -> bool {
    OTHER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_none()
}

/// A binary of another package of the workspace: cargo builds only those of the tested package by itself.
fn built(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let folder = profile_folder();
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if env::var_os("KEYMETER_BINARIES_BUILT").is_none() && !built.iter().any(|done| done == name) {
        build(name, &folder);
        built.push(name.to_owned());
    }
    let binary = folder.join(name);
    assert!(binary.exists(), "{} is missing: run cargo build --bins", binary.display());
    binary
}

/// `target/debug` of `target/debug/deps/<test>`; another folder for another profile.
fn profile_folder() -> PathBuf {
    let test =
        fs::canonicalize(env::current_exe().expect("a process knows its file")).expect("the file exists");
    let folder = test.ancestors().nth(1).expect("a file is in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps is in target").to_owned()
    } else {
        folder.to_owned()
    }
}

fn build(name: &str, folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--bin", name, "--profile", profile, "--target-dir"])
        .arg(folder.parent().expect("a profile's folder is in the target folder"))
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cannot build {name}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_is_installed() {
        assert!(libchdb().is_file());
        assert!(binary("buf").is_file());
        let version = Command::new(binary("nats-server")).arg("--version").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), "nats-server: v2.15.1");
        let import = Command::new(python()).args(["-c", "import clickhouse_connect"]).status().unwrap();
        assert!(import.success());
    }
}
