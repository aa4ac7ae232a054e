//! Every event and audit entry of a workspace has its place in one chain, also when many write at once.

mod pruned;

use domain::WorkspaceId;
use futures_util::future::join_all;
use keys::{
    ledger::{Address, Fact, Finding, Origin, Stored},
    store::audit::Change,
    verify_chain,
};
use proto::{
    keys::{DeleteKeyRequest, Key, RevealKeyRequest, UpdateKeyRequest},
    resource::parse_workspace_name,
};
use serde_json::json;

use crate::harness::{ROLE, Running, bearer};

/// What is wrong with any chain.
pub(crate) async fn findings(run: &Running) -> Vec<Finding> {
    let mut findings = vec![];
    verify_chain::verify(&run.store(), Default::default(), &mut |finding| findings.push(finding))
        .await
        .unwrap();
    findings
}

/// A key with some history, and an entry about it.
pub(crate) async fn live_a_life(run: &Running) -> Key {
    let key = run.make("billing").await.key.unwrap();
    let change = Key { name: key.name.clone(), display_name: "payroll".into(), ..Key::default() };
    run.keys().update_key(run.ask(UpdateKeyRequest { key: Some(change), update_mask: None })).await.unwrap();
    run.keys().reveal_key(run.ask(RevealKeyRequest { name: key.name.clone() })).await.unwrap();
    key
}

#[tokio::test]
async fn what_happens_is_chained_with_what_was_before() {
    let run = Running::start().await;
    let key = live_a_life(&run).await;
    let delete = DeleteKeyRequest { name: key.name.clone(), ..Default::default() };
    run.keys().delete_key(bearer(&run.machine, delete)).await.unwrap();

    let store = run.store();
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let entries = store.entries(workspace_id, 0, 100).await.unwrap();
    assert_eq!(entries.iter().map(|stored| stored.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let facts: Vec<_> = entries
        .iter()
        .map(|stored| match &stored.entry.as_ref().unwrap().fact {
            Fact::Key { kind, before, .. } => (kind.as_str(), before.clone()),
            Fact::Audit { action, before, .. } => (action.as_str(), before.clone()),
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("create_workspace", None),
            ("created", None),
            ("updated", Some(json!({"display_name": "billing"}))),
            ("reveal_key", None),
            ("deleted", Some(json!({"delete_time": null}))),
        ]
    );
    let here = Address::Known("127.0.0.1".into());
    assert_eq!(
        store.addresses(&origins(&entries)).await.unwrap(),
        [Address::None, here.clone(), here.clone(), here.clone(), here]
    );
    assert_eq!(findings(&run).await, []);
    assert_eq!(run.postgres.query("select count(*) from person_keys"), "1\n", "one key for the one person");
    let clear = "select count(*) from key_events where from_address is not null";
    assert_eq!(run.postgres.query(clear), "1\n", "only the service's");

    let (good, said) = run.command(&["verify-chain"]).await;
    assert!(good && said.contains("5 entries of 1 workspaces checked, 0 findings"), "{said}");
}

#[tokio::test]
async fn the_chain_stays_whole_when_many_write() {
    let run = Running::start().await;
    let (other, stranger) = run.add_tenant("eve@example.org").await;
    let clients = (0..8).map(|client| {
        let (parent, token) =
            if client % 4 == 3 { (&other, &stranger) } else { (&run.workspace, &run.admin) };
        let mut keys = run.keys();
        async move {
            for number in 0..10 {
                let key = Some(Key { display_name: format!("{client} {number}"), ..Key::default() });
                let create =
                    proto::keys::CreateKeyRequest { parent: parent.clone(), key, ..Default::default() };
                let made = keys.create_key(bearer(token, create)).await.unwrap().into_inner();
                let name = made.key.unwrap().name;
                // Each person may have ten in ten minutes.
                if number == 0 {
                    keys.reveal_key(bearer(token, RevealKeyRequest { name })).await.unwrap();
                } else {
                    let delete = DeleteKeyRequest { name, ..Default::default() };
                    keys.delete_key(bearer(token, delete)).await.unwrap();
                }
            }
        }
    });
    join_all(clients).await;
    assert_eq!(findings(&run).await, []);
    let heads = "select sequence from workspace_chains order by 1";
    assert_eq!(run.postgres.query(heads), "41\n121\n", "an entry each, and those of the workspaces");
}

#[tokio::test]
async fn what_was_not_committed_is_in_no_chain() {
    let run = Running::start().await;
    let store = run.store();
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let caller = keys::caller::Caller { actor: "test".into(), address: None };
    let now = time::OffsetDateTime::UNIX_EPOCH;
    let mut tx = store.begin().await.unwrap();
    tx.audit(workspace_id, "nothing", "x", &caller, now).await.unwrap();
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    let float = Change::ended(json!({"n": 1.5}));
    tx.audit_change(workspace_id, "odd", "x", float, &caller, now).await.unwrap();
    tx.commit().await.expect_err("what can not be hashed is not recorded");
    let closed = keys::store::Store::new(&run.postgres.url_as(ROLE).into(), None).unwrap();
    let mut tx = closed.begin().await.unwrap();
    tx.audit(workspace_id, "unsigned", "x", &caller, now).await.unwrap();
    tx.commit().await.expect_err("nothing is recorded without a signature");
    assert_eq!(run.postgres.query("select action from audit_entries"), "create_workspace\n");

    // Whatever JSON goes in hashes as it comes out of Postgres again.
    let odd = json!({"b": [1, -2, null, true, {"": "ä\u{1}\n\"\\/\u{7f}🦀"}], "aa": {}, "Z": u64::MAX, "a": i64::MIN});
    let mut tx = store.begin().await.unwrap();
    let change = Change::of(odd, json!(null));
    tx.audit_change(workspace_id, "odd", "x", change, &caller, now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(findings(&run).await, []);
}

/// Where entries stand, and what they keep of where their actors asked from.
pub(crate) fn origins(entries: &[Stored]) -> Vec<((WorkspaceId, i64), &Origin)> {
    entries
        .iter()
        .filter_map(|stored| Some((stored.sequence, stored.entry.as_ref()?)))
        .map(|(sequence, entry)| ((entry.workspace_id, sequence), &entry.origin))
        .collect()
}
