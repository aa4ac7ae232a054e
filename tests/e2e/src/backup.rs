//! A copy of Postgres and ClickHouse, made while calls go on, is put back after both are lost: every call is counted
//! once, those after the copy too, and what was deleted after the copy stays deleted.

use std::collections::BTreeSet;

use parts::{ClickHouse, Nats, Postgres, eventually};
use proto::keys::{GetKeyRequest, ListKeysRequest, keys_service_client::KeysServiceClient};
use tokio::process::Command;

use crate::stack::{MadeKey, Stack};

/// Runs a command to its end and tells all that it said.
async fn run(mut command: Command) -> (bool, String) {
    let output = command.output().await.unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    (output.status.success(), said)
}

/// `deploy/backup` or `deploy/restore`.
async fn copy(stack: &Stack, script: &str, folder: &std::path::Path) -> (bool, String) {
    let mut command = Command::new(parts::root().join("deploy").join(script));
    command
        .arg(folder.join("copy"))
        .env("KEYMETER_KEYS_OWNER_DATABASE_URL", stack.postgres.url())
        .env("KEYMETER_INGEST_CLICKHOUSE_URL", stack.clickhouse.url())
        .env("KEYMETER_BACKUP_CLICKHOUSE_TO", format!("File('{}/NAME')", folder.display()))
        .env("PG_BIN", Postgres::programs());
    run(command).await
}

async fn call(stack: &Stack, key: &MadeKey, answered: &mut BTreeSet<String>) {
    let client = stack.client(&key.secret);
    for _ in 0..20 {
        let answer = client.get("/v1/orders/17").await;
        assert_eq!(answer.status, 200);
        answered.insert(answer.request_id());
    }
}

/// Takes the key's state from keys.
async fn is_deleted(stack: &Stack, key: &MadeKey) -> bool {
    let request = stack.signed(GetKeyRequest { name: key.name.clone() }).await;
    let key = KeysServiceClient::new(stack.keys_channel().await).get_key(request).await.unwrap().into_inner();
    key.delete_time.is_some()
}

/// Loses what Postgres and ClickHouse have.
async fn lose(stack: &mut Stack) {
    for service in [&mut stack.keys, &mut stack.ingest, &mut stack.query] {
        assert!(service.sigterm().await.success());
    }
    let _ = stack.postgres.query("drop schema public cascade");
    let _ = stack.postgres.query("create schema public");
    stack.clickhouse.query("drop database keymeter sync").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_put_back_and_nothing_is_lost_doubled_or_revived() {
    let folder = tempfile::tempdir().unwrap();
    let (nats, postgres, clickhouse) =
        tokio::join!(Nats::start(), Postgres::start(), ClickHouse::start_with_copies(folder.path()));
    let mut stack = Stack::start_on(nats, postgres, clickhouse).await;
    stack.ready().await;
    let (steady, doomed) = (stack.make_key("Steady").await, stack.make_key("Doomed").await);
    let mut answered = BTreeSet::new();
    call(&stack, &steady, &mut answered).await;
    call(&stack, &doomed, &mut answered).await;
    stack.complete().await;
    let (is_good, said) = copy(&stack, "backup", folder.path()).await;
    assert!(is_good && said.contains("The copy is in"), "{said}");
    let (is_good, said) = copy(&stack, "backup", folder.path()).await;
    assert!(!is_good && said.contains("is not empty"), "{said}");
    let (is_good, said) = copy(&stack, "restore", folder.path()).await;
    assert!(!is_good && said.contains("Postgres has") && said.contains("nothing was done"), "{said}");

    // After the copy: a key is deleted, another one is made, and there are calls.
    stack.delete_key(&doomed).await;
    let forgotten = stack.make_key("Forgotten").await;
    call(&stack, &steady, &mut answered).await;
    call(&stack, &forgotten, &mut answered).await;
    stack.complete().await;
    lose(&mut stack).await;
    call(&stack, &steady, &mut answered).await;

    let (is_good, said) = copy(&stack, "restore", folder.path()).await;
    assert!(is_good, "{said}");
    let from = said.split("--add --from ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    stack.migrate().await;
    let mut rebuild = Command::new(parts::binary("ingest"));
    rebuild.args(["rebuild", "--add", "--from", from, "--nats-url", &stack.nats.url()]);
    rebuild.args(["--clickhouse-url", &stack.clickhouse.url()]);
    let (is_good, said) = run(rebuild).await;
    assert!(is_good && said.contains("wrote 40 rows"), "{said}");
    for service in [&mut stack.keys, &mut stack.ingest, &mut stack.query] {
        service.restart();
    }
    stack.ready().await;

    call(&stack, &steady, &mut answered).await;
    stack.assert_counted_once(&answered, 0).await;
    eventually("the deletion is known again", async || is_deleted(&stack, &doomed).await).await;
    for key in [&doomed, &forgotten] {
        eventually("it is refused", async || stack.client(&key.secret).get("/v1/orders").await.status == 401)
            .await;
    }
    let list = ListKeysRequest { parent: stack.workspace.clone(), ..ListKeysRequest::default() };
    let list = stack.signed(list).await;
    let listed = KeysServiceClient::new(stack.keys_channel().await).list_keys(list).await.unwrap();
    let names: Vec<_> = listed.into_inner().keys.into_iter().map(|key| key.name).collect();
    assert_eq!(names, [steady.name]);
}
