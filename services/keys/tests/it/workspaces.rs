//! Settings of a workspace, its suspension, export and end.

use parts::eventually;
use prost::Message as _;
use prost_types::FieldMask;
use proto::{
    events::{self, KeyState},
    keys::{
        AddressStorage, CreateKeyRequest, DeleteKeyRequest, DeleteWorkspaceRequest, ExchangeTokenRequest,
        ExportWorkspaceRequest, GetWorkspaceRequest, Key, ListKeysRequest, ResumeWorkspaceRequest,
        RevealKeyRequest, Role, SuspendWorkspaceRequest, UpdateWorkspaceRequest, VerificationCode,
        VerifyKeyRequest, Workspace,
    },
    nats::{ERASURES_BUCKET, RETENTIONS_BUCKET},
};
use serde_json::Value;
use tonic::{Code, Response, Status};

use crate::{
    harness::{EMAIL, Running, field, sign_in, token_file},
    team::refused,
};

async fn update(run: &Running, workspace: Workspace, paths: &[&str]) -> Result<Workspace, Status> {
    let workspace = Workspace { name: run.workspace.clone(), ..workspace };
    let update_mask = Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() });
    let request = UpdateWorkspaceRequest { workspace: Some(workspace), update_mask };
    run.workspaces().update_workspace(run.ask(request)).await.map(Response::into_inner)
}

async fn get(run: &Running) -> Result<Workspace, Status> {
    let request = GetWorkspaceRequest { name: run.workspace.clone() };
    run.workspaces().get_workspace(run.ask(request)).await.map(Response::into_inner)
}

#[tokio::test]
async fn settings_are_changed_by_mask_and_audited() {
    let run = Running::start().await;
    let first = get(&run).await.unwrap();
    assert_eq!(
        (first.audit_retention_days, first.disable_exposed_keys, first.keep_copies),
        (400, false, true)
    );
    let asked = Workspace { display_name: "Mill".into(), audit_retention_days: 30, ..Workspace::default() };
    let named = update(&run, asked.clone(), &["display_name"]).await.unwrap();
    assert_eq!(named, Workspace { display_name: "Mill".into(), ..first.clone() });
    let kept = update(&run, asked, &[]).await.unwrap();
    assert_eq!(
        (kept.audit_retention_days, kept.keep_copies),
        (30, true),
        "no mask leaves switches as they are"
    );
    let exposed = Workspace { disable_exposed_keys: true, ..Workspace::default() };
    let exposed = update(&run, exposed, &["disable_exposed_keys"]).await.unwrap();
    assert!(exposed.disable_exposed_keys);
    assert_eq!(get(&run).await.unwrap(), exposed);
    let audited = "select string_agg(before::text || after::text, ' ' order by sequence) from audit_entries
                   where action = 'update_workspace'";
    let expected = r#"{"display_name": "Analytical Engines"}{"display_name": "Mill"} "#.to_owned()
        + r#"{"audit_retention_days": 400}{"audit_retention_days": 30} "#
        + r#"{"disable_exposed_keys": false}{"disable_exposed_keys": true}"#;
    assert_eq!(run.postgres.query(audited).trim_end(), expected);

    for days in [0, 29, 3_651, -1] {
        let bad = Workspace { audit_retention_days: days, ..Workspace::default() };
        let error = update(&run, bad, &["audit_retention_days"]).await.unwrap_err();
        assert_eq!(field(&error), "workspace.audit_retention_days");
    }
    let unnamed = update(&run, Workspace::default(), &["*"]).await.unwrap_err();
    assert_eq!(field(&unnamed), "workspace.audit_retention_days");
    for path in ["suspend_time", "name", "x", ""] {
        assert_eq!(field(&update(&run, Workspace::default(), &[path]).await.unwrap_err()), "update_mask");
    }
}

#[tokio::test]
async fn without_copies_nothing_is_revealed() {
    let run = Running::start().await;
    let key = run.make("a").await.key.unwrap();
    assert_eq!(run.postgres.query("select count(*) from secrets where sealed is not null"), "1\n");
    update(&run, Workspace { keep_copies: false, ..Workspace::default() }, &["keep_copies"]).await.unwrap();
    assert_eq!(run.postgres.query("select count(*) from secrets where sealed is not null"), "0\n");
    let reveal = run.ask(RevealKeyRequest { name: key.name });
    refused(run.keys().reveal_key(reveal).await, Code::FailedPrecondition, "NO_COPY");
}

