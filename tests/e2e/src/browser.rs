//! The described page in real Chromium, driven by the scripts in `browser/`.

use std::path::Path;

use tokio::process::Command;

use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

/// Debian's; never one that a tool has downloaded.
const CHROMIUM: &str = "/usr/bin/chromium";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_generates_a_key_and_sees_its_calls_counted() {
    run("first_call.cjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usage_page_holds_point_by_point() {
    run("usage.cjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_looks_after_keys_from_birth_to_deletion() {
    run("keys.cjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_is_invited_and_its_workspace_is_looked_after() {
    run("team.cjs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_done_by_keyboard() {
    run("keyboard.cjs").await;
}

/// Runs a script of `browser/` against a system of its own.
async fn run(script: &str) {
    assert!(Path::new(CHROMIUM).exists(), "Chromium is missing: apt-get install chromium");
    let stack = Stack::start().await;
    let output = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("browser").join(script))
        .env("NODE_PATH", parts::node_modules())
        .env("CHROMIUM", CHROMIUM)
        .env("UI_URL", format!("http://127.0.0.1:{}", stack.ports.ui))
        .env("EDGE_URL", stack.edge_url())
        .env("EMAIL", ADMIN_EMAIL)
        .env("PASSWORD", ADMIN_PASSWORD)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
}
