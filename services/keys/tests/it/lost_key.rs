//! The key-encryption key: changed while the service runs, lost, and not needed by a workspace that keeps no copies.

use std::sync::Arc;

use keys::{
    caller::Caller,
    workspaces::{Changes, Workspaces},
};
use parts::eventually;
use proto::{
    keys::{
        CreateKeyRequest, CreateKeyResponse, Key, RevealKeyRequest, VerifyKeyRequest,
        keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
    },
    resource::parse_workspace_name,
};
use tonic::{Code, Status};

use crate::{
    chain::findings,
    harness::{EMAIL, ROLE, Running, Served, bearer, kek, reason, serve, sign_in},
};

const OLD: &str = "5a";
const NEW: &str = "6b";

fn write_kek(run: &Running, lines: &[&str]) {
    let lines: Vec<String> = lines.iter().map(|byte| byte.repeat(32)).collect();
    std::fs::write(run.folder.path().join("kek"), lines.join("\n")).unwrap();
}

/// Another service with the keys that are in the file now.
async fn start(run: &Running) -> (Served, String) {
    let service = serve(&run.postgres.url_as(ROLE), &run.nats.url(), &run.folder).await;
    eventually("the service is ready", async || *service.health.ready().borrow()).await;
    let mut sessions = SessionsServiceClient::new(service.channel.clone());
    let token = sign_in(&mut sessions, EMAIL).await.unwrap().access_token.unwrap().token;
    (service, token)
}

async fn reveal((service, token): &(Served, String), made: &CreateKeyResponse) -> Result<String, Status> {
    let request = RevealKeyRequest { name: made.key.clone().unwrap().name };
    let mut keys = KeysServiceClient::new(service.channel.clone());
    Ok(keys.reveal_key(bearer(token, request)).await?.into_inner().secret)
}

async fn make((service, token): &(Served, String), parent: &str, repeat: &str) -> CreateKeyResponse {
    let key = Some(Key { display_name: "a".into(), ..Key::default() });
    let request = CreateKeyRequest { parent: parent.into(), key, idempotency_key: repeat.into() };
    let mut keys = KeysServiceClient::new(service.channel.clone());
    keys.create_key(bearer(token, request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn another_key_takes_over_while_the_service_runs() {
    let run = Running::start().await;
    let _ = run.add_tenant("eve@example.org").await;
    let made = run.make("a").await;
    // A row from before there could be several keys.
    let _ = run.postgres.query("update workspace_data_keys set kek_id = ''");
    let copies = "select secret_id, sealed from secrets order by 1";
    let before = run.postgres.query(copies);
    write_kek(&run, &[NEW, OLD]);
    let both = start(&run).await;
    assert_eq!(reveal(&both, &made).await.unwrap(), made.secret);

    for expected in ["2 data keys are now under", "0 data keys are now under"] {
        let (good, said) = run.command(&["rewrap"]).await;
        assert!(good && said.contains(expected), "{said}");
    }
    assert_eq!(run.postgres.query(copies), before, "copies are not touched");
    let ids = "select count(distinct kek_id) from (select kek_id from workspace_data_keys union all
               select kek_id from signing_keys union all select kek_id from person_keys) k";
    assert_eq!(run.postgres.query(ids), "1\n");
    assert_eq!(reveal(&both, &made).await.unwrap(), made.secret);

    write_kek(&run, &[NEW]);
    let new = start(&run).await;
    assert_eq!(reveal(&new, &made).await.unwrap(), made.secret);
    assert_eq!(findings(&run).await, []);
    write_kek(&run, &[OLD]);
    let (good, said) = run.command(&["rewrap"]).await;
    assert!(!good && said.contains("that are not known"), "{said}");
    let mut old = serve(&run.postgres.url_as(ROLE), &run.nats.url(), &run.folder).await;
    let error = (&mut old.task).await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("keys reset-signing-key"), "{error:#}");
}

#[tokio::test]
async fn without_the_key_everything_works_but_copying() {
    let run = Running::start().await;
    let made = run.make("a").await;
    write_kek(&run, &[NEW]);
    let (good, said) = run.command(&["reset-signing-key"]).await;
    assert!(good && said.contains("restart the service"), "{said}");
    let service = start(&run).await;

    let later = make(&service, &run.workspace, "once").await;
    assert!(!later.secret.is_empty(), "it is shown once, as always");
    assert!(make(&service, &run.workspace, "once").await.secret.is_empty(), "and not again");
    for key in [&made, &later] {
        let error = reveal(&service, key).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "NO_COPY"));
        let mut keys = KeysServiceClient::new(service.0.channel.clone());
        let request = VerifyKeyRequest { parent: run.workspace.clone(), secret: key.secret.clone() };
        assert!(keys.verify_key(bearer(&service.1, request)).await.unwrap().into_inner().valid);
    }
    // Tokens from before are still good, and the chain goes on under the new signing key.
    run.make("by the service that still has the old key").await;
    let (good, said) = run.command(&["verify-chain"]).await;
    assert!(good, "{said}");
    assert_eq!(run.postgres.query("select count(*) from person_keys"), "2\n", "one that opens was made");

    // If the key is found after all, what it sealed opens again.
    write_kek(&run, &[NEW, OLD]);
    let found = start(&run).await;
    assert_eq!(reveal(&found, &made).await.unwrap(), made.secret);
    write_kek(&run, &[NEW]);

    // A workspace copies again after copying was switched off and on.
    let (store, new_kek) = (run.store(), kek(&run.folder));
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let caller = Caller { actor: "test".into(), address: None };
    let now = time::OffsetDateTime::UNIX_EPOCH;
    let workspaces = Workspaces::new(store, Arc::new(new_kek));
    for keep_copies in [false, true] {
        workspaces.update(workspace_id, copying(keep_copies), &caller, now).await.unwrap();
    }
    let again = make(&service, &run.workspace, "").await;
    assert_eq!(reveal(&service, &again).await.unwrap(), again.secret);

    assert_eq!(findings(&run).await, []);
}

