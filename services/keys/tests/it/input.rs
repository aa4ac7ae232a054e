//! Bad input: each error names the field as it stands in the request, and changes nothing.

use prost_types::{FieldMask, Timestamp};
use proto::keys::{
    CreateKeyRequest, CreateWorkspaceRequest, DeleteKeyRequest, ExchangeTokenRequest, GetKeyRequest,
    GetWorkspaceRequest, Key, ListKeysRequest, ListWorkspacesRequest, RefreshRequest, RevealKeyRequest,
    SignInRequest, SignOutRequest, UpdateKeyRequest, VerifyKeyRequest, Workspace,
};
use time::OffsetDateTime;
use tonic::Code;

use crate::harness::{Running, field, reason};

#[tokio::test]
async fn every_field_of_a_new_key_is_checked() {
    let run = Running::start().await;
    let good = CreateKeyRequest {
        parent: run.workspace.clone(),
        key: Some(Key { display_name: "a".into(), ..Key::default() }),
        idempotency_key: String::new(),
    };
    let check = async |change: &dyn Fn(&mut CreateKeyRequest, &mut Key), expected: &str| {
        let mut request = good.clone();
        let mut key = request.key.take().unwrap();
        change(&mut request, &mut key);
        request.key = Some(key);
        let error = run.keys().create_key(run.ask(request)).await.unwrap_err();
        assert_eq!(field(&error), expected);
    };
    let past = Timestamp { seconds: OffsetDateTime::now_utc().unix_timestamp() - 1, nanos: 0 };
    check(&|request, _| request.parent.clear(), "parent").await;
    check(&|request, _| request.parent = "workspaces/ws_x".into(), "parent").await;
    check(&|request, _| request.parent += "/keys/x", "parent").await;
    check(&|_, key| key.display_name.clear(), "key.display_name").await;
    check(&|_, key| key.display_name = " ".into(), "key.display_name").await;
    check(&|_, key| key.display_name = "x".repeat(101), "key.display_name").await;
    check(&|_, key| key.display_name = "a\u{7}".into(), "key.display_name").await;
    check(&|_, key| key.description = "x".repeat(1001), "key.description").await;
    check(&|_, key| key.description = "\0".into(), "key.description").await;
    check(&|_, key| key.environment = 3, "key.environment").await;
    check(&|_, key| key.expire_time = Some(past), "key.expire_time").await;
    check(&|_, key| key.expire_time = Some(Timestamp { seconds: 0, nanos: -1 }), "key.expire_time").await;
    check(&|_, key| key.expire_time = Some(Timestamp { seconds: i64::MAX, nanos: 0 }), "key.expire_time")
        .await;
    check(&|request, _| request.idempotency_key = "x".repeat(65), "idempotency_key").await;
    check(&|request, _| request.idempotency_key = "a\nb".into(), "idempotency_key").await;
    let missing = CreateKeyRequest { key: None, ..good };
    assert_eq!(field(&run.keys().create_key(run.ask(missing)).await.unwrap_err()), "key");
    assert_eq!(run.postgres.query("select count(*) from keys"), "0\n");
}

#[tokio::test]
async fn every_field_of_an_update_is_checked() {
    let run = Running::start().await;
    let key = run.make("a").await.key.unwrap();
    let check = async |change: &dyn Fn(&mut Key), path: &str, expected: &str| {
        let mut key = Key { display_name: "b".into(), ..key.clone() };
        change(&mut key);
        let update_mask = Some(FieldMask { paths: vec![path.into()] });
        let request = UpdateKeyRequest { key: Some(key), update_mask };
        let error = run.keys().update_key(run.ask(request)).await.unwrap_err();
        assert_eq!(field(&error), expected);
    };
    check(&|key| key.name.clear(), "display_name", "key.name").await;
    check(&|key| key.name = key.name.replace("keys", "secrets"), "display_name", "key.name").await;
    check(&|key| key.display_name.clear(), "display_name", "key.display_name").await;
    check(&|key| key.description = "\u{1}".into(), "description", "key.description").await;
    check(&|key| key.expire_time = Some(Timestamp::default()), "expire_time", "key.expire_time").await;
    check(&|_| {}, "environment", "update_mask").await;
    check(&|_| {}, "secret", "update_mask").await;
    let request = UpdateKeyRequest { key: None, update_mask: None };
    assert_eq!(field(&run.keys().update_key(run.ask(request)).await.unwrap_err()), "key.name");
    assert_eq!(run.postgres.query("select display_name, version from keys"), "a\t1\n");
}