#[tokio::test]
async fn a_suspension_goes_through_the_feed_both_ways() {
    let run = Running::start().await;
    let made = [run.make("a").await, run.make("b").await];
    let fed = async |state: KeyState| {
        for made in &made {
            run.fed(&made.secret, |entry| entry.state() == state).await;
        }
    };
    let code = async || {
        let verify = VerifyKeyRequest { parent: run.workspace.clone(), secret: made[0].secret.clone() };
        run.keys().verify_key(run.ask(verify)).await.unwrap().into_inner().code()
    };
    fed(KeyState::Active).await;
    let suspend = async || {
        let request = SuspendWorkspaceRequest { name: run.workspace.clone() };
        run.workspaces().suspend_workspace(run.ask(request)).await.unwrap().into_inner()
    };
    let suspended = suspend().await;
    assert!(suspended.suspend_time.is_some());
    fed(KeyState::Disabled).await;
    assert_eq!(code().await, VerificationCode::Disabled);
    assert_eq!(suspend().await, suspended, "twice is once");
    let resume = ResumeWorkspaceRequest { name: run.workspace.clone() };
    let resumed = run.workspaces().resume_workspace(run.ask(resume)).await.unwrap().into_inner();
    assert_eq!(resumed.suspend_time, None);
    fed(KeyState::Active).await;
    assert_eq!(code().await, VerificationCode::Valid);
    let audited =
        "select string_agg(action, ' ' order by sequence) from audit_entries where action like '%e_workspace'
                   or action like 'suspend%'";
    assert_eq!(run.postgres.query(audited), "create_workspace suspend_workspace resume_workspace\n");
}

#[tokio::test]
async fn how_addresses_are_kept_goes_through_the_feed_tombstones_too() {
    let run = Running::start().await;
    let (live, gone) = (run.make("a").await, run.make("b").await);
    let delete = DeleteKeyRequest { name: gone.key.clone().unwrap().name, ..DeleteKeyRequest::default() };
    run.keys().delete_key(run.ask(delete)).await.unwrap();
    run.fed(&gone.secret, |entry| entry.state() == KeyState::Deleted).await;
    assert_eq!(get(&run).await.unwrap().address_storage(), AddressStorage::Whole);
    let keeping = |storage: AddressStorage| Workspace {
        audit_retention_days: 400,
        display_name: "Mill".into(),
        keep_copies: true,
        address_storage: storage.into(),
        ..Workspace::default()
    };
    for (asked, fed) in [
        (AddressStorage::Truncated, events::AddressStorage::Truncated),
        (AddressStorage::None, events::AddressStorage::None),
    ] {
        let updated = update(&run, keeping(asked), &["address_storage"]).await.unwrap();
        assert_eq!(updated.address_storage(), asked);
        run.fed(&live.secret, |entry| entry.address_storage() == fed).await;
        run.fed(&gone.secret, |entry| entry.address_storage() == fed && entry.state() == KeyState::Deleted)
            .await;
    }
    // Who does not know the field does not widen it.
    let all = update(&run, keeping(AddressStorage::Unspecified), &["*"]).await.unwrap();
    assert_eq!((all.display_name.as_str(), all.address_storage()), ("Mill", AddressStorage::None));
    let unset = update(&run, keeping(AddressStorage::Unspecified), &[]).await.unwrap();
    assert_eq!(unset.address_storage(), AddressStorage::None);
    let named = update(&run, keeping(AddressStorage::Unspecified), &["address_storage"]).await;
    assert_eq!(field(&named.unwrap_err()), "workspace.address_storage");
    let audited = "select string_agg(before::text || after::text, ' ' order by sequence) from audit_entries
                   where action = 'update_workspace' and after::text like '%address%'";
    let expected = r#"{"address_storage": "whole"}{"address_storage": "truncated"} "#.to_owned()
        + r#"{"address_storage": "truncated"}{"address_storage": "none"}"#;
    assert_eq!(run.postgres.query(audited).trim_end(), expected);
}

