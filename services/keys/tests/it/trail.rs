//! The audit trail: everything in it, found by filters, in pages that miss nothing.

use proto::{
    keys::{
        AuditEntry, AuditFilter, DeleteKeyRequest, ExportAuditEntriesRequest, Key, ListAuditEntriesRequest,
        RevealKeyRequest, Role, UpdateKeyRequest, UpdateWorkspaceRequest, Workspace,
    },
    timestamp::to_proto,
};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tonic::{Response, Status};

use crate::harness::{Running, bearer, field};

async fn page(
    run: &Running,
    filter: &AuditFilter,
    page_size: i32,
    page_token: &str,
) -> Result<(Vec<AuditEntry>, String), Status> {
    let request = ListAuditEntriesRequest {
        parent: run.workspace.clone(),
        filter: Some(filter.clone()),
        page_size,
        page_token: page_token.into(),
    };
    let page = run.audit().list_audit_entries(run.ask(request)).await.map(Response::into_inner)?;
    Ok((page.audit_entries, page.next_page_token))
}

async fn all(run: &Running, filter: &AuditFilter) -> Vec<AuditEntry> {
    page(run, filter, 0, "").await.unwrap().0
}

/// Two keys that live, members, a revealed secret: the actions, newest first.
async fn some_history(run: &Running) -> (Key, &'static [&'static str]) {
    let made = run.make("first").await.key.unwrap();
    let bob = run.join("bob@example.org", Role::Viewer).await;
    run.set_role(&run.owner().await, &bob, Role::Member).await.unwrap();
    let reveal = RevealKeyRequest { name: made.name.clone() };
    run.keys().reveal_key(run.ask(reveal)).await.unwrap();
    let renamed = Key { name: made.name.clone(), display_name: "second".into(), ..Key::default() };
    let update = UpdateKeyRequest { key: Some(renamed), update_mask: None };
    run.keys().update_key(run.ask(update)).await.unwrap();
    let delete = DeleteKeyRequest { name: made.name.clone(), ..Default::default() };
    run.keys().delete_key(bearer(&run.machine, delete)).await.unwrap();
    let actions = &[
        "delete_key",
        "update_key",
        "reveal_key",
        "update_member",
        "accept_invitation",
        "create_invitation",
        "create_key",
        "create_workspace",
    ];
    (made, actions)
}

