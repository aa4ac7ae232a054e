//! The described page in real Chromium, driven by the scripts in `browser/`.

use std::{path::Path, process::Stdio};

use parts::free_port;
use tokio::process::Command;

use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

/// Debian's; never one that a tool has downloaded.
const CHROMIUM: &str = "/usr/bin/chromium";
/// Who we are at the OpenID Connect provider.
const CLIENT_ID: &str = "keymeter";
const CLIENT_SECRET: &str = "a secret: of 32 % and more characters";

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
async fn people_sign_in_at_an_openid_connect_provider() {
    let port = free_port();
    let (address, folder) = (format!("127.0.0.1:{port}"), tempfile::tempdir().unwrap());
    let secret_file = folder.path().join("client-secret");
    std::fs::write(&secret_file, CLIENT_SECRET).unwrap();
    let url = format!("http://{address}");
    let stack = Stack::start_with_keys(vec![
        ("KEYMETER_KEYS_OIDC_ISSUER", url.clone()),
        ("KEYMETER_KEYS_OIDC_CLIENT_ID", CLIENT_ID.to_owned()),
        ("KEYMETER_KEYS_OIDC_CLIENT_SECRET_FILE", secret_file.display().to_string()),
        ("KEYMETER_KEYS_OIDC_NAME", "Example ID".to_owned()),
    ]);
    let stack = Box::pin(stack).await;
    let _provider = script("provider.cjs", &stack)
        .env("PORT", port.to_string())
        .env("CLIENT_ID", CLIENT_ID)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let answers = async || parts::get(&address, "/.well-known/openid-configuration").await.is_ok();
    parts::eventually("the provider answers", answers).await;
    check(script("oidc.cjs", &stack).env("PROVIDER_URL", url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_done_by_keyboard() {
    run("keyboard.cjs").await;
}

/// Runs a script of `browser/` against a system of its own.
async fn run(name: &str) {
    let stack = Stack::start().await;
    check(&mut script(name, &stack)).await;
}

/// A script of `browser/`, told where the system is.
fn script(name: &str, stack: &Stack) -> Command {
    assert!(Path::new(CHROMIUM).exists(), "Chromium is missing: apt-get install chromium");
    let mut command = Command::new("node");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("browser").join(name))
        .env("NODE_PATH", parts::node_modules())
        .env("CHROMIUM", CHROMIUM)
        .env("UI_URL", format!("http://127.0.0.1:{}", stack.ports.ui))
        .env("EDGE_URL", stack.edge_url())
        .env("EMAIL", ADMIN_EMAIL)
        .env("PASSWORD", ADMIN_PASSWORD)
        .kill_on_drop(true);
    command
}

/// That a script ends well.
async fn check(script: &mut Command) {
    let output = script.output().await.unwrap();
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
}