#[tokio::test]
async fn how_long_calls_are_kept_is_told_to_the_others_again_and_again() {
    let mut run = Running::start().await;
    assert_eq!(get(&run).await.unwrap().request_retention_days, 90);
    let keeping = |days: i32| Workspace {
        audit_retention_days: 400,
        display_name: "Mill".into(),
        request_retention_days: days,
        ..Workspace::default()
    };
    for (asked, mask) in
        [(36, "request_retention_days"), (401, "*"), (0, "request_retention_days"), (-1, "*")]
    {
        let refused = update(&run, keeping(asked), &[mask]).await;
        assert_eq!(field(&refused.unwrap_err()), "workspace.request_retention_days");
    }
    let id = run.workspace.strip_prefix("workspaces/").unwrap().to_owned();
    let url = run.nats.url();
    let told = async |days: u32| {
        eventually("the bucket says so", async || {
            let context = async_nats::jetstream::new(async_nats::connect(&url).await.ok()?);
            let value =
                context.get_key_value(RETENTIONS_BUCKET).await.ok()?.get(id.as_str()).await.ok()??;
            (events::Retention::decode(value).ok()?.days == days).then_some(())
        })
        .await;
    };
    for days in [37, 400, 90] {
        let updated = update(&run, keeping(days), &["request_retention_days"]).await.unwrap();
        assert_eq!(updated.request_retention_days, days);
        told(days.unsigned_abs()).await;
    }
    let unset = update(&run, keeping(0), &["*"]).await.unwrap();
    assert_eq!(unset.request_retention_days, 90, "who does not know the field changes nothing");
    run.nats.stop().await;
    run.nats.wipe();
    run.nats.restart().await;
    told(90).await;
}

#[tokio::test]
async fn an_export_holds_everything_but_secrets() {
    let run = Running::start().await;
    run.join("bob@example.org", Role::Viewer).await;
    let made = run.make("first").await;
    for number in 0..105 {
        run.make(&format!("key {number}")).await;
    }
    run.add_tenant("eve@example.org").await;
    let request = run.ask(ExportWorkspaceRequest { name: run.workspace.clone() });
    let mut stream = run.workspaces().export_workspace(request).await.unwrap().into_inner();
    let mut text = String::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        text += str::from_utf8(&chunk.ndjson).unwrap();
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("workspace")[0]["display_name"], "Analytical Engines");
    let emails: Vec<_> = of("member").iter().map(|member| member["email"].clone()).collect();
    assert_eq!(emails, [EMAIL, "bob@example.org"]);
    assert_eq!(of("key").len(), 106);
    let first =
        of("key").into_iter().find(|key| key["name"] == made.key.as_ref().unwrap().name.as_str()).unwrap();
    assert_eq!((&first["display_name"], &first["environment"]), (&"first".into(), &"live".into()));
    assert_eq!(of("audit_entry").iter().filter(|entry| entry["action"] == "create_key").count(), 106);
    assert_eq!(of("audit_entry").iter().filter(|entry| entry["action"] == "export_workspace").count(), 1);
    assert_eq!(lines.len(), 1 + 2 + 106 + of("audit_entry").len());
    for hidden in ["secret_hash", "sealed", "eve@example.org", &made.secret] {
        assert!(!text.contains(hidden), "{hidden}");
    }
    let hash = run.postgres.query("select encode(secret_hash, 'hex') from secrets limit 1");
    assert!(!text.contains(hash.trim()));
}

async fn delete(run: &Running, display_name: &str) -> Result<(), Status> {
    let request =
        DeleteWorkspaceRequest { name: run.workspace.clone(), display_name: display_name.to_owned() };
    run.workspaces().delete_workspace(run.ask(request)).await.map(|_| ())
}