#[tokio::test]
async fn names_and_pages_are_checked() {
    let run = Running::start().await;
    let (mut keys, mut workspaces) = (run.keys(), run.workspaces());
    for name in ["", "x", "keys/key_x", "workspaces/a/keys/b", &run.workspace] {
        let name = name.to_owned();
        let get = keys.get_key(run.ask(GetKeyRequest { name: name.clone() })).await.unwrap_err();
        assert_eq!(field(&get), "name");
        let reveal = keys.reveal_key(run.ask(RevealKeyRequest { name: name.clone() })).await.unwrap_err();
        assert_eq!(field(&reveal), "name");
        let delete = run.ask(DeleteKeyRequest { name: name.clone(), ..Default::default() });
        assert_eq!(field(&keys.delete_key(delete).await.unwrap_err()), "name");
        if name != run.workspace {
            let get = workspaces.get_workspace(run.ask(GetWorkspaceRequest { name: name.clone() })).await;
            assert_eq!(field(&get.unwrap_err()), "name");
            let verify = run.ask(VerifyKeyRequest { parent: name, secret: String::new() });
            assert_eq!(field(&keys.verify_key(verify).await.unwrap_err()), "parent");
        }
    }
    let list = async |page_size: i32, page_token: &str| {
        let parent = run.workspace.clone();
        let page_token = page_token.to_owned();
        let request = ListKeysRequest { parent, page_size, page_token, ..Default::default() };
        field(&run.keys().list_keys(run.ask(request)).await.unwrap_err())
    };
    assert_eq!(list(-1, "").await, "page_size");
    for token in ["x", "AAAA", "é", &"A".repeat(10_000)] {
        assert_eq!(list(0, token).await, "page_token");
        let request = ListWorkspacesRequest { page_size: 0, page_token: token.to_owned() };
        let error = workspaces.list_workspaces(run.ask(request)).await.unwrap_err();
        assert_eq!(field(&error), "page_token");
    }
    let request = ListWorkspacesRequest { page_size: -1, page_token: String::new() };
    assert_eq!(field(&workspaces.list_workspaces(run.ask(request)).await.unwrap_err()), "page_size");
    let unnamed = CreateWorkspaceRequest { workspace: Some(Workspace::default()) };
    let error = workspaces.create_workspace(run.ask(unnamed)).await.unwrap_err();
    assert_eq!(field(&error), "workspace.display_name");
    let error =
        workspaces.create_workspace(run.ask(CreateWorkspaceRequest { workspace: None })).await.unwrap_err();
    assert_eq!(field(&error), "workspace");
}

#[tokio::test]
async fn what_signs_in_is_checked() {
    let run = Running::start().await;
    let mut sessions = run.sessions();
    for (email, password, expected) in [
        ("", "x", "email"),
        ("ada", "x", "email"),
        ("a\0@b", "x", "email"),
        ("ada@example.org", "", "password"),
        ("ada@example.org", &*"x".repeat(1025), "password"),
    ] {
        let request = SignInRequest { email: email.into(), password: password.into() };
        assert_eq!(field(&sessions.sign_in(request).await.unwrap_err()), expected);
    }
    let refresh = RefreshRequest::default();
    assert_eq!(field(&sessions.refresh(refresh).await.unwrap_err()), "session_token");
    let refresh = RefreshRequest { session_token: "x".into(), workspace: "x".into() };
    assert_eq!(field(&sessions.refresh(refresh).await.unwrap_err()), "workspace");
    assert_eq!(field(&sessions.sign_out(SignOutRequest::default()).await.unwrap_err()), "session_token");
    let exchange = ExchangeTokenRequest::default();
    assert_eq!(field(&sessions.exchange_token(exchange).await.unwrap_err()), "service_token");
}

#[tokio::test]
async fn nothing_is_told_without_an_access_token() {
    let run = Running::start().await;
    let (mut keys, mut workspaces) = (run.keys(), run.workspaces());
    let name = || "workspaces/x".to_owned();
    let errors = [
        keys.create_key(CreateKeyRequest::default()).await.unwrap_err(),
        keys.get_key(GetKeyRequest { name: name() }).await.unwrap_err(),
        keys.list_keys(ListKeysRequest::default()).await.unwrap_err(),
        keys.update_key(UpdateKeyRequest::default()).await.unwrap_err(),
        keys.reveal_key(RevealKeyRequest { name: name() }).await.unwrap_err(),
        keys.delete_key(DeleteKeyRequest::default()).await.unwrap_err(),
        keys.verify_key(VerifyKeyRequest::default()).await.unwrap_err(),
        workspaces.create_workspace(CreateWorkspaceRequest::default()).await.unwrap_err(),
        workspaces.get_workspace(GetWorkspaceRequest { name: name() }).await.unwrap_err(),
        workspaces.list_workspaces(ListWorkspacesRequest::default()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.code(), reason(&error).as_str()), (Code::Unauthenticated, "ACCESS_TOKEN_MISSING"));
    }
}