#[tokio::test]
async fn a_workspace_that_keeps_no_copies_has_none() {
    let run = Running::start().await;
    let made = run.make("a").await;
    let store = run.store();
    let workspace_id = parse_workspace_name(&run.workspace).unwrap();
    let caller = Caller { actor: "test".into(), address: None };
    let now = time::OffsetDateTime::UNIX_EPOCH;
    // While others create.
    let creating = futures_util::future::join_all((0..8).map(|_| async {
        for _ in 0..5 {
            run.make("b").await;
        }
    }));
    let workspaces = Workspaces::new(store, Arc::new(kek(&run.folder)));
    let stopping = workspaces.update(workspace_id, copying(false), &caller, now);
    let (_, stopped) = tokio::join!(creating, stopping);
    stopped.unwrap();
    let rows = "select count(*), count(sealed), (select count(*) from workspace_data_keys) from secrets";
    assert_eq!(run.postgres.query(rows), "41\t0\t0\n");
    let reveal = async |made: &CreateKeyResponse| {
        let request = RevealKeyRequest { name: made.key.clone().unwrap().name };
        run.keys().reveal_key(run.ask(request)).await
    };
    let error = reveal(&made).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "NO_COPY"));
    let change = "select before, after from audit_entries where action = 'update_workspace'";
    assert_eq!(run.postgres.query(change), "{\"keep_copies\": true}\t{\"keep_copies\": false}\n");

    for _ in 0..2 {
        workspaces.update(workspace_id, copying(true), &caller, now).await.unwrap();
    }
    let again = run.make("c").await;
    assert_eq!(reveal(&again).await.unwrap().into_inner().secret, again.secret);
    assert_eq!(findings(&run).await, []);
}

fn copying(keep_copies: bool) -> Changes {
    Changes { keep_copies: Some(keep_copies), ..Changes::default() }
}