#[tokio::test]
async fn a_deleted_workspace_is_gone_for_everybody() {
    let run = Running::start().await;
    let made = [run.make("a").await, run.make("b").await];
    let (foreign, _) = run.add_tenant("eve@example.org").await;
    let bob = run.join("bob@example.org", Role::Admin).await;
    for wrong in ["", "Analytical engines", "Elsewhere"] {
        assert_eq!(field(&delete(&run, wrong).await.unwrap_err()), "display_name");
    }
    assert_eq!(get(&run).await.unwrap().display_name, "Analytical Engines");
    delete(&run, "Analytical Engines").await.unwrap();

    // Every edge is told, and the others are told to forget.
    for made in &made {
        run.fed(&made.secret, |entry| entry.state() == KeyState::Deleted).await;
    }
    let context = async_nats::jetstream::new(async_nats::connect(run.nats.url()).await.unwrap());
    let id = run.workspace.strip_prefix("workspaces/").unwrap();
    let erasure = eventually("the erasure", async || {
        context.get_key_value(ERASURES_BUCKET).await.ok()?.get(id).await.ok().flatten()
    })
    .await;
    let erasure = events::Erasure::decode(erasure).unwrap();
    assert_eq!(erasure.workspace_id, id.parse::<domain::WorkspaceId>().unwrap().as_bytes());
    assert!(erasure.up_to.unwrap().seconds > time::OffsetDateTime::now_utc().unix_timestamp());

    // Nobody gets in, not even with a token that is still out.
    refused(get(&run).await, Code::NotFound, "NOT_FOUND");
    refused(delete(&run, "").await, Code::NotFound, "NOT_FOUND");
    let key = Some(Key { display_name: "late".into(), ..Key::default() });
    let create = CreateKeyRequest { parent: run.workspace.clone(), key, ..Default::default() };
    refused(run.keys().create_key(run.ask(create)).await, Code::NotFound, "NOT_FOUND");
    refused(run.invite(&run.admin, "x@example.org", Role::Viewer).await, Code::NotFound, "NOT_FOUND");
    refused(run.refresh(&bob).await, Code::PermissionDenied, "NOT_A_MEMBER");
    refused(sign_in(&mut run.sessions(), EMAIL).await, Code::PermissionDenied, "NOT_A_MEMBER");
    let service_token = std::fs::read_to_string(token_file(&run.folder, EMAIL)).unwrap();
    let exchange = run.sessions().exchange_token(ExchangeTokenRequest { service_token }).await;
    refused(exchange, Code::Unauthenticated, "NOT_SIGNED_IN");

    // What is left: a tombstone, the keys' tombstones, the other tenant.
    let left = "select (select count(*) from memberships), (select count(*) from service_tokens),
                       (select count(*) from workspace_data_keys), (select count(*) from keys where delete_time is null),
                       (select count(*) from secrets where sealed is not null), (select count(*) from secrets)";
    eventually("the keys are deleted", async || run.postgres.query(left) == "1\t1\t1\t0\t0\t2\n").await;
    assert_eq!(run.postgres.query("select count(*) from workspaces where display_name = ''"), "1\n");
    let actors = "select count(distinct actor) from key_events where type = 'deleted' and actor like 'acc_%'";
    assert_eq!(run.postgres.query(actors), "1\n");
    let eve = sign_in(&mut run.sessions(), "eve@example.org").await.unwrap();
    assert_eq!(eve.workspace, foreign);
    let list = ListKeysRequest { parent: foreign, ..Default::default() };
    run.keys().list_keys(crate::harness::bearer(&eve.access_token.unwrap().token, list)).await.unwrap();
}

#[tokio::test]
async fn an_erasure_is_told_again_to_a_bucket_that_forgot() {
    let mut run = Running::start().await;
    delete(&run, "Analytical Engines").await.unwrap();
    let url = run.nats.url();
    let id = run.workspace.strip_prefix("workspaces/").unwrap().to_owned();
    let told = async || {
        eventually("the erasure", async || {
            let context = async_nats::jetstream::new(async_nats::connect(&url).await.ok()?);
            context.get_key_value(ERASURES_BUCKET).await.ok()?.get(id.as_str()).await.ok().flatten()
        })
        .await
    };
    let first = told().await;
    run.nats.stop().await;
    run.nats.wipe();
    run.nats.restart().await;
    assert_eq!(told().await, first);
}
