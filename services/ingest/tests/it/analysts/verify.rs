//! `deploy/clickhouse/verify-analysts` where it can check nothing: it says so, changes nothing, and does not end well.

use std::process::{Command, Output};

use parts::ClickHouse;

use super::engine;

fn verify(arguments: &[&str]) -> Output {
    let script = parts::root().join("deploy/clickhouse/verify-analysts");
    Command::new(script)
        .args(arguments)
        .env_remove("KEYMETER_VERIFY_PASSWORD")
        .output()
        .expect("bash runs the script")
}

#[tokio::test]
async fn a_server_without_users_is_told_and_left_as_it_is() {
    let state = async |clickhouse: &ClickHouse| {
        let rows = "select sum(rows) from system.parts where database = 'keymeter' and active";
        clickhouse.query(rows).await
            + &clickhouse
                .query("select name, uuid from system.tables where database != 'system' order by name")
                .await
    };
    let clickhouse = engine::prepared().await;
    let before = state(&clickhouse).await;
    let output = verify(&["--url", &clickhouse.url(), "--user", "default", "--password", ""]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("this server has no users") && said.contains("nothing was checked"), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(state(&clickhouse).await, before);
}

#[test]
fn a_server_that_is_away_and_a_wrong_call_are_told() {
    let nobody = format!("http://127.0.0.1:{}", parts::free_port());
    let output = verify(&["--url", &nobody, "--user", "default", "--password", "x"]);
    assert_eq!(output.status.code(), Some(3));
    for wrong in [&["--url", "http://127.0.0.1:1"][..], &["--user", "x"], &["--what", "x"], &["--url"]] {
        let output = verify(wrong);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("usage: verify-analysts"), "{said}");
    }
}
