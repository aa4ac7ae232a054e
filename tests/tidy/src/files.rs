//! What every file looks like: a header, a size that can be read in one go, no leftovers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const LINES_MAX: usize = 500;
/// A process's beginning and end stay small enough to be no framework; lines of code, without comments,
/// blank lines and tests.
const BOOT_LINES_MAX: usize = 450;
const MAIN_LINES_MAX: usize = 40;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Files that git knows or would take, whose name ends so.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let list = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let names = String::from_utf8(list.stdout).expect("names are UTF-8");
    let files: Vec<_> = names
        .split('\0')
        .filter(|name| name.ends_with(ending) && !name.contains("third_party"))
        .filter_map(|name| Some((PathBuf::from(name), fs::read_to_string(root().join(name)).ok()?)))
        .collect();
    assert!(!files.is_empty(), "no file ends with {ending}");
    files
}

/// The part of a Rust file before its tests.
fn code_lines(text: &str) -> usize {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn rust_files_have_a_header_and_can_be_read_in_one_go() {
    for (path, text) in files(".rs") {
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(header > 0, "{} starts without a //! header", path.display());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, at most {LINES_MAX} are allowed", path.display());
        if path.ends_with("main.rs") && path.starts_with("services") {
            assert!(
                lines <= MAIN_LINES_MAX,
                "{} has {lines} lines: main is a table of contents",
                path.display()
            );
        }
    }
}

#[test]
fn boot_is_no_framework() {
    let lines: usize = files(".rs")
        .iter()
        .filter(|(path, _)| path.starts_with("crates/boot"))
        .map(|(_, text)| code_lines(text))
        .sum();
    assert!(
        lines <= BOOT_LINES_MAX,
        "crates/boot has {lines} lines of code, at most {BOOT_LINES_MAX} are allowed"
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two parts, so that this file does not find itself.
    let leftovers = [["TO", "DO"], ["FIX", "ME"], ["to", "do!("], ["unimple", "mented!("], ["#[ig", "nore"]];
    for ending in [".rs", ".sql", ".sh", ".proto", ".md", ".css", ".html"] {
        for (path, text) in files(ending) {
            for leftover in leftovers.map(|parts| parts.concat()) {
                assert!(!text.contains(&leftover), "{} has a {leftover}", path.display());
            }
        }
    }
}

#[test]
fn drivers_stay_in_the_store_files() {
    let drivers = [
        ("services/keys/src", "sqlx::"),
        ("services/query/src", "clickhouse::"),
        ("services/ingest/src", "clickhouse::"),
    ];
    for (path, text) in files(".rs") {
        for (folder, driver) in drivers {
            let named = path.starts_with(folder) && text.contains(driver);
            let store = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("store"));
            assert!(!named || store, "{} names {driver}, which belongs in a store file", path.display());
        }
    }
}