#[tokio::test]
async fn everything_is_listed_newest_first_and_filtered() {
    let run = Running::start().await;
    let (key, expected) = some_history(&run).await;
    let entries = all(&run, &AuditFilter::default()).await;
    let actions =
        |entries: &[AuditEntry]| entries.iter().map(|entry| entry.action.clone()).collect::<Vec<_>>();
    assert_eq!(actions(&entries), expected);
    assert!(entries[..7].iter().all(|entry| entry.from_address == "127.0.0.1"), "{entries:?}");
    assert!(entries[0].actor.starts_with("svc_") && entries[1].actor.starts_with("acc_"));
    assert_eq!(entries[7].actor, "bootstrap");
    assert_eq!(entries[1].resource, key.name);
    assert_eq!(entries[1].after_json, r#"{"display_name":"second"}"#);
    assert_eq!(
        (&*entries[3].before_json, &*entries[3].after_json),
        (r#"{"role":"viewer"}"#, r#"{"role":"member"}"#)
    );
    let hash = run.postgres.query("select encode(secret_hash, 'hex') from secrets");
    assert!(entries.iter().all(|entry| !format!("{entry:?}").contains(hash.trim())), "no hash is shown");
    assert!(!entries[6].after_json.is_empty());

    let by = |change: &dyn Fn(&mut AuditFilter)| {
        let mut filter = AuditFilter::default();
        change(&mut filter);
        filter
    };
    let found = async |change: &dyn Fn(&mut AuditFilter)| actions(&all(&run, &by(change)).await);
    assert_eq!(found(&|filter| filter.action = "create_key".into()).await, ["create_key"]);
    assert_eq!(found(&|filter| filter.action = "created".into()).await, [""; 0]);
    assert_eq!(found(&|filter| filter.action = "reveal_key".into()).await, ["reveal_key"]);
    let of_key = ["delete_key", "update_key", "reveal_key", "create_key"];
    assert_eq!(found(&|filter| filter.resource.clone_from(&key.name)).await, of_key);
    assert_eq!(found(&|filter| filter.actor.clone_from(&entries[0].actor)).await, ["delete_key"]);
    assert_eq!(found(&|filter| filter.from = entries[2].entry_time).await, &expected[..3]);
    assert_eq!(found(&|filter| filter.to = entries[2].entry_time).await, &expected[3..]);
    let between = |filter: &mut AuditFilter| {
        (filter.from, filter.to) = (entries[4].entry_time, entries[2].entry_time);
    };
    assert_eq!(found(&between).await, &expected[3..5]);
}

#[tokio::test]
async fn pages_and_the_export_hold_every_entry_once() {
    let run = Running::start().await;
    some_history(&run).await;
    // Also where all have the same time.
    let same = "set session_replication_role = replica;
                update audit_entries set entry_time = '2026-11-22 06:00:00Z';
                update key_events set event_time = '2026-11-22 06:00:00Z'";
    let _ = run.postgres.query(same);
    let names = |entries: &[AuditEntry]| entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
    let expected = names(&all(&run, &AuditFilter::default()).await);
    assert_eq!(expected.len(), 8);
    for size in [1, 2, 3, 7, 8] {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let (entries, next) = page(&run, &AuditFilter::default(), size, &token).await.unwrap();
            found.extend(names(&entries));
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(found, expected);
    }

    // More than one chunk of lines.
    for number in 0..120 {
        run.make(&format!("key {number}")).await;
    }
    let request = ExportAuditEntriesRequest { parent: run.workspace.clone(), filter: None };
    let mut stream = run.audit().export_audit_entries(run.ask(request)).await.unwrap().into_inner();
    let mut text = String::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        assert!(chunk.ndjson.ends_with(b"\n"));
        text += str::from_utf8(&chunk.ndjson).unwrap();
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 128);
    assert_eq!(lines.iter().filter(|line| line["action"] == "create_key").count(), 121);
    let last = lines[120..].iter().map(|line| line["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(last, expected);
}

#[tokio::test]
async fn what_is_older_than_the_workspace_keeps_is_not_shown() {
    let run = Running::start().await;
    let (_, expected) = some_history(&run).await;
    let aged = "set session_replication_role = replica;
                update audit_entries set entry_time = entry_time - interval '31 days';
                update key_events set event_time = event_time - interval '29 days'";
    let _ = run.postgres.query(aged);
    assert_eq!(all(&run, &AuditFilter::default()).await.len(), expected.len());
    let workspace =
        Workspace { name: run.workspace.clone(), audit_retention_days: 30, ..Workspace::default() };
    let update = UpdateWorkspaceRequest { workspace: Some(workspace), update_mask: None };
    run.workspaces().update_workspace(run.ask(update)).await.unwrap();
    let long_ago = Some(to_proto(OffsetDateTime::now_utc() - Duration::days(300)));
    let kept = all(&run, &AuditFilter { from: long_ago, ..AuditFilter::default() }).await;
    let actions: Vec<_> = kept.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["update_workspace", "delete_key", "update_key", "create_key"]);
}

#[tokio::test]
async fn a_filter_and_a_page_are_checked() {
    let run = Running::start().await;
    let check = async |change: &dyn Fn(&mut AuditFilter), token: &str| {
        let mut filter = AuditFilter::default();
        change(&mut filter);
        field(&page(&run, &filter, 0, token).await.unwrap_err())
    };
    assert_eq!(check(&|filter| filter.actor = "x".repeat(257), "").await, "filter.actor");
    assert_eq!(check(&|filter| filter.action = "\0".into(), "").await, "filter.action");
    assert_eq!(check(&|filter| filter.resource = "x".repeat(257), "").await, "filter.resource");
    let at = Some(to_proto(OffsetDateTime::now_utc()));
    assert_eq!(check(&|filter| (filter.from, filter.to) = (at, at), "").await, "filter.to");
    run.make("a").await;
    let (_, token) = page(&run, &AuditFilter::default(), 1, "").await.unwrap();
    assert_eq!(check(&|filter| filter.action = "create_key".into(), &token).await, "page_token");
    assert_eq!(field(&page(&run, &AuditFilter::default(), -1, "").await.unwrap_err()), "page_size");
}
