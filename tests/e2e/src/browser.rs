//! The described page in real Chromium, driven by `browser/first_call.cjs`.

use std::path::Path;

use tokio::process::Command;

use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

/// Debian's; never one that a tool has downloaded.
const CHROMIUM: &str = "/usr/bin/chromium";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_generates_a_key_and_sees_its_calls_counted() {
    assert!(Path::new(CHROMIUM).exists(), "Chromium is missing: apt-get install chromium");
    let stack = Stack::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/browser/first_call.cjs");
    let output = Command::new("node")
        .arg(script)
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
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
