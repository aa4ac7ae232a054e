//! An audit trail ends where its workspace says, the chain over it stays whole, and nobody can shorten it further.

use keys::ledger::Flaw;
use proto::{
    keys::{Key, ListAuditEntriesRequest, RevealKeyRequest, UpdateWorkspaceRequest, Workspace},
    resource::parse_workspace_name,
};
use time::{Duration, OffsetDateTime};

use crate::{
    chain::findings,
    harness::{ROLE, Running},
};

/// Reveals a secret, which leaves an audit entry; a person may do that ten times in ten minutes.
async fn reveal(run: &Running, key: &Key, times: usize) {
    for _ in 0..times {
        run.keys().reveal_key(run.ask(RevealKeyRequest { name: key.name.clone() })).await.unwrap();
    }
}

/// Lets audit entries be older than they are; what is kept of them is then not what was recorded.
fn age(run: &Running, entries: &str, days: u32) {
    let sql =
        format!("update audit_entries set entry_time = entry_time - interval '{days} days' where {entries}");
    let _ = run.postgres.query(&sql);
}

async fn sweep(run: &Running) {
    keys::sweep::sweep(&run.store(), OffsetDateTime::now_utc()).await.unwrap();
}

#[tokio::test]
async fn old_audit_entries_go_and_the_chain_stays_whole() {
    let run = Running::start().await;
    // 1 create_workspace, 2 created, 3 to 7 reveal_key
    let key = run.make("billing").await.key.unwrap();
    reveal(&run, &key, 5).await;
    age(&run, "sequence <= 3", 402);
    age(&run, "sequence = 4", 400);
    age(&run, "sequence = 5", 399);
    sweep(&run).await;
    let left = "select string_agg(sequence || ' ' || action, ', ' order by sequence) from audit_entries";
    assert_eq!(run.postgres.query(left).trim(), "5 reveal_key, 6 reveal_key, 7 reveal_key, 8 prune_audit");
    age(&run, "sequence = 5", 0);
    let _ = run
        .postgres
        .query("update audit_entries set entry_time = entry_time + interval '399 days' where sequence = 5");
    assert_eq!(findings(&run).await, [], "the places of what went are enough");

    let request = ListAuditEntriesRequest { parent: run.workspace.clone(), ..Default::default() };
    let page = run.audit().list_audit_entries(run.ask(request)).await.unwrap().into_inner();
    let newest = &page.audit_entries[0];
    assert_eq!((newest.action.as_str(), newest.actor.as_str()), ("prune_audit", "keys"));
    assert_eq!(newest.after_json, r#"{"entries":3,"up_to_sequence":4}"#);

    sweep(&run).await;
    assert_eq!(run.postgres.query("select count(*) from audit_entries"), "4\n", "once is enough");
    // The record of a cut is no reason for another one.
    age(&run, "true", 500);
    let _ = run.postgres.query("delete from audit_entries where action <> 'prune_audit'");
    sweep(&run).await;
    assert_eq!(run.postgres.query("select count(*) from audit_entries"), "1\n");
}

#[tokio::test]
async fn a_workspace_chooses_how_long_its_trail_is() {
    let run = Running::start().await;
    let key = run.make("billing").await.key.unwrap();
    reveal(&run, &key, 1).await;
    age(&run, "true", 40);
    sweep(&run).await;
    assert_eq!(run.postgres.query("select count(*) from pruned_entries"), "0\n");
    let workspace =
        Workspace { name: run.workspace.clone(), audit_retention_days: 30, ..Workspace::default() };
    let update = UpdateWorkspaceRequest { workspace: Some(workspace), update_mask: None };
    run.workspaces().update_workspace(run.ask(update)).await.unwrap();
    sweep(&run).await;
    assert_eq!(run.postgres.query("select count(*) from pruned_entries"), "2\n");
    // Twice more, and each record counts all that is gone.
    for gone in [5, 7] {
        reveal(&run, &key, 1).await;
        age(&run, "true", 40);
        sweep(&run).await;
        assert_eq!(run.postgres.query("select count(*) from pruned_entries"), format!("{gone}\n"));
        assert_eq!(findings(&run).await, []);
    }
}

#[tokio::test]
async fn nothing_else_can_be_taken_out() {
    let run = Running::start().await;
    let key = run.make("billing").await.key.unwrap();
    reveal(&run, &key, 3).await;
    let id = parse_workspace_name(&run.workspace).unwrap().as_uuid();

    // The service: what is in its time stays, whatever it asks for, and it writes no places.
    let prune = format!("select prune_audit_entries('{id}', 1000)");
    assert_eq!(run.postgres.try_query_as(ROLE, &prune).unwrap(), "0\n");
    for sql in ["delete from pruned_entries", "insert into pruned_entries select * from pruned_entries"] {
        let said = run.postgres.try_query_as(ROLE, sql).unwrap_err();
        assert!(said.contains("permission denied"), "{sql}: {said}");
    }
    let later = OffsetDateTime::now_utc() + Duration::days(1_000);
    keys::sweep::sweep(&run.store(), later).await.unwrap();
    assert_eq!(
        run.postgres.query("select count(*) from pruned_entries"),
        "0\n",
        "Postgres has its own clock"
    );

    // The owner of the tables: the check finds it.
    let take = |table: &str, sequence: i64| {
        format!(
            "with t as (delete from {table} where workspace_id = '{id}' and sequence = {sequence}
                        returning workspace_id, sequence, content_hash, entry_hash)
             insert into pruned_entries select * from t"
        )
    };
    let flaws = async || {
        findings(&run).await.into_iter().map(|found| (found.sequence, found.flaw)).collect::<Vec<_>>()
    };
    let _ = run.postgres.query(&take("audit_entries", 4));
    assert_eq!(flaws().await, [(4, Flaw::Pruned)]);

    // Also behind a cut that was recorded: there it is one too many.
    age(&run, "sequence in (1, 3)", 402);
    sweep(&run).await;
    assert_eq!(flaws().await, [(4, Flaw::Pruned)], "4 is beyond the cut at 3");
    let _ = run.postgres.query(&take("key_events", 2));
    let _ = run.postgres.query("delete from pruned_entries where sequence = 4");
    assert!(flaws().await.contains(&(3, Flaw::Pruned)), "2 is before the cut, and one too many");
}
